package agent

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/local"
	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

func TestAnOccurrenceThatFindsNoWindowAnyMoreIsPassedOverAndTheUmbrellaEndsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		first := order.Windows{Collection: "servers", Expression: "true", Windows: []calendar.Window{{Once: calendar.At(time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC)), For: calendar.Duration(5 * time.Hour)}}}
		task := m.umbrella(assigned(order.Assignment{Cron: "0 2 * * *"}), held(first), func(g *given) { g.order.Expires = new(calendar.At(m.Clock().Add(80 * time.Hour))) })
		began := time.Now()
		e := asEnding(task.standing(t.Context()))
		if e.state != events.Succeeded || time.Since(began) < 80*time.Hour-time.Second {
			t.Errorf("after %s it is %s (%s): %s", time.Since(began), e.state, e.reason, e.detail.explanation)
		}
		if diff := cmp.Diff([]string{"01 02:00 rejected"}, m.occurrences()); diff != "" {
			t.Error(diff)
		}
		m.running.Wait()
	})
}

func TestANumberThatExecutionOfferedFirstIsLostAndTheOccurrenceOpensUnderAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.umbrella(assigned(order.Assignment{ASAP: true}, order.Assignment{Cron: "0 2 * * *"}))
		for _, n := range []int64{1, 2} {
			offer := task.job.Offer
			offer.Agent, offer.Occurrence = m.id, n
			offer.Job = events.JobID("hello", 1, m.id, n, "")
			if err := m.Offer(t.Context(), offer, "", nil); err != nil {
				t.Fatal(err)
			}
			m.occurrences() // until it has ended
		}
		stop := m.under(task)
		m.occurrences()
		if job := m.newest(); job.Offer.Occurrence != 3 || job.Occurrence == nil || job.Occurrence.Assignment != 0 {
			t.Fatalf("the newest is %d, of %+v", job.Offer.Occurrence, job.Occurrence)
		}
		sleepUntil(1, 2, 1)
		if got := m.occurrences(); len(got) != 4 || got[3] != "01 02:00 rejected" {
			t.Errorf("afterwards: %q", got)
		}
		stop()
		m.running.Wait()
	})
}

func TestAnUmbrellaGoesOnWhereAnotherJobWouldHaveToBeOfferedAgain(t *testing.T) {
	for name, hinder := range map[string]func(*machine) (mend func()){
		"content is away": func(m *machine) func() {
			store := newMachine(m.t)
			m.fetcher = store.fetcher
			return func() {
				store.mu.Lock()
				defer store.mu.Unlock()
				store.blobs = m.blobs
			}
		},
		"the machine is not in the target": func(m *machine) func() {
			m.become(func(f *events.Facts) { f.Site = "elsewhere" })
			return func() { m.become(func(f *events.Facts) { f.Site = "" }) }
		},
		"the program does not apply": func(m *machine) func() {
			m.become(func(f *events.Facts) { f.Arch = "arm" })
			return func() { m.become(func(f *events.Facts) { f.Arch = "" }) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				runners := m.Runners
				task := m.umbrella(assigned(order.Assignment{ASAP: true}, order.Assignment{Cron: "0 2 * * *"}), func(g *given) { g.order.Expression = `agent.site != "elsewhere"` },
					program(func(p *events.Program) { p.AppliesIf = `agent.arch != "arm"` }))
				stop := m.under(task)
				before := m.occurrences()
				stop()
				m.Runners, m.freezes = runners, []events.Freeze{{Scope: "fleet"}} // what is opened from now on waits
				mend, id := hinder(m), task.job.Offer.Job
				m.begin(t.Context(), m.newTask(m.kept(id))) // in another process of the agent
				time.Sleep(30 * time.Minute)
				synctest.Wait()
				if last := m.kept(id).Last; last.State != events.Waiting || last.WaitingFor != events.WaitAssignment {
					t.Fatalf("meanwhile it is %s (%s): %s", last.State, last.Reason, last.Explanation)
				}
				mend()
				sleepUntil(1, 2, 5)
				if got := m.occurrences(); len(before) != 1 || len(got) != 2 || got[1] != "01 02:00 waiting" {
					t.Errorf("%q became %q", before, got)
				}
				if err := m.Cancel(t.Context(), events.CancelRequest{Agent: m.id, Deployment: "hello", Revision: 1, By: "ada"}); err != nil {
					t.Fatal(err)
				}
				m.running.Wait()
				if last := m.kept(id).Last; last.State != events.Cancelled {
					t.Errorf("it is %s (%s): %s", last.State, last.Reason, last.Explanation)
				}
			})
		})
	}
}

// become changes the facts while jobs are under way.
func (m *machine) become(change func(*events.Facts)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.facts)
}

// full leaves no room for another job until empty is called.
func (m *machine) full() (empty func()) {
	other := &task{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range maxTasks {
		m.tasks[fmt.Sprint("other", i)] = other
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		maps.DeleteFunc(m.tasks, func(_ string, t *task) bool { return t == other })
	}
}

func TestWhatFindsNoRoomIsOpenedOnceThereIsSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.umbrella(assigned(order.Assignment{ASAP: true}, order.Assignment{At: new(calendar.At(m.Clock().Add(time.Hour)))}))
		ended := make(chan error, 1)
		go func() { ended <- task.standing(t.Context()) }()
		m.occurrences()
		empty := m.full()
		time.Sleep(2 * time.Hour)
		if got := m.occurrences(); len(got) != 1 || len(ended) != 0 {
			t.Fatalf("without room: %q, and %d ended", got, len(ended))
		}
		empty()
		if e := asEnding(<-ended); e.state != events.Succeeded {
			t.Errorf("it is %s (%s): %s", e.state, e.reason, e.detail.explanation)
		}
		if diff := cmp.Diff([]string{"asap rejected", "01 01:00 rejected"}, m.occurrences()); diff != "" {
			t.Error(diff)
		}
		m.running.Wait()
	})
}

func TestALocalUserWhoFindsNoRoomEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.umbrella(assigned())
		stop := m.under(task)
		m.occurrences()
		empty := m.full()
		if _, err := m.startFor(t.Context(), local.Caller{Name: "alice"}, "hello"); !refusedFor(err, "too many jobs") {
			t.Errorf("without room: %v", err)
		}
		empty()
		if _, err := m.startFor(t.Context(), local.Caller{Name: "alice"}, "hello"); err != nil {
			t.Errorf("once there is some: %v", err)
		}
		m.occurrences()
		stop()
		m.running.Wait()
	})
}

func TestALogonThatWasNotedIsNotOpenedAgainByTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		office := m.seat()
		task := m.umbrella(assigned(order.Assignment{Logon: true}, order.Assignment{Cron: "0 0 1 7 *"}))
		time.Sleep(time.Minute)
		office.now(t.Context(), session("1", "alice", time.Now()))
		if err := task.openDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := m.occurrences()
		if err := m.again(task).openDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := m.occurrences(); len(before) != 1 || !slices.Equal(got, before) {
			t.Errorf("%q, then %q", before, got)
		}
		m.running.Wait()
	})
}

func TestLocalUsersMayLookWhileAJobStarts(t *testing.T) {
	m := newMachine(t)
	task := m.offer()
	m.tasks["job"] = task
	starting, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-starting:
				return
			default:
				task.startable.Store(&local.Item{Deployment: "hello"})
				task.startable.Store(nil)
			}
		}
	}()
	for range 100_000 {
		for _, item := range m.startable(local.Caller{}) {
			if item.Deployment != "hello" {
				t.Fatalf("%+v", item)
			}
		}
	}
	close(starting)
	<-over
}
