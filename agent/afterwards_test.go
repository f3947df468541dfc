package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chandler/agent/detect"
	"chandler/agent/execute"
	"chandler/agent/inbox"
	"chandler/agent/journal"
	"chandler/agent/supervise"
	"chandler/events"
	"chandler/events/order"
)

// started gives a task whose program runs, or has run.
func (m *machine) started(change func(*events.Program)) *task {
	m.t.Helper()
	t := m.decided(program(change))
	t.job.Work = &journal.Work{Order: t.order, Program: t.program}
	t.job.Started, t.job.Ran = 1, true
	return t
}

func TestWhatTheEndOfAProgramMeans(t *testing.T) {
	kill := &events.CancelRequest{Kill: true}
	exit := func(code int) supervise.Outcome { return supervise.Outcome{Started: true, ExitCode: code} }
	killed := supervise.Outcome{Started: true, ExitCode: -1, Killed: true, Signal: "SIGKILL"}
	for name, c := range map[string]struct {
		outcome supervise.Outcome
		ago     time.Duration // since it ended
		gone    bool          // its user's session is over
		leaves  time.Duration // the session is over so long after the program
		cancel  *events.CancelRequest
		after   string
		state   events.State
		reason  events.Reason
	}{
		"killed by its user's logoff":                   {outcome: killed, gone: true, state: events.Failed, reason: events.UserLoggedOff},
		"killed by an administrator":                    {outcome: killed, cancel: kill, state: events.Cancelled, reason: events.DeploymentStopped},
		"killed by an administrator, and its user left": {outcome: killed, cancel: kill, gone: true, state: events.Cancelled, reason: events.DeploymentStopped},
		"timed out, and its user left": {outcome: supervise.Outcome{Started: true, Killed: true, TimedOut: true}, gone: true,
			state: events.Failed, reason: events.RunTimeExceeded},
		"failed as its user left":                 {outcome: exit(1), gone: true, state: events.Failed, reason: events.UserLoggedOff},
		"failed long before its user left":        {outcome: exit(1), gone: true, ago: time.Hour, state: events.Failed, reason: events.ExitCode},
		"failed with its user there":              {outcome: exit(1), state: events.Failed, reason: events.ExitCode},
		"could not start, and its user left":      {outcome: supervise.Outcome{ErrorKind: supervise.NotFound}, gone: true, state: events.Failed, reason: events.CommandNotFound},
		"ended by Windows before the session was": {outcome: exit(0x40010004), leaves: 5 * time.Second, state: events.Failed, reason: events.UserLoggedOff},
		"ended by Windows, and its user stays":    {outcome: exit(-1073741510), state: events.Failed, reason: events.ExitCode},
		"ended by a signal before the session":    {outcome: supervise.Outcome{Started: true, Signal: "SIGHUP"}, leaves: 5 * time.Second, state: events.Failed, reason: events.UserLoggedOff},
		"ended by a signal":                       {outcome: supervise.Outcome{Started: true, Signal: "SIGTERM"}, state: events.Failed, reason: events.KilledBySignal},
		"ended by the restart that it asked for": {outcome: supervise.Outcome{Started: true, Signal: "SIGTERM"}, after: events.AfterProgramRestarts,
			state: events.Failed, reason: events.OutcomeUnknown}, // no rule can tell
		"a failure never restarts the machine": {outcome: exit(1), after: events.AfterRestart, state: events.Failed, reason: events.ExitCode},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				m.Restart = func(context.Context, string) error { t.Error("the machine restarts"); return nil }
				m.facts.BootID = "boot 1"
				alice := session("1", "alice", time.Now())
				office := m.seat(alice)
				task := m.started(func(p *events.Program) { p.After = c.after })
				task.job.Work.Session, task.cancel = &alice, c.cancel
				if c.gone {
					office.now(t.Context())
				}
				if c.leaves > 0 {
					time.AfterFunc(c.leaves, func() { office.now(context.Background()) })
				}
				c.outcome.EndedAt = time.Now().Add(-c.ago)
				e := asEnding(task.judge(t.Context(), execute.Result{Outcome: c.outcome, Meaning: execute.Failure, Executor: "alice"}))
				if e.state != c.state || e.reason != c.reason {
					t.Errorf("it is %s (%s): %s", e.state, e.reason, e.detail.explanation)
				}
			})
		})
	}
}

