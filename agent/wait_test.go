package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chandler/agent/fetch"
	"chandler/agent/identity"
	"chandler/agent/logon"
	"chandler/events"
	"chandler/events/order"
)

// decided gives a task that is ready to wait.
func (m *machine) decided(change ...func(*given)) *task {
	m.t.Helper()
	t := m.offer(change...)
	if state, reason := m.until(t, "decide"); state != "" {
		m.t.Fatalf("it is %s (%s)", state, reason)
	}
	return t
}

// said are the explanations of a job's statuses, oldest first.
func (m *machine) said(job string) (all []string) {
	m.t.Helper()
	entries, err := m.journal.Unsent(0, 1000)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Status.Job == job {
			all = append(all, e.Status.Explanation)
		}
	}
	return all
}

func TestWhatHindersAStartIsSaidOneReasonAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.decided(program(func(p *events.Program) {
			p.Command.Argv, p.Logon = []string{"sh", "-c", "apt-get -y install hello"}, "none"
		}))
		task.who.Elevated = true
		holder := "process 12 (apt-get) holds the lock"
		m.LockHolder = func(string) (string, error) { return holder, nil }
		office := m.seat(session("1", "alice", time.Now()))
		m.left = make(chan struct{})
		m.restartPending(events.JobOffer{Job: "other", Deployment: "other"}, "hello")
		m.slots.block("other")
		m.freezes = []events.Freeze{{ID: "fleet", Scope: "fleet", By: "ada", At: time.Now()}}
		for _, step := range []struct {
			want events.WaitingFor
			says string
			over func()
		}{
			{events.WaitFreeze, "frozen (fleet) by ada", func() { m.freezes = nil }},
			{events.WaitReboot, "about to restart", func() { m.slots.unblock("other") }},
			{events.WaitReboot, "complete only after a restart", func() { m.restartOver("other") }},
			{events.WaitLogoff, "alice", func() { office.now(t.Context()) }},
			{events.WaitSlot, "cannot be taken back", func() { m.left = nil }},
			{events.WaitSlot, holder, func() { holder = "" }},
		} {
			moment, cancel := context.WithTimeout(t.Context(), time.Second)
			if hindered, err := task.hindered(moment, true); !hindered || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%s: it does not wait: %v, %v", step.says, hindered, err)
			}
			cancel()
			if last := task.job.Last; last.State != events.Waiting || last.WaitingFor != step.want || !strings.Contains(last.Explanation, step.says) {
				t.Fatalf("it is %s for %s: %s; want %s", last.State, last.WaitingFor, last.Explanation, step.says)
			}
			if hindered, err := task.hindered(t.Context(), false); !hindered || err != nil {
				t.Fatalf("%s: the last look says %v, %v", step.says, hindered, err)
			}
			step.over()
		}
		if hindered, err := task.hindered(t.Context(), true); hindered || err != nil {
			t.Fatalf("in the end: %v, %v", hindered, err)
		}
	})
}

func TestAnInstallersLockThatPassesFromProcessToProcessIsNoNewsEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.decided(program(func(p *events.Program) { p.Command.Argv = []string{"dpkg", "-i", "hello.deb"} }))
		looks := 0
		m.LockHolder = func(string) (string, error) {
			if looks++; looks > 150 {
				return "", nil
			}
			return fmt.Sprintf("process %d (dpkg) holds the lock", looks), nil
		}
		began := time.Now()
		for {
			hindered, err := task.hindered(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			if !hindered {
				break
			}
		}
		took, said := time.Since(began), 0
		for _, text := range m.said(task.job.Offer.Job) {
			if strings.Contains(text, "(dpkg) holds the lock") {
				said++
			}
		}
		if took < 5*time.Minute || said < 5 || said > 6 {
			t.Errorf("in %s it said %d times who holds the lock", took, said)
		}
	})
}

func TestALogoffWhileTheContentIsFetchedCounts(t *testing.T) {
	m := newMachine(t)
	office := m.seat(session("1", "alice", time.Now()))
	task := m.decided(program(func(p *events.Program) { p.Logon = "none" }), func(g *given) { g.order.Assignments = []order.Assignment{{Logoff: true}} })
	if err := task.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	office.now(t.Context())
	if kept, _, err := m.journal.Job(task.job.Offer.Job); err != nil || !kept.SawUser {
		t.Errorf("the journal says %v, %v", kept.SawUser, err)
	}
	if what, why, err := task.logonHindrance(t.Context(), true); what != "" || err != nil {
		t.Errorf("it waits for %s (%s), %v", what, why, err)
	}
}

