package external

import (
	"context"
	"strings"
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
//
// A secret that a host has not taken yet is tried by one reader at a time: if it is wrong, the others never try it. The
// hosts of a domain ask the same controllers: what one of them called wrong is wrong for all, unless another took it.
// The zero value is ready to use.
type Logins struct {
	mu sync.Mutex
	of map[realm]*history
}

// realm is one secret where it is kept: in a domain, or at a host.
type realm struct {
	account string
	version int
	keeper  string
}

// login is one secret shown to one host.
type login struct {
	realm
	host string
}

func loginAt(account, user string, version int, host string) login {
	keeper, _ := source.Login{User: user}.Domain()
	if keeper == "" || keeper == "." {
		keeper = host
	}
	return login{realm{account, version, strings.ToLower(keeper)}, host}
}

// history is what hosts said of a secret.
type history struct {
	turn    chan struct{} // who holds it tries
	taken   map[string]bool
	refused map[string]time.Time
	used    time.Time
}

// enter waits until the secret may be tried; leave is called with what came of it. refused: it may not, since that time.
func (l *Logins) enter(ctx context.Context, which login, clock func() time.Time) (refused time.Time, leave func(taken, refused bool), err error) {
	h := l.history(which.realm, clock())
	done := func() {}
	if !l.taken(which) {
		select {
		case h.turn <- struct{}{}:
		case <-ctx.Done():
			return time.Time{}, nil, ctx.Err()
		}
		done = func() { <-h.turn }
	}
	if at := l.refusedAt(which, clock()); !at.IsZero() {
		done()
		return at, nil, nil
	}
	return time.Time{}, func(good, bad bool) {
		if good || bad {
			l.note(h, which.host, good, clock())
		}
		done()
	}, nil
}

func (l *Logins) note(h *history, host string, good bool, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if good {
		h.taken[host] = true
		delete(h.refused, host)
		return
	}
	h.refused[host] = at
	delete(h.taken, host)
}

// taken says that the host took the secret.
func (l *Logins) taken(which login) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.of[which.realm]
	return h != nil && h.taken[which.host]
}

// refusedAt is when the secret was called wrong; zero: it was not, or long ago.
func (l *Logins) refusedAt(which login, now time.Time) (last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.of[which.realm]
	if h == nil {
		return last
	}
	for host, at := range h.refused {
		if (host == which.host || len(h.taken) == 0) && now.Sub(at) < forgetAfter && at.After(last) {
			last = at
		}
	}
	return last
}

// Heard notes what a host answered to a secret when somebody else tried it: a program's supervisor, or an administrator.
func (l *Logins) Heard(a events.Access) {
	at, err := resource.Parse(a.Resource)
	if err != nil || a.Account == "" {
		return
	}
	which := loginAt(a.Account, a.User, a.Version, at.Host)
	h := l.history(which.realm, a.At)
	switch {
	case source.CodeOf(a.Answer) == source.LogonRefused:
		l.note(h, which.host, false, a.At)
	case a.Reason == events.NoReason || a.Reason == events.NetworkAccessDenied || a.Reason == events.SourceNotFound:
		l.note(h, which.host, true, a.At)
	}
}

func (l *Logins) history(of realm, now time.Time) *history {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[realm]*history{}
	}
	h := l.of[of]
	if h == nil {
		for k, old := range l.of {
			if len(l.of) >= maxLogins && len(old.turn) == 0 && now.Sub(old.used) > forgetAfter {
				delete(l.of, k)
			}
		}
		h = &history{turn: make(chan struct{}, 1), taken: map[string]bool{}, refused: map[string]time.Time{}}
		l.of[of] = h
	}
	h.used = now
	return h
}
