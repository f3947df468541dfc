package agent

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/execute"
	"chandler/agent/journal"
	"chandler/agent/local"
	"chandler/agent/logon"
	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// assigned gives the order these assignments, and time enough.
func assigned(all ...order.Assignment) func(*given) {
	return func(g *given) {
		g.order.Assignments, g.order.NotAfter = all, g.order.Issued.Add(60*24*time.Hour)
	}
}

// umbrella gives the job of a standing order that is ready to open occurrences. Those run nothing: nothing here runs
// programs any more, and that each is refused shows that it was carried out.
func (m *machine) umbrella(change ...func(*given)) *task {
	m.t.Helper()
	t := m.offer(change...)
	t.job.Opened = m.Clock()
	if err := m.journal.Keep(t.job); err != nil {
		m.t.Fatal(err)
	}
	if state, reason := m.until(t, "decide"); state != "" {
		m.t.Fatalf("it is %s (%s): %s", state, reason, t.job.Last.Explanation)
	}
	m.Runners = map[string]execute.Runner{}
	return t
}

// again is the same job in a later process of the agent.
func (m *machine) again(t *task) *task {
	m.t.Helper()
	job, ok, err := m.journal.Job(t.job.Offer.Job)
	if err != nil || !ok {
		m.t.Fatalf("job in the journal: %v, %v", ok, err)
	}
	next := m.newTask(job)
	next.order, next.program, next.manifest, next.facts = t.order, t.program, t.manifest, t.facts
	return next
}

// under lets the umbrella do its work until stop is called.
func (m *machine) under(t *task) (stop func()) {
	ctx, cancel := context.WithCancel(m.t.Context())
	ended := make(chan error, 1)
	id := t.job.Offer.Job
	m.mu.Lock()
	m.tasks[id] = t
	m.mu.Unlock()
	go func() { ended <- t.standing(ctx) }()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			m.t.Errorf("the umbrella ended with %v", err)
		}
		m.mu.Lock()
		delete(m.tasks, id)
		m.mu.Unlock()
	}
}

// occurrences lists those that were opened, by their numbers, and what became of them.
func (m *machine) occurrences() (all []string) {
	m.t.Helper()
	time.Sleep(2 * time.Second) // of the bubble: the journal gathers what it writes
	synctest.Wait()
	var jobs []journal.Job
	if err := m.journal.Jobs(func(j journal.Job) error {
		if j.Offer.Occurrence > 0 {
			jobs = append(jobs, j)
		}
		return nil
	}); err != nil {
		m.t.Fatal(err)
	}
	slices.SortFunc(jobs, func(x, y journal.Job) int { return int(x.Offer.Occurrence - y.Offer.Occurrence) })
	for _, j := range jobs {
		number := "asap"
		if j.Offer.Occurrence > 1 {
			number = time.Unix(j.Offer.Occurrence, 0).UTC().Format("02 15:04")
		}
		all = append(all, number+" "+string(j.Last.State))
	}
	return all
}

// sleepUntil sleeps in the bubble, which begins at midnight of 1 January 2000.
func sleepUntil(day, hour, minute int) {
	time.Sleep(time.Until(time.Date(2000, 1, day, hour, minute, 0, 0, time.UTC)))
}

func TestWhatRecursIsOpenedOnceEachTimeAlsoByAnAgentThatRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.umbrella(assigned(order.Assignment{ASAP: true}, order.Assignment{Cron: "0 2 * * *"}))
		stop := m.under(task)
		sleepUntil(2, 1, 59)
		if diff := cmp.Diff([]string{"asap rejected", "01 02:00 rejected"}, m.occurrences()); diff != "" {
			t.Fatal(diff)
		}
		stop()
		sleepUntil(5, 9, 0) // the nights of 2 to 5 January are missed
		task = m.again(task)
		stop = m.under(task)
		if diff := cmp.Diff([]string{"asap rejected", "01 02:00 rejected", "05 02:00 rejected"}, m.occurrences()); diff != "" {
			t.Fatal(diff)
		}
		sleepUntil(6, 2, 1)
		if got := m.occurrences(); len(got) != 4 || got[3] != "06 02:00 rejected" {
			t.Fatalf("in the next night: %q", got)
		}
		stop()
		if said := m.said(task.job.Offer.Job); len(said) > 4 {
			t.Errorf("the umbrella says something with each occurrence: %q", said)
		}
		m.running.Wait()
	})
}