func TestNoProgramIsGivenRightsBeforeThoseOfAnEarlierProcessAreTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		kept := &rights{fails: 3}
		m.Rights = kept
		m.restoreRights(t.Context())
		if left, _ := m.rightsLeft(); !left {
			t.Fatal("nothing is left, it is said")
		}
		task := m.decided()
		task.who.Elevated = true
		ended := make(chan error, 1)
		go func() { ended <- m.restoreLeftRights(t.Context()) }()
		if hindered, err := task.hindered(t.Context(), true); !hindered || err != nil || task.job.Last.WaitingFor != events.WaitSlot {
			t.Fatalf("hindered %v by %q, %v", hindered, task.job.Last.WaitingFor, err)
		}
		if err := <-ended; err != nil || kept.asked != 4 {
			t.Errorf("it ended with %v after %d attempts", err, kept.asked)
		}
		if hindered, err := task.hindered(t.Context(), true); hindered || err != nil {
			t.Errorf("after that: %v, %v", hindered, err)
		}
	})
}

// rights cannot be taken back at first.
type rights struct{ fails, asked int }

func (r *rights) Restore(context.Context) error {
	if r.asked++; r.asked <= r.fails {
		return errors.New("the disk is full")
	}
	return nil
}

func (r *rights) Return(ctx context.Context, _ string) error { return r.Restore(ctx) }

func (r *rights) Tell(func(events.Type[events.AccountNote], events.AccountNote) error) {}

func TestAJobDoesNotEndBeforeRightsGivenInVainAreTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		kept := &rights{fails: 5}
		m.Rights = kept
		task, began := m.decided(), time.Now()
		if err := task.takeBack(t.Context()); err != nil || kept.asked != 6 {
			t.Errorf("%v after %d attempts", err, kept.asked)
		}
		if took := time.Since(began); took != (1+2+4+8+16)*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestACopyIsForTheUserWhoRunsIt(t *testing.T) {
	if !sameOwner(nil, nil) || sameOwner(nil, &fetch.Owner{}) || sameOwner(&fetch.Owner{UID: 1}, &fetch.Owner{UID: 2}) || !sameOwner(&fetch.Owner{UID: 1}, &fetch.Owner{UID: 1}) {
		t.Error("owners are confused")
	}
}

func TestAProgramWhoseUserHasJustLeftIsNotStarted(t *testing.T) {
	m := newMachine(t)
	office := m.seat(session("1", "alice", time.Now()))
	task := m.decided()
	task.who, task.program.Run = identity.Answer{Executor: identity.User}, events.RunUser
	if what, _, err := task.logonHindrance(t.Context(), true); what != "" || err != nil || task.session == nil {
		t.Fatalf("it waits for %q, %v", what, err)
	}
	office.now(t.Context())
	if err := task.run(t.Context()); !errors.Is(err, errNextAttempt) || task.job.Started != 0 {
		t.Errorf("it ends with %v, started %d", err, task.job.Started)
	}
}

func TestASessionIsTheSameOnlyIfItIsTheSameLogon(t *testing.T) {
	at := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	was := session("1", "alice", at)
	for name, c := range map[string]struct {
		now  []logon.Session
		over bool
	}{
		"it is there":                       {now: []logon.Session{session("2", "bob", at), was}},
		"nobody is there":                   {over: true},
		"the id is another user's now":      {now: []logon.Session{session("1", "bob", at)}, over: true},
		"the id is of a later logon":        {now: []logon.Session{session("1", "alice", at.Add(time.Second))}, over: true},
		"it is not known since when it is":  {now: []logon.Session{session("1", "alice", time.Time{})}},
		"the user has another session, too": {now: []logon.Session{session("3", "alice", at), was}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.seat(c.now...)
			if over := m.newTask(m.offer().job).loggedOff(&was); over != c.over {
				t.Errorf("over: %v", over)
			}
		})
	}
}
