package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

var hello = ProgramName{Package: "hello", Version: "1.0", Program: "install"}

var t0 = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

func open(t testing.TB, path string) *Journal {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	j, err := s.Agent("agent0001")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func job(name string, state events.State, transition uint32) Job {
	offer := events.JobOffer{Job: name, Deployment: "d", Revision: 1, Order: "order-" + name, Attempt: 1}
	return Job{Offer: offer, Last: events.JobStatus{Job: name, Package: "hello", Version: "1.0", Program: "install", State: state, Attempt: 1, Transition: transition, At: t0}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func unsent(t testing.TB, j *Journal) []string {
	t.Helper()
	entries, err := j.Unsent(0, 100)
	must(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, fmt.Sprintf("%s:%s:%d", e.Status.Job, e.Status.State, e.Status.Transition))
	}
	return list
}

func TestWhatWasAdvancedIsThereAfterAReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "journal.db")
	s, err := Open(path)
	must(t, err)
	j, err := s.Agent("agent0001")
	must(t, err)
	must(t, j.Advance(job("a", events.Accepted, 1)))
	must(t, j.Advance(job("a", events.Running, 2)))
	must(t, s.Close())

	j = open(t, path)
	got, ok, err := j.Job("a")
	if err != nil || !ok || got.Last.State != events.Running {
		t.Fatalf("got %+v, %v, %v", got.Last, ok, err)
	}
	if diff := cmp.Diff([]string{"a:accepted:1", "a:running:2"}, unsent(t, j)); diff != "" {
		t.Fatal(diff)
	}
	if st, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Fatalf("journal has mode %v, %v", st.Mode(), err)
	}
}

func TestTwoAgentsDoNotShareAStateDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	open(t, path)
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Fatalf("got %v", err)
	}
}

func TestADamagedFileIsAnErrorAndNotANewJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	must(t, os.WriteFile(path, []byte(strings.Repeat("not a journal", 1000)), 0o600))
	if _, err := Open(path); err == nil {
		t.Fatal("a damaged journal was opened")
	}
}

func TestStatusesAreKeptUntilAcknowledgedAndAWhileLonger(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	for i := range uint32(3) {
		must(t, j.Advance(job("a", events.Waiting, i+1)))
	}
	must(t, j.Acknowledge([]uint64{1, 2}, t0, func(*Position) {}))
	if diff := cmp.Diff([]string{"a:waiting:3"}, unsent(t, j)); diff != "" {
		t.Fatal(diff)
	}
	must(t, j.Retell(false))
	if diff := cmp.Diff([]string{"a:waiting:1", "a:waiting:2", "a:waiting:3"}, unsent(t, j)); diff != "" {
		t.Fatal("a status acknowledged a moment ago must be told again:", diff)
	}
	must(t, j.Acknowledge([]uint64{1, 2, 3}, t0, func(*Position) {}))
	must(t, j.Forget(t0.Add(time.Second), t0.Add(-time.Hour)))
	must(t, j.Retell(false))
	if got := unsent(t, j); got != nil {
		t.Fatalf("forgotten statuses came back: %v", got)
	}
}

func TestALostStreamIsToldTheLastWordOfEveryJob(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	must(t, j.Advance(job("a", events.Accepted, 1)))
	must(t, j.Advance(job("a", events.Succeeded, 2)))
	must(t, j.Acknowledge([]uint64{1, 2}, t0, func(*Position) {}))
	must(t, j.Forget(t0.Add(time.Second), t0.Add(-time.Hour)))
	must(t, j.Advance(job("b", events.Failed, 5)))
	must(t, j.Retell(true))
	if diff := cmp.Diff([]string{"b:failed:5", "a:succeeded:2"}, unsent(t, j)); diff != "" {
		t.Fatal(diff)
	}
}

func TestForgettingKeepsWhatIsStillNeeded(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	must(t, j.Advance(job("old", events.Succeeded, 1)))
	live := job("live", events.Running, 1)
	must(t, j.Advance(live))
	for _, digest := range []string{"order-old", "order-live"} {
		must(t, j.KeepOrder(digest, events.OrderAnswer{Envelope: []byte("x")}))
	}
	must(t, j.Forget(t0, t0.Add(time.Hour)))
	if _, ok, _ := j.Job("old"); ok {
		t.Error("an ended job was not forgotten")
	}
	if _, ok, _ := j.Job("live"); !ok {
		t.Error("a live job was forgotten")
	}
	if _, ok, _ := j.Order("order-old"); ok {
		t.Error("an order nobody needs was not forgotten")
	}
	if _, ok, _ := j.Order("order-live"); !ok {
		t.Error("the order of a live job was forgotten")
	}
	if state, _ := j.LastRun(hello); state != "" {
		t.Errorf("a program that never ran has history %q", state)
	}
}

func TestHistoryIsOfProgramsThatRan(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	ran := job("a", events.Failed, 3)
	ran.Ran = true
	must(t, j.Advance(ran))
	must(t, j.Advance(job("b", events.Failed, 3)))
	if state, err := j.LastRun(hello); state != events.Failed || err != nil {
		t.Fatalf("got %q, %v", state, err)
	}
	ran.Last.State = events.Succeeded
	must(t, j.Advance(ran))
	if state, _ := j.LastRun(hello); state != events.Succeeded {
		t.Fatalf("got %q", state)
	}
}

func TestWhatUndoesAProgramMakesItNeverHaveRun(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	installed := job("a", events.Succeeded, 3)
	installed.Ran = true
	must(t, j.Advance(installed))
	if state, _ := j.LastRun(ProgramName{Package: "hello", Version: "1.1", Program: "install"}); state != "" {
		t.Fatalf("another version has history %q", state)
	}
	removed := job("b", events.Succeeded, 3)
	removed.Ran, removed.Last.Program, removed.Work = true, "remove", &Work{Program: events.Program{Undoes: "install"}}
	must(t, j.Advance(removed))
	if state, _ := j.LastRun(hello); state != "" {
		t.Fatalf("the program that was undone has history %q", state)
	}
}

func TestSerialsAndStopsNeverGoBack(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	must(t, j.RaiseSerial("d", 5, 0))
	must(t, j.RaiseSerial("d", 3, 2))
	must(t, j.RaiseSerial("d", 0, 1))
	if s, err := j.Serial("d"); err != nil || s != (Serial{Revision: 5, Stopped: 2}) {
		t.Fatalf("got %+v, %v", s, err)
	}
}

func TestAgentsOfOneFileAreApart(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "journal.db"))
	must(t, err)
	defer s.Close()
	a, err := s.Agent("agent000a")
	must(t, err)
	b, err := s.Agent("agent000b")
	must(t, err)
	must(t, a.MovePosition(func(p *Position) { p.JobsSequence = 7 }))
	if p, _ := b.Position(); p != (Position{}) {
		t.Fatalf("b sees a's position %+v", p)
	}
}

func TestConcurrentJobsLoseNothing(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			for n := range uint32(5) {
				if err := j.Advance(job(fmt.Sprint("job", i), events.Waiting, n+1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if got := unsent(t, j); len(got) != 100 {
		t.Fatalf("%d statuses of 100 are there", len(got))
	}
}

func BenchmarkAdvanceOf64JobsAtOnce(b *testing.B) {
	j := open(b, filepath.Join(b.TempDir(), "journal.db"))
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		n := uint32(0)
		for pb.Next() {
			n++
			if err := j.Advance(job("a", events.Waiting, n)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
