package checker

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

func TestCorrectEvidenceHasNoViolations(t *testing.T) {
	for seed := range int64(10) {
		if found := Check(generate(seed, 60)); len(found) > 0 {
			t.Fatalf("seed %d: %s", seed, Report(found, 5))
		}
	}
}

func TestEachWitnessMayBeMissing(t *testing.T) {
	for name, forget := range map[string]func(*Evidence){
		"orders": func(e *Evidence) { e.Orders = nil }, "stops": func(e *Evidence) { e.Stops = nil }, "releases": func(e *Evidence) { e.Released, e.Counts = nil, nil },
		"counts": func(e *Evidence) { e.Counts = nil }, "offers": func(e *Evidence) { e.Offers = nil }, "statuses": func(e *Evidence) { e.Stored = nil },
		"acknowledgements": func(e *Evidence) { e.Acknowledged = nil }, "journals": func(e *Evidence) { e.Journals = nil }, "runs": func(e *Evidence) { e.Runs = nil },
		"execution": func(e *Evidence) { e.Jobs = nil }, "ends": func(e *Evidence) { e.Finished = nil }, "history": func(e *Evidence) { e.History = nil },
	} {
		t.Run(name, func(t *testing.T) {
			e := generate(3, 60)
			e.Deployments = []string{plain, stopped, revised, standing, forUsers, quiet, busy}
			switch forget(&e); name {
			case "stops": // nobody knows why some were not offered anything
				e.Released = nil
			case "orders": // nor which revision was replaced, nor which job only opens others
				e.Released, e.Counts = nil, nil
				e.Open[standing] = true
			case "ends": // nor that some ended in silence
				e.Open[quiet] = true
			}
			if found := Check(e); len(found) > 0 {
				t.Error(Report(found, 5))
			}
		})
	}
}

func TestTheOrderOfEvidenceChangesNothing(t *testing.T) {
	for seed := range int64(5) {
		random := rand.New(rand.NewSource(seed))
		e := generate(seed, 40)
		for range 40 { // so that there is something to find
			mutations[random.Intn(len(mutations))].change(&e)
		}
		want := Check(e)
		if len(want) == 0 {
			t.Fatal("nothing was broken")
		}
		for range 3 {
			shuffle(random, e.Orders)
			shuffle(random, e.Stops)
			shuffle(random, e.Released)
			shuffle(random, e.Counts)
			shuffle(random, e.Offers)
			shuffle(random, e.Stored)
			shuffle(random, e.Acknowledged)
			shuffle(random, e.Journals)
			shuffle(random, e.Runs)
			shuffle(random, e.Jobs)
			shuffle(random, e.Finished)
			shuffle(random, e.History)
			if diff := cmp.Diff(want, Check(e)); diff != "" {
				t.Fatalf("seed %d: %s", seed, diff)
			}
		}
	}
}