func TestABootWithoutAnIdIsNotTakenForAnotherNorRestartedAgainAndAgain(t *testing.T) {
	m := newMachine(t)
	m.Restart = func(context.Context, string) error { t.Error("the machine restarts"); return nil }
	if m.restartedSince("boot 1") {
		t.Error("a boot without an id is another")
	}
	task := m.started(func(p *events.Program) { p.After = events.AfterRestart })
	if e := asEnding(task.afterwards(t.Context(), execute.Success)); e.reason != events.RestartImpossible {
		t.Errorf("a restart is %s (%s)", e.state, e.reason)
	}
	task = m.started(func(*events.Program) {})
	if err := task.afterwards(t.Context(), execute.SoftReboot); err != nil || task.job.Last.State == events.RebootPending {
		t.Errorf("a restart that would not be noticed is waited for: %v, %s", err, task.job.Last.State)
	}
}

func TestARestartForOneJobLetsNothingStartBeforeThatOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.facts.BootID = "boot 1"
		m.Restart = func(context.Context, string) error { return errors.New("inhibited") }
		m.slots.block("hard") // an installer's own, which comes
		task := m.started(func(p *events.Program) { p.After = events.AfterRestart })
		if e := asEnding(task.afterwards(t.Context(), execute.Success)); e.reason != events.RestartImpossible {
			t.Fatalf("it is %s (%s)", e.state, e.reason)
		}
		if blocked, _ := m.slots.blocked(); !blocked {
			t.Error("programs start before the other restart")
		}
	})
}

