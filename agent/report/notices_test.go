package report

import (
	"testing"
	"time"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/eventstest"
)

func TestWhatWasDoneWithAccountsIsToldInOrderOnceAndOutlivesTheBroker(t *testing.T) {
	r := newRig(t)
	note := func(name string, attempt int) {
		n := events.AccountNote{Agent: me, Account: "token", Kind: "client-token", Job: events.JobID("d", 1, me, 0, ""), Deployment: "d", Attempt: attempt, At: time.Now().UTC()}
		must(t, r.journal.Notify(journal.Notice{Type: name, Note: n}))
		r.reporter.Wake()
	}
	note("agent.account.nobody_knows", 1) // holds up nothing
	note(events.AgentAccountElevated.Name, 1)
	note(events.AgentAccountReturned.Name, 1)
	again, err := r.journal.Notices(10)
	must(t, err)
	must(t, r.journal.Notify(again[1])) // as an agent does that was killed before it noted that it told
	r.run()
	eventstest.Expect(t, r.services, events.AgentAccountReturned, nil)
	r.broker.Stop()
	note(events.AgentAccountElevated.Name, 2)
	note(events.AgentAccountReturned.Name, 2)
	r.broker.Start()
	if back := eventstest.ExpectExactly(t, r.services, events.AgentAccountReturned, nil, 2); back[0].Data.Attempt != 1 || back[1].Data.Attempt != 2 {
		t.Errorf("told were the attempts %d, %d", back[0].Data.Attempt, back[1].Data.Attempt)
	}
	eventstest.ExpectExactly(t, r.services, events.AgentAccountElevated, nil, 2)
}
