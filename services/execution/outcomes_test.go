package execution

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
)

func TestHowAProgramEndedOfLate(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(6)
	for i, state := range []events.State{events.Succeeded, events.Succeeded, events.Failed, events.Rejected, events.Cancelled, events.Succeeded} {
		s := statusOf(w, d, ids[i], 3, state)
		s.Package, s.Program, s.Seconds = "hello", "install", float64(10*i)
		s.Reason = map[events.State]events.Reason{events.Failed: events.ExitCode, events.Rejected: events.NotTargeted}[state]
		if i == 5 {
			s.Package = "other"
		}
		w.tell(s)
	}
	w.states(r, "hello", map[events.State]int64{events.Succeeded: 3, events.Failed: 1, events.Rejected: 1, events.Cancelled: 1})
	got := must[events.OutcomeAnswer](w)(ask(w, events.ExecutionOutcomes, events.OutcomeQuery{Package: "hello", Program: "install"}))
	if len(got.Seconds) != quantiles+1 || got.Seconds[0] != 10 || got.Seconds[quantiles/2] != 20 || got.Seconds[quantiles] != 40 {
		t.Errorf("run times %v", got.Seconds)
	}
	got.Seconds = nil
	if diff := cmp.Diff(events.OutcomeAnswer{Jobs: 5, Succeeded: 2, Failed: 1, Reasons: map[events.Reason]int64{events.ExitCode: 1}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if all := must[events.OutcomeAnswer](w)(ask(w, events.ExecutionOutcomes, events.OutcomeQuery{})); all.Jobs != 6 {
		t.Errorf("of all programs: %+v", all)
	}
	if none := must[events.OutcomeAnswer](w)(ask(w, events.ExecutionOutcomes, events.OutcomeQuery{Program: "remove"})); none.Jobs != 0 || none.Seconds != nil {
		t.Errorf("of a program that nobody ran: %+v", none)
	}
	for range outcomesAsked {
		r.surveying <- struct{}{}
	}
	if _, err := ask(w, events.ExecutionOutcomes, events.OutcomeQuery{}); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("one question too many: %v", err)
	}
}

func TestOutcomesAreOfTheNewestEndsAndAnAttemptCountsOnce(t *testing.T) {
	w := newWorld(t)
	s := w.replicaWithoutReaders()
	d, agent := w.orderOf("hello", 1), agents(1)[0]
	end := func(job int, state events.State) {
		e := events.JobEnd{JobStatus: statusOf(w, d, agent, 3, state)}
		e.Job = fmt.Sprint("job", job)
		value, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.js.PublishAsync(events.HistorySubject(agent), value); err != nil {
			t.Fatal(err)
		}
	}
	end(1, events.Failed)
	for range outcomesAtOnce { // more than are read at once
		end(2, events.Failed)
	}
	end(2, events.Succeeded)
	<-s.js.PublishAsyncComplete()
	got, err := s.outcomesCall(t.Context(), "admin", events.OutcomeQuery{})
	if err != nil || got.Jobs != 2 || got.Succeeded != 1 || got.Failed != 1 {
		t.Errorf("%+v, %v: want the old failure, and the last end of the other", got, err)
	}
}