func TestAnOccurrenceWhoseOpeningWasNotNotedIsNotOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.umbrella(assigned(order.Assignment{ASAP: true}, order.Assignment{Logon: true}))
		killed := m.again(task) // right after the occurrence's job was journalled
		if err := task.openDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := m.occurrences()
		if err := killed.openDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := m.occurrences(); len(before) != 1 || !slices.Equal(got, before) || killed.openings().Newest[0] != 1 {
			t.Errorf("%q, then %q, noted %v", before, got, killed.openings())
		}
		m.running.Wait()
	})
}

func TestAClockThatJumpsADayOpensNothingTwiceAndLosesNothing(t *testing.T) {
	nights := []string{"02 02:00 rejected", "03 02:00 rejected", "04 02:00 rejected", "05 02:00 rejected"}
	for name, jump := range map[string]struct {
		at        [3]int // day, hour, minute
		by, lasts time.Duration
	}{
		"forward over one night":        {[3]int{2, 12, 0}, 24 * time.Hour, 5 * time.Minute},
		"forward over two nights":       {[3]int{2, 1, 0}, 26 * time.Hour, 5 * time.Minute},
		"forward, and stays for a day":  {[3]int{2, 12, 0}, 24 * time.Hour, 24 * time.Hour},
		"back over a night":             {[3]int{3, 3, 0}, -24 * time.Hour, 5 * time.Minute},
		"back, and stays for ten hours": {[3]int{3, 3, 0}, -24 * time.Hour, 10 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sleepUntil(1, 12, 0)
				m := newMachine(t)
				task := m.umbrella(assigned(order.Assignment{Cron: "0 2 * * *"}))
				set := func(by time.Duration) { // while nobody looks
					synctest.Wait()
					m.ahead = by
				}
				stop := m.under(task)
				sleepUntil(jump.at[0], jump.at[1], jump.at[2])
				stop()
				set(jump.by)
				task = m.again(task)
				stop = m.under(task)
				time.Sleep(jump.lasts)
				stop()
				set(0)
				task = m.again(task)
				stop = m.under(task)
				sleepUntil(5, 3, 0)
				if diff := cmp.Diff(nights, m.occurrences()); diff != "" {
					t.Error(diff)
				}
				stop()
				m.running.Wait()
			})
		})
	}
}

func TestEveryLogonAndLogoffOpensAnOccurrenceOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		office := m.seat(session("1", "alice", time.Now().Add(-time.Hour)))
		task := m.umbrella(assigned(order.Assignment{Cron: "0 0 1 7 *"}, order.Assignment{Logoff: true}), program(func(p *events.Program) { p.Logon = events.LogonNone }))
		task.order.Assignments = append(task.order.Assignments, order.Assignment{Logon: true})
		stop := m.under(task)
		if got := m.occurrences(); len(got) != 0 {
			t.Fatalf("for who was there before: %q", got)
		}
		for _, step := range []struct {
			now    []logon.Session
			opened int
			as     int // of which assignment
		}{
			{[]logon.Session{session("2", "alice", time.Now()), session("3", "bob", time.Now())}, 1, 2},
			{[]logon.Session{session("2", "alice", time.Now())}, 1, 2},
			{nil, 2, 1},
			{nil, 2, 1},
			{[]logon.Session{session("4", "alice", time.Now().Add(time.Minute))}, 3, 2},
			{nil, 4, 1},
		} {
			time.Sleep(time.Minute)
			office.now(t.Context(), step.now...)
			got := m.occurrences()
			if len(got) != step.opened {
				t.Fatalf("with %d sessions: %q, want %d", len(step.now), got, step.opened)
			}
			job := m.newest()
			if job.Occurrence == nil || job.Occurrence.Assignment != step.as || (step.as == 1) != job.SawUser {
				t.Fatalf("with %d sessions the newest is of assignment %+v", len(step.now), job.Occurrence)
			}
		}
		stop()
		m.running.Wait()
	})
}

// newest is the occurrence with the highest number.
func (m *machine) newest() (newest journal.Job) {
	m.t.Helper()
	if err := m.journal.Jobs(func(j journal.Job) error {
		if j.Offer.Occurrence > newest.Offer.Occurrence {
			newest = j
		}
		return nil
	}); err != nil {
		m.t.Fatal(err)
	}
	return newest
}

