package agent

import "sync"

// slots bounds the programs that run at once: so many in all, and of each named group one. Groups are
// installers that exclude each other, and accounts that are given rights for one program at a time.
type slots struct {
	mu      sync.Mutex
	size    int
	free    int
	taken   map[string]int
	blocked bool          // a restart is under way: nothing may start
	changed chan struct{} // closed and replaced whenever a slot becomes free
}

func newSlots(n int) *slots {
	return &slots{size: n, free: n, taken: map[string]int{}, changed: make(chan struct{})}
}

// take a slot that counts for these groups. Where there is none, the channel is closed when one may be.
func (s *slots) take(groups ...string) (ok bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked || s.free <= 0 {
		return false, s.changed
	}
	for _, g := range groups {
		if s.taken[g] > 0 {
			return false, s.changed
		}
	}
	s.add(groups, 1)
	return true, nil
}

// occupy takes a slot for a program that runs already, whether there is room or not.
func (s *slots) occupy(groups ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(groups, 1)
}

func (s *slots) leave(groups ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(groups, -1)
	s.tell()
}

func (s *slots) add(groups []string, n int) {
	s.free -= n
	for _, g := range groups {
		s.taken[g] += n
	}
}

func (s *slots) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// block lets nothing start any more until the machine has restarted.
func (s *slots) block() { s.setBlocked(true) }

// unblock takes that back: the machine will not restart.
func (s *slots) unblock() { s.setBlocked(false) }

func (s *slots) setBlocked(blocked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked = blocked
	s.tell()
}

// idle says whether no program runs, and tells when that may change.
func (s *slots) idle() (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free >= s.size, s.changed
}
