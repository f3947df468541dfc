package agent

import (
	"fmt"
	"strings"
	"sync"
)

// slots bounds the programs that run at once: so many in all, and of each named group one. Groups are
// installers that exclude each other, and accounts that are given rights for one program at a time.
type slots struct {
	mu       sync.Mutex
	size     int
	free     int
	taken    map[string]int
	restarts map[string]bool // jobs whose restart of the machine is under way: nothing may start
	changed  chan struct{}   // closed and replaced whenever something may start that could not
}

func newSlots(n int) *slots {
	return &slots{size: n, free: n, taken: map[string]int{}, restarts: map[string]bool{}, changed: make(chan struct{})}
}

// Prefixes of groups that are accounts, and programs.
const (
	accountGroup = "account:"
	programGroup = "program:"
)

// take a slot that counts for these groups. Where there is none, the channel is closed when one may be.
func (s *slots) take(groups ...string) (ok bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hindrance(groups) != "" {
		return false, s.changed
	}
	s.add(groups, 1)
	return true, nil
}

// why says in words why there is no slot for these groups; "": there is one now.
func (s *slots) why(groups ...string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hindrance(groups)
}

func (s *slots) hindrance(groups []string) string {
	if len(s.restarts) > 0 {
		return restartsSoon
	}
	if s.free <= 0 {
		return fmt.Sprintf("other programs run here, %d at once are the most", s.size)
	}
	for _, g := range groups {
		switch {
		case s.taken[g] == 0:
		case strings.HasPrefix(g, programGroup):
			return "the same program runs here for another job"
		case strings.HasPrefix(g, accountGroup):
			return "another program runs here by the same account"
		default:
			return "another program that calls " + g + " runs here"
		}
	}
	return ""
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

// restartsSoon is why nothing starts while the machine is about to restart.
const restartsSoon = "the machine is about to restart; nothing starts before"

// block lets nothing start any more until the machine has restarted for that job.
func (s *slots) block(job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarts[job] = true
}

// unblock takes that back: the machine will not restart for that job. It may for another.
func (s *slots) unblock(job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.restarts, job)
	s.tell()
}

// blocked says whether the machine is about to restart, and tells when that may change.
func (s *slots) blocked() (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.restarts) > 0, s.changed
}

// idle says whether no program runs, and tells when that may change.
func (s *slots) idle() (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free >= s.size, s.changed
}
