package agent

import "sync"

// slots bounds the programs that run at once: so many in all, and of each named group (installers that
// exclude each other) one.
type slots struct {
	mu      sync.Mutex
	free    int
	taken   map[string]int
	blocked bool          // a restart is under way: nothing may start
	changed chan struct{} // closed and replaced whenever a slot becomes free
}

func newSlots(n int) *slots {
	return &slots{free: n, taken: map[string]int{}, changed: make(chan struct{})}
}

// take a slot of a group ("" is no group). Where there is none, the channel is closed when one may be.
func (s *slots) take(group string) (ok bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked || s.free <= 0 || group != "" && s.taken[group] > 0 {
		return false, s.changed
	}
	s.free--
	s.taken[group]++
	return true, nil
}

// occupy takes a slot for a program that runs already, whether there is room or not.
func (s *slots) occupy(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free--
	s.taken[group]++
}

func (s *slots) leave(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	s.taken[group]--
	close(s.changed)
	s.changed = make(chan struct{})
}

// block lets nothing start any more until the machine has restarted.
func (s *slots) block() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked = true
}