func TestAllThatIsToComeHasComeAndTheUmbrellaEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		at := calendar.At(m.Clock().Add(3 * time.Hour))
		task := m.umbrella(assigned(order.Assignment{ASAP: true}, order.Assignment{At: &at}))
		began := time.Now()
		e := asEnding(task.standing(t.Context()))
		if took := time.Since(began); e.state != events.Succeeded || took < 3*time.Hour-time.Second || took > 3*time.Hour+time.Minute {
			t.Errorf("after %s it is %s: %s", took, e.state, e.detail.explanation)
		}
		if diff := cmp.Diff([]string{"asap rejected", "01 03:00 rejected"}, m.occurrences()); diff != "" {
			t.Error(diff)
		}
		m.running.Wait()
	})
}

func TestHowAStandingOrderEnds(t *testing.T) {
	for name, c := range map[string]struct {
		assignments []order.Assignment
		state       events.State
		reason      events.Reason
	}{
		"nobody asked for it":         {nil, events.Expired, events.DeploymentExpired},
		"its time never came":         {[]order.Assignment{{Cron: "0 0 1 7 *"}}, events.Expired, events.DeploymentExpired},
		"it came until the end":       {[]order.Assignment{{Cron: "0 2 * * *"}}, events.Succeeded, ""},
		"no user logged on":           {[]order.Assignment{{Logon: true}, {Cron: "0 0 1 7 *"}}, events.Expired, events.DeploymentExpired},
		"as soon as possible it came": {[]order.Assignment{{ASAP: true}, {Logon: true}}, events.Succeeded, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				task := m.umbrella(assigned(c.assignments...), func(g *given) { g.order.Expires = new(calendar.At(m.Clock().Add(50 * time.Hour))) })
				began := time.Now()
				e := asEnding(task.standing(t.Context()))
				if e.state != c.state || e.reason != c.reason || time.Since(began) < 50*time.Hour-time.Second {
					t.Errorf("after %s it is %s (%s): %s", time.Since(began), e.state, e.reason, e.detail.explanation)
				}
				m.running.Wait()
			})
		})
	}
}

func TestANewerRevisionEndsTheUmbrella(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.umbrella(assigned(order.Assignment{Cron: "0 2 * * *"}))
		ended := make(chan error, 1)
		go func() { ended <- task.standing(t.Context()) }()
		time.Sleep(time.Hour)
		m.seen(2, "true")
		seen := time.Now()
		if e := asEnding(<-ended); e.state != events.Rejected || e.reason != events.OrderSerialOld || time.Since(seen) > time.Minute {
			t.Errorf("after %s it is %s (%s)", time.Since(seen), e.state, e.reason)
		}
	})
}

func TestWhatIsNotToRunAgainIsToldOnceAndThenPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.umbrella(assigned(order.Assignment{Cron: "0 2 * * *"}), func(g *given) { g.order.Rerun = order.RerunNever })
		done := m.offer()
		done.order, done.job.Offer.Job, done.job.Offer.Deployment, done.job.Ran = task.order, "other", "other", true
		done.enter(t.Context(), events.Succeeded, events.NoReason, status{})
		stop := m.under(task)
		sleepUntil(5, 9, 0)
		if diff := cmp.Diff([]string{"01 02:00 rejected"}, m.occurrences()); diff != "" {
			t.Error(diff)
		}
		stop()
		m.running.Wait()
	})
}

func TestOccurrencesThatWaitToStartStartTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.umbrella(assigned(order.Assignment{Cron: "0 2 * * *"}))
		waits := journal.Job{Offer: task.job.Offer, Occurrence: &journal.Occurrence{}, Last: events.JobStatus{State: events.Waiting}}
		waits.Offer.Job, waits.Offer.Occurrence = "waits", 1
		state := func(s events.State) {
			waits.Last.State = s
			if err := m.journal.Keep(waits); err != nil {
				t.Fatal(err)
			}
		}
		state(events.Waiting)
		m.mu.Lock()
		m.tasks["waits"] = m.newTask(waits)
		m.mu.Unlock()
		stop := m.under(task)
		sleepUntil(3, 9, 0)
		if diff := cmp.Diff([]string{"asap waiting"}, m.occurrences()); diff != "" {
			t.Fatal(diff)
		}
		state(events.Retrying) // it may wait for a service that this machine does not reach
		sleepUntil(4, 2, 1)
		state(events.Running)
		sleepUntil(5, 2, 1)
		if diff := cmp.Diff([]string{"asap running", "04 02:00 rejected", "05 02:00 rejected"}, m.occurrences()); diff != "" {
			t.Error(diff)
		}
		stop()
		m.running.Wait()
	})
}

