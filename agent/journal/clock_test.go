package journal

import (
	"path/filepath"
	"testing"
	"time"
)

func TestTheClockNeverGoesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	s, err := Open(path)
	must(t, err)
	j, err := s.Agent("agent0001")
	must(t, err)
	if at, err := j.Clock(); err != nil || !at.IsZero() {
		t.Errorf("a new journal says %s, %v", at, err)
	}
	for _, step := range []struct {
		raise, want time.Duration
	}{{2 * time.Hour, 2 * time.Hour}, {time.Hour, 2 * time.Hour}, {2 * time.Hour, 2 * time.Hour}, {3 * time.Hour, 3 * time.Hour}} {
		must(t, j.RaiseClock(t0.Add(step.raise)))
		if at, err := j.Clock(); err != nil || !at.Equal(t0.Add(step.want)) {
			t.Errorf("raised to %s it says %s, %v", step.raise, at.Sub(t0), err)
		}
	}
	must(t, s.Close())
	if at, err := open(t, path).Clock(); err != nil || !at.Equal(t0.Add(3*time.Hour)) {
		t.Errorf("after a reopen it says %s, %v", at, err)
	}
}