func shuffle[T any](random *rand.Rand, list []T) {
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

func TestWhatLiesBeforeIsNotReported(t *testing.T) {
	for seed := range int64(2) {
		for _, lost := range [][]Witness{{InEvents}, {InJobs}, {InStatus}, {InHistory}, {InEvents, InJobs, InStatus, InHistory}} {
			for part := range uint64(10) {
				w := live(seed, 40)
				from := 1 + w.seq*(part+1)/11
				for _, stream := range lost {
					w.e.Since[stream] = w.times[from]
					cut(&w.e, stream, from)
				}
				if found := Check(w.e); len(found) > 0 {
					t.Fatalf("seed %d, %v lost what was before %s: %s", seed, lost, w.times[from], Report(found, 3))
				}
			}
		}
	}
}

// cut removes what a stream held before that sequence.
func cut(e *Evidence, stream Witness, from uint64) {
	switch stream {
	case InEvents:
		since := e.Since[InEvents]
		e.Orders = slices.DeleteFunc(e.Orders, func(o Order) bool { return o.At.Before(since) })
		e.Stops = slices.DeleteFunc(e.Stops, func(s Stop) bool { return s.At.Before(since) })
		e.Released = after(e.Released, from, func(r Release) uint64 { return r.Sequence })
		e.Finished = after(e.Finished, from, func(f End) uint64 { return f.Sequence })
	case InJobs:
		e.Offers = after(e.Offers, from, func(o Offer) uint64 { return o.Sequence })
	case InStatus:
		e.Stored = after(e.Stored, from, func(s Status) uint64 { return s.Sequence })
	case InHistory:
		e.History = after(e.History, from, func(h End) uint64 { return h.Sequence })
	}
}

// after keeps what was stored as that sequence or later.
func after[T any](list []T, from uint64, of func(T) uint64) []T {
	return slices.DeleteFunc(list, func(one T) bool { return of(one) < from })
}

func TestAReportNamesWhatProvesIt(t *testing.T) {
	at := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	agent := events.AgentID([]byte("one"))
	job := events.JobID("d", 1, agent, 0, "")
	e := Evidence{Runs: []Run{
		{Agent: agent, Deployment: "d", Job: job, Attempt: 1, At: at, Ended: at.Add(time.Second), Well: true},
		{Agent: agent, Deployment: "d", Job: job, Attempt: 1, At: at.Add(2 * time.Second)},
		{Agent: agent, Deployment: "other", Job: events.JobID("other", 1, agent, 0, ""), Attempt: 1, At: at},
	}}
	want := fmt.Sprintf(`1 violation: ran-twice 1

ran-twice: deployment d, agent %s, job %s
  attempt 1 ran twice
    2026-12-01T08:00:00.000Z executor: attempt 1 started the program, ended at 08:00:01.000 with exit code 0
    2026-12-01T08:00:02.000Z executor: attempt 1 started the program, how it ended is not known
`, agent, job)
	if diff := cmp.Diff(want, Report(Check(e), 0)); diff != "" {
		t.Error(diff)
	}
	if got := Report(nil, 3); got != "no violations\n" {
		t.Errorf("nothing is reported as %q", got)
	}
	many := make([]Violation, 5)
	if got := Report(many, 2); !strings.HasPrefix(got, "5 violations: ") || !strings.HasSuffix(got, "and 3 more\n") {
		t.Errorf("five with a limit of two are reported as %q", got)
	}
	e.Deployments = []string{"other"}
	if found := Check(e); len(found) > 0 {
		t.Errorf("a deployment that nobody asked about is checked: %s", Report(found, 0))
	}
}

func TestWhatIsExcusedIsNotReported(t *testing.T) {
	lose := func(e *Evidence) Journal {
		j := *pick(e.Journals, ended(plain, events.Expired, events.DeploymentExpired))
		of := func(s Status) bool { return s.Job == j.Job && s.Transition > 1 }
		e.Stored = slices.DeleteFunc(e.Stored, of)
		e.Acknowledged = slices.DeleteFunc(e.Acknowledged, func(a Ack) bool { return a.Job == j.Job && a.Transition > 1 })
		end := func(x End) bool { return x.Job == j.Job }
		e.Finished, e.History = slices.DeleteFunc(e.Finished, end), slices.DeleteFunc(e.History, end)
		alter(e.Jobs, func(r events.JobRow) bool { return r.Job == j.Job }, func(r *events.JobRow) { r.State, r.Reason = events.Accepted, "" })
		return j
	}
	live := func(e *Evidence) {
		j := lose(e)
		alter(e.Journals, func(other Journal) bool { return other.Job == j.Job }, func(j *Journal) { j.Transition, j.State, j.Reason = 1, events.Accepted, "" })
	}
	for name, c := range map[string]struct {
		rule   Rule
		change func(*Evidence)
		excuse func(*Evidence)
	}{
		"an agent that is away has not told its end": {InJournal, func(e *Evidence) { lose(e) },
			func(e *Evidence) {
				e.Away[pick(e.Journals, ended(plain, events.Expired, events.DeploymentExpired)).Agent] = true
			}},
		"a deployment is open":      {Unfinished, live, func(e *Evidence) { e.Open[plain] = true }},
		"the fleet is frozen":       {Unfinished, live, func(e *Evidence) { e.Freezes = []events.Freeze{{Scope: "fleet"}} }},
		"the deployment is halted":  {Unfinished, live, func(e *Evidence) { e.Freezes = []events.Freeze{{Scope: "deployment", Name: plain, Revision: 1}} }},
		"another one was asked for": {Unfinished, live, func(e *Evidence) { e.Deployments = []string{busy} }},
		"clocks are a minute apart": {RanTwice, func(e *Evidence) {
			alter(e.Runs, func(r Run) bool { return r.Deployment == busy && r.Attempt == 1 }, func(r *Run) { r.Ended = r.Ended.Add(30 * time.Second) })
		}, func(e *Evidence) { e.Slack = time.Minute }},
		"JOBS keeps less of an agent": {NoOffer, func(e *Evidence) { loseOffer(e, func(o Offer) bool { return o.Deployment == busy && o.Attempt == 2 }) },
			func(e *Evidence) {
				for _, o := range e.Offers {
					e.OffersSince[o.Agent] = e.Journals[len(e.Journals)-1].At
				}
			}},
		"a retry was taken in and is not begun": {InJournal, func(e *Evidence) {
			alter(e.Journals, ended(plain, events.Failed, events.ExitCode), func(j *Journal) { j.State, j.Reason = events.Waiting, "" })
		}, func(e *Evidence) {
			alter(e.Journals, ended(plain, events.Waiting, ""), func(j *Journal) { j.State = events.Retrying })
			e.Open[plain] = true
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e := generate(1, 60)
			if c.change(&e); !slices.ContainsFunc(Check(e), func(v Violation) bool { return v.Rule == c.rule }) {
				t.Errorf("%s is not found without the excuse: %s", c.rule, Report(Check(e), 3))
			}
			if c.excuse(&e); len(Check(e)) > 0 {
				t.Error(Report(Check(e), 3))
			}
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	for _, agents := range []int{2_000, 20_000} {
		b.Run(fmt.Sprintf("agents=%d", agents), func(b *testing.B) {
			w := newWorld(1)
			w.order(plain, 1, false)
			all := make([]string, agents)
			for i := range all {
				all[i] = events.AgentID(fmt.Append(nil, i))
			}
			w.release(plain, 1, all)
			for _, agent := range all {
				t := w.told(plain, 1, agent, 0, "")
				t.offer(1)
				t.attempt(1, events.Succeeded, "", 0)
				t.close()
			}
			b.ReportAllocs()
			for b.Loop() {
				if found := Check(w.e); len(found) > 0 {
					b.Fatal(Report(found, 3))
				}
			}
			b.ReportMetric(float64(len(w.e.Stored))*float64(b.N)/b.Elapsed().Seconds(), "statuses/s")
		})
	}
}
