package netfs

import (
	"errors"
	"slices"
	"sync"

	"chandler/agent/source"
	"chandler/events"
)

// grant is a lease, however often it is asked for, until it is withdrawn; and what is open by it.
type grant struct {
	covering string // the resource that it is for

	mu   sync.Mutex
	over bool
	open map[*file]bool
}

// isOver of nothing is false: what needs no lease loses none.
func (g *grant) isOver() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.over
}

// add notes a file that was opened; false: too late.
func (g *grant) add(f *file) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.over {
		g.open[f] = true
	}
	return !g.over
}

func (g *grant) remove(f *file) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, f)
}

// end gives what was open.
func (g *grant) end() []*file {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	var files []*file
	for f := range g.open {
		files = append(files, f)
	}
	return files
}

// grantOf is the grant of a lease; nil: it was withdrawn since as many leases were withdrawn as before says.
func (l *logins) grantOf(lease, covering string, before int) *grant {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.grants[lease]
	switch {
	case lease != "" && slices.Contains(l.withdrawn[before:], lease):
		return nil
	case lease == "" || g == nil:
		g = &grant{covering: covering, open: map[*file]bool{}}
	}
	if lease != "" {
		l.grants[lease] = g
	}
	return g
}

// withdraw ends a lease, which the next account may be lent by again; nil: nothing was lent by it.
func (l *logins) withdraw(lease string) *grant {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.withdrawn = append(l.withdrawn, lease)
	g := l.grants[lease]
	delete(l.grants, lease)
	return g
}

// clearOver overwrites the secret of a grant that is over.
func (l *logins) clearOver(g *grant) {
	l.mu.Lock()
	h := l.held[g.covering]
	l.mu.Unlock()
	if h == nil {
		return
	}
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.grant == g && h.lent {
		h.loan.Clear()
		h.lent = false
	}
}

// errWithdrawn is what is answered by what was opened by a lease that is over. It is never told: what comes of asking anew is.
var errWithdrawn = &source.Error{Reason: events.CredentialDenied, Answer: "the lease was withdrawn"}

// anew does again what failed because the lease that it was done by was withdrawn meanwhile. Each time another one is asked
// for, which may be denied.
func anew[T any](do func() (T, error)) (T, error) {
	for {
		got, err := do()
		if !errors.Is(err, errWithdrawn) {
			return got, err
		}
	}
}

// withdraw ends a lease: nothing is read by it any more from when withdraw returns. What is open is closed, and sessions are
// ended, in the background, since hosts may be slow; then forget is called with the resource. The next use asks for
// the account anew.
func (r *reader) withdraw(lease string, forget func(covering string)) {
	g := r.logins.withdraw(lease)
	if g == nil {
		return
	}
	open := g.end()
	for _, f := range open {
		r.drop(f)
	}
	go r.logins.clearOver(g) // once nobody asks for it
	go func() {
		var closing sync.WaitGroup
		for _, f := range open {
			closing.Go(func() {
				r.retire(f)
				f.close()
			})
		}
		closing.Wait()
		for _, s := range r.Sources {
			if s, ok := s.(interface{ CloseIdle() }); ok {
				s.CloseIdle()
			}
		}
		forget(g.covering)
	}()
}
