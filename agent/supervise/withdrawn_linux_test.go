package supervise_test

import (
	"strings"
	"testing"
	"time"

	"chandler/agent/source"
	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

func TestAProgramStopsReadingWhenItsLeaseIsWithdrawn(t *testing.T) {
	t.Parallel()
	meeting := supervisetest.Meet(t)
	r := withReferences(t, meeting.Program("p"))
	r.lend(t)
	run := r.begin(t, supervise.Start)
	guest := meeting.Guest(t, "p")
	read := func() string { return guest.Ask(t, "read "+r.path("a")) }
	if got := read(); got != sum("alpha") {
		t.Fatalf("it reads %q", got)
	}
	r.mu.Lock()
	r.refuse = &source.Error{Reason: events.CredentialDenied, Answer: "an administrator revoked it"}
	r.mu.Unlock()
	if err := run.Withdraw("lease-0"); err != nil {
		t.Fatal(err)
	}
	if err := run.Withdraw("lease-1"); err != nil {
		t.Fatal(err)
	}
	late, tick := time.After(2*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for got := read(); !strings.HasSuffix(got, "permission denied"); got = read() {
		select {
		case <-late:
			t.Fatalf("it reads on: %q", got)
		case <-tick.C:
		}
	}
	if asked := r.asks(); len(asked) != 2 {
		t.Errorf("asked %q", asked)
	}
	guest.Exit(t, 0)
	if got := wait(t, run); got.ExitCode != 0 {
		t.Errorf("outcome %+v", got)
	}
	if told := accesses(t, run); len(told) != 2 || !strings.HasPrefix(told[1], "credential_denied") {
		t.Errorf("told %q", told)
	}
}
