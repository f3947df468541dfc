package external

import (
	"context"
	"sync"
	"time"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

const (
	// forgetAfter is when a secret that was refused may be tried again although it is the same: somebody may have
	// mended the account where it lives.
	forgetAfter = 30 * time.Minute
	// maxLogins bounds what is remembered.
	maxLogins = 1000
)

// Logins remembers, for all jobs of an agent while it runs, which secrets which hosts took and which they called wrong.
// A secret that a host has not taken yet is tried by one reader at a time: if it is wrong, the others never try it. The
// zero value is ready to use.
type Logins struct {
	mu sync.Mutex
	of map[login]*history
}

// login is one secret at one host.
type login struct {
	account string
	version int
	host    string
}

type history struct {
	turn    chan struct{} // who holds it tries
	taken   bool
	refused time.Time // zero: it was not
	used    time.Time
}

// enter waits until the secret may be tried; leave is called with what came of it. refused: it may not, since that time.
func (l *Logins) enter(ctx context.Context, which login, clock func() time.Time) (refused time.Time, leave func(taken, refused bool), err error) {
	h := l.history(which, clock())
	l.mu.Lock()
	taken := h.taken
	l.mu.Unlock()
	if !taken {
		select {
		case h.turn <- struct{}{}:
		case <-ctx.Done():
			return time.Time{}, nil, context.Cause(ctx)
		}
	}
	done := func() {
		if !taken {
			<-h.turn
		}
	}
	if at := l.refusedAt(which, clock()); !at.IsZero() {
		done()
		return at, nil, nil
	}
	return time.Time{}, func(good, bad bool) {
		l.mu.Lock()
		switch {
		case bad:
			h.taken, h.refused = false, clock()
		case good:
			h.taken, h.refused = true, time.Time{}
		}
		l.mu.Unlock()
		done()
	}, nil
}

// refusedAt is when the host called the secret wrong; zero: it did not, or long ago.
func (l *Logins) refusedAt(which login, now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.of[which]; h != nil && !h.refused.IsZero() && now.Sub(h.refused) < forgetAfter {
		return h.refused
	}
	return time.Time{}
}

// Heard notes what a host answered to a secret when somebody else tried it: a program's supervisor, or an administrator.
func (l *Logins) Heard(a events.Access) {
	at, err := resource.Parse(a.Resource)
	if err != nil || a.Account == "" {
		return
	}
	h := l.history(login{a.Account, a.Version, at.Host}, a.At)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case source.CodeOf(a.Answer) == source.LogonRefused:
		h.taken, h.refused = false, a.At
	case a.Reason == events.NoReason || a.Reason == events.NetworkAccessDenied || a.Reason == events.SourceNotFound:
		h.taken, h.refused = true, time.Time{}
	}
}

func (l *Logins) history(which login, now time.Time) *history {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[login]*history{}
	}
	h := l.of[which]
	if h == nil {
		for k, old := range l.of {
			if len(l.of) >= maxLogins && len(old.turn) == 0 && now.Sub(old.used) > forgetAfter {
				delete(l.of, k)
			}
		}
		h = &history{turn: make(chan struct{}, 1)}
		l.of[which] = h
	}
	h.used = now
	return h
}
