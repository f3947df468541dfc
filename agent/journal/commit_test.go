package journal

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"chandler/events"
)

func TestChangesThatComeMeanwhileShareACommit(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "journal.db"))
	must(t, err)
	t.Cleanup(func() { s.Close() })
	j, err := s.Agent("agent0001")
	must(t, err)

	const n = 200
	entered, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		if err := s.commits.write(func(*bbolt.Tx) error {
			close(entered)
			<-held
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-entered
	broken := errors.New("broken")
	var ids [n]string
	for i := range n {
		ids[i] = events.JobID("d", uint64(i+1), "agent0001", 0, "")
		all.Go(func() {
			if i%50 == 0 {
				if err := j.write(func(*bbolt.Bucket) error { return broken }); !errors.Is(err, broken) {
					t.Errorf("a change that failed says %v", err)
				}
			}
			if err := j.Keep(job(ids[i], events.Accepted, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	waiting := func() int {
		s.commits.mu.Lock()
		defer s.commits.mu.Unlock()
		return len(s.commits.waiting)
	}
	limit := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(time.Millisecond); waiting() < n && time.Now().Before(limit); {
		<-tick.C
	}
	before := transactions(t, s)
	close(held)
	all.Wait()
	// The first, one for those who waited, one for each that failed and was tried alone, and few for what came then.
	if made := transactions(t, s) - before; made > 20 {
		t.Errorf("%d changes took %d commits", n, made)
	}
	for _, id := range ids {
		if _, there, err := j.Job(id); err != nil || !there {
			t.Fatalf("job %s is not there: %v", id, err)
		}
	}
}

// transactions is the number of commits of a store so far.
func transactions(t *testing.T, s *Store) (id int) {
	t.Helper()
	must(t, s.db.View(func(tx *bbolt.Tx) error {
		id = tx.ID()
		return nil
	}))
	return id
}

func TestAStoreNamesItsAgents(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "journal.db"))
	must(t, err)
	t.Cleanup(func() { s.Close() })
	for _, id := range []string{"agent0002", "agent0001", "agent0002"} {
		_, err := s.Agent(id)
		must(t, err)
	}
	if ids, err := s.Agents(); err != nil || len(ids) != 2 || ids[0] != "agent0001" {
		t.Errorf("it names %v, %v", ids, err)
	}
}