func TestNobodyIsLoggedOffAfterTheRestartThatDidSo(t *testing.T) {
	m := newMachine(t)
	m.facts.BootID = "boot 2"
	m.detector, _ = detect.New(detect.Options{})
	office := m.seat(session("1", "alice", time.Now()))
	task := m.started(func(p *events.Program) { p.After = events.AfterLogoff })
	task.job.Boot = "boot 1"
	if e := asEnding(task.afterRestart(t.Context())); e.state != events.Succeeded {
		t.Fatalf("it is %s (%s)", e.state, e.reason)
	}
	if there, _ := office.List(t.Context()); len(there) != 1 {
		t.Error("who came after the restart is logged off")
	}
	if err := task.conclude(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there, _ := office.List(t.Context()); len(there) != 0 {
		t.Error("without a restart nobody is logged off")
	}
}

func TestAnAgentThatIsBackHoldsTheSlotsOfWhatRunsBeforeAnyJobGoesOn(t *testing.T) {
	m := newMachine(t)
	m.slots, m.facts.BootID = newSlots(3), "boot 1"
	kept := func(job string, change func(*journal.Job)) {
		o := events.JobOffer{Job: job, Deployment: job, Revision: 1, Attempt: 1}
		j := journal.Job{Offer: o, Last: events.JobStatus{Job: job, State: events.Running, Transition: 1, Attempt: 1}, Started: 1, Work: &journal.Work{Order: order.Order{Package: "hello"}}}
		change(&j)
		if err := m.journal.Keep(j); err != nil {
			t.Fatal(err)
		}
	}
	kept("runs", func(j *journal.Job) { j.Work.Slots = []string{"dpkg"} })
	kept("soft", func(j *journal.Job) { j.Boot, j.Last.State = "boot 1", events.RebootPending })
	kept("hard", func(j *journal.Job) { j.Boot, j.Hard, j.Last.State = "boot 1", true, events.RebootPending })
	kept("before", func(j *journal.Job) { j.Boot, j.Hard, j.Last.State = "boot 0", true, events.RebootPending })
	kept("ended", func(j *journal.Job) { j.Last.State = events.Failed })
	tasks, err := m.recall()
	if err != nil || len(tasks) != 4 {
		t.Fatalf("%d jobs go on, %v", len(tasks), err)
	}
	if m.slots.free != 2 || m.slots.taken["dpkg"] != 1 {
		t.Errorf("%d slots of 3 are free, dpkg is taken by %d", m.slots.free, m.slots.taken["dpkg"])
	}
	if !m.slots.restarts["hard"] || len(m.slots.restarts) != 1 || len(m.restarts) != 2 {
		t.Errorf("nothing starts before the restarts of %v, others of a package wait for %v", m.slots.restarts, m.restarts)
	}
}

func TestTwoOffersOfAJobBeginItOnce(t *testing.T) {
	m := newMachine(t)
	task := m.offer(program(func(p *events.Program) { p.Run = events.RunUser })) // which nothing runs here
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := m.Offer(t.Context(), task.job.Offer, "", nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	m.running.Wait()
	entries, err := m.journal.Unsent(0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	began := 0
	for _, e := range entries {
		if e.Status.State == events.Accepted && !e.Retold {
			began++
		}
	}
	if began != 1 {
		t.Errorf("it was accepted %d times", began)
	}
}

func TestJobsOfUsersThatFindNoRoomAreOpenedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.seat(session("1", "alice", time.Now()))
		for i := range maxTasks {
			m.tasks[strings.Repeat("x", i+1)] = nil
		}
		task := m.decided(program(func(p *events.Program) { p.Run, p.EveryUser = events.RunUser, true }))
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		time.AfterFunc(30*time.Second, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			clear(m.tasks)
		})
		if err := task.forEveryUser(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("it ended: %v", err)
		}
		if users, err := task.openForUsers(t.Context(), false); err != nil || len(users) != 1 {
			t.Errorf("there are jobs for %v, %v", users, err)
		}
		m.running.Wait()
		var refused *inbox.Refused
		if err := error(&inbox.Refused{Err: errBusy}); !errors.As(err, &refused) || !errors.Is(err, errBusy) {
			t.Error("that there is no room cannot be told from a bad offer")
		}
	})
}

func TestUsersOfADeploymentAtLogonAreThoseWhoCameSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		office := m.seat(session("1", "alice", time.Now().Add(-time.Hour)))
		task := m.decided(program(func(p *events.Program) { p.Run, p.EveryUser = events.RunUser, true }), func(g *given) {
			g.order.Assignments = []order.Assignment{{Logon: true}}
		})
		task.job.Opened = time.Now()
		time.Sleep(time.Minute) // of the bubble
		office.now(t.Context(), session("1", "alice", time.Now().Add(-2*time.Hour)), session("2", "bob", time.Now()))
		time.Sleep(time.Minute) // of the bubble
		users, err := task.openForUsers(t.Context(), true)
		if err != nil || len(users) != 1 || users[0] != "bob" {
			t.Fatalf("there are jobs for %v, %v", users, err)
		}
		m.running.Wait()
		// His job was opened after he came, and is for that logon.
		task.job.Offer.User, task.job.Opened = "bob", time.Now()
		if what, why, err := task.logonHindrance(t.Context(), true); what != "" || err != nil {
			t.Errorf("his job waits for %s (%s), %v", what, why, err)
		}
	})
}

func TestAJobThatOpensThoseOfUsersEndsWithItsRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.seat()
		task := m.decided(program(func(p *events.Program) { p.Run, p.EveryUser = events.RunUser, true }))
		ended := make(chan error, 1)
		go func() { ended <- task.forEveryUser(t.Context()) }()
		time.Sleep(time.Second) // of the bubble
		if err := m.journal.RaiseSerial("hello", 2, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // of the bubble
		if e := asEnding(<-ended); e.state != events.Rejected || e.reason != events.OrderSerialOld {
			t.Errorf("it is %s (%s)", e.state, e.reason)
		}
	})
}