func TestAnOccurrenceThatThisAgentDidNotOpenIsRefusedAndTheUmbrellaTakenIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.offer(assigned(order.Assignment{Cron: "0 2 * * *"}))
		umbrella := task.job.Offer
		offer := umbrella
		offer.Agent, offer.Occurrence = m.id, 946692000
		offer.Job = events.JobID("hello", 1, m.id, offer.Occurrence, "")
		m.Runners = map[string]execute.Runner{}
		if err := m.Offer(t.Context(), offer, "", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		m.running.Wait()
		for id, want := range map[string]events.Reason{offer.Job: events.OccurrenceUnknown, umbrella.Job: events.ContextUnsupported} {
			if job, ok, err := m.journal.Job(id); err != nil || !ok || job.Last.State != events.Rejected || job.Last.Reason != want {
				t.Errorf("job %s is %s (%s), %v %v; want %s", id, job.Last.State, job.Last.Reason, ok, err, want)
			}
		}
		// Execution lists the umbrella for agents that lost it. This one has it, and has nothing to tell.
		told := len(m.said(umbrella.Job))
		if err := m.Offer(t.Context(), umbrella, "", &events.Outstanding{Transition: math.MaxUint32}); err != nil {
			t.Fatal(err)
		}
		if again := len(m.said(umbrella.Job)); again != told {
			t.Errorf("%d statuses became %d", told, again)
		}
	})
}

func TestAnOfferThatNamesAnotherOccurrenceThanItsOrderIsNotObeyed(t *testing.T) {
	m := newMachine(t)
	task := m.offer()
	task.job.Offer.Occurrence = 7
	if state, reason := m.until(task, "verify"); state != events.Rejected || reason != events.OrderAltered {
		t.Errorf("it is %s (%s)", state, reason)
	}
}

func TestALocalUserStartsWhatIsAvailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.umbrella(assigned(), func(g *given) { g.order.Rerun = order.RerunNever; g.manifest.Comment = "says hello" })
		stop := m.under(task)
		if got := m.occurrences(); len(got) != 0 || !strings.Contains(task.job.Last.Explanation, "chandler-agent install hello") || task.job.Last.WaitingFor != events.WaitAssignment {
			t.Fatalf("by itself: %q, %s", got, task.job.Last.Explanation)
		}
		items := m.startable(local.Caller{})
		if len(items) != 1 || items[0].Deployment != "hello" || items[0].Comment != "says hello" || !items[0].Starts.IsZero() || items[0].Until.IsZero() {
			t.Fatalf("available: %+v", items)
		}
		alice := local.Caller{Name: "alice"}
		if _, err := m.startFor(t.Context(), alice, "goodbye"); !refusedFor(err, "nothing is available") {
			t.Errorf("what there is not: %v", err)
		}
		words, err := m.startFor(t.Context(), alice, "hello")
		if job := m.newest(); err != nil || !strings.Contains(words, job.Offer.Job) || job.AskedBy != "alice" || job.Occurrence.Assignment != -1 {
			t.Fatalf("%q, %v: %+v", words, err, job)
		}
		m.occurrences()
		if _, err := m.startFor(t.Context(), alice, "hello"); err != nil { // it was refused, so it has not run
			t.Errorf("again: %v", err)
		}
		if got := m.occurrences(); len(got) != 2 {
			t.Errorf("opened: %q", got)
		}
		done := m.offer()
		done.order, done.job.Offer.Job, done.job.Ran = task.order, "other", true
		done.enter(t.Context(), events.Succeeded, events.NoReason, status{})
		if _, err := m.startFor(t.Context(), alice, "hello"); !refusedFor(err, "rerun is never") {
			t.Errorf("after it ran: %v", err)
		}
		stop()
		if _, err := m.startFor(t.Context(), alice, "hello"); !refusedFor(err, "nothing is available") {
			t.Errorf("after its end: %v", err)
		}
		m.running.Wait()
	})
}

func refusedFor(err error, why string) bool {
	refused, ok := errors.AsType[*local.Refused](err)
	return ok && strings.Contains(refused.Why, why)
}
