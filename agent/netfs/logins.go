package netfs

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"chandler/agent/lending"
	"chandler/agent/source"
	"chandler/events"
)

// refusedPause is how long a refusal that may pass is believed.
const refusedPause = 10 * time.Second

// logins keeps the accounts by which resources are read, for as long as they count.
type logins struct {
	ask func(ctx context.Context, resource string) (lending.Loan, error)
	now func() time.Time

	mu        sync.Mutex
	closed    bool
	held      map[string]*held // by resource
	proofs    map[shown]*proof
	grants    map[string]*grant // by lease: those that count
	withdrawn []string          // leases, in order
}

// held is the account of one resource, or why there is none.
type held struct {
	turn    sync.Mutex // of who asks
	loan    lending.Loan
	lent    bool
	grant   *grant // by which it is lent
	refused *source.Error
	until   time.Time // of the refusal; zero: for good
}

// shown is a secret and who it is shown to.
type shown struct {
	account, user string
	version       int
	host          string
}

// proof says what a host thinks of a secret. While it has said nothing, one caller at a time may show it.
type proof struct {
	turn    sync.Mutex
	right   bool
	refused *source.Error
}

// login gives the account of a resource with a copy of the secret, which the caller clears, and the grant by which it counts.
func (l *logins) login(ctx context.Context, resource string) (lending.Loan, *grant, *source.Error) {
	l.mu.Lock()
	h := l.held[resource]
	if h == nil {
		h = &held{}
		l.held[resource] = h
	}
	l.mu.Unlock()
	h.turn.Lock()
	defer h.turn.Unlock()
	now := l.now()
	if h.lent && (h.grant.isOver() || !h.loan.Expires.IsZero() && !now.Before(h.loan.Expires)) {
		h.loan.Clear()
		h.lent = false
	}
	switch {
	case h.lent:
		return copied(h.loan), h.grant, nil
	case h.refused != nil && (h.until.IsZero() || now.Before(h.until)):
		return h.loan, nil, h.refused
	}
	loan, granted, err := l.askFor(ctx, resource)
	if err == nil && l.over() {
		loan.Clear()
		err = errClosed
	}
	h.loan, h.lent, h.grant, h.refused, h.until = loan, err == nil, granted, nil, time.Time{}
	if err == nil {
		return copied(loan), granted, nil
	}
	h.loan.Clear()
	refused, ok := errors.AsType[*source.Error](err)
	if !ok {
		refused = &source.Error{Reason: events.CredentialUnavailable, Answer: "no account could be asked for", Err: err}
	}
	h.refused = refused
	if refused.Reason.Info().Class != events.Permanent {
		h.until = l.now().Add(refusedPause)
	}
	return h.loan, nil, refused
}

// askFor asks, and again if what is lent was withdrawn meanwhile.
func (l *logins) askFor(ctx context.Context, resource string) (lending.Loan, *grant, error) {
	for {
		l.mu.Lock()
		before := len(l.withdrawn)
		l.mu.Unlock()
		loan, err := l.ask(ctx, resource)
		if err != nil {
			return loan, nil, err
		}
		if g := l.grantOf(loan.Lease, resource, before); g != nil {
			return loan, g, nil
		}
		loan.Clear()
	}
}

var errClosed = &source.Error{Reason: events.CredentialDenied, Answer: "the program has ended"}

func copied(l lending.Loan) lending.Loan {
	l.Secret = bytes.Clone(l.Secret)
	return l
}

// show calls try, which shows a secret to a host, unless the host called it wrong before.
func (l *logins) show(s shown, try func() error) error {
	l.mu.Lock()
	p := l.proofs[s]
	if p == nil {
		p = &proof{}
		l.proofs[s] = p
	}
	l.mu.Unlock()
	p.turn.Lock()
	if p.refused != nil || p.right {
		refused := p.refused
		p.turn.Unlock()
		if refused != nil {
			return refused
		}
		err := try()
		p.turn.Lock()
		defer p.turn.Unlock()
		p.judge(err)
		return err
	}
	defer p.turn.Unlock()
	err := try()
	p.judge(err)
	return err
}

func (p *proof) judge(err error) {
	e, ok := errors.AsType[*source.Error](err)
	switch {
	case err == nil, ok && (e.Reason == events.NetworkAccessDenied || e.Reason == events.SourceNotFound):
		p.right = true
	case ok && e.Reason == events.CredentialRejected:
		p.refused = e
	}
}

func (l *logins) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// close overwrites all secrets. Whoever asks at this time gets none.
func (l *logins) close() {
	l.mu.Lock()
	l.closed = true
	all := make([]*held, 0, len(l.held))
	for _, h := range l.held {
		all = append(all, h)
	}
	l.mu.Unlock()
	for _, h := range all {
		h.turn.Lock()
		h.loan.Clear()
		h.lent, h.refused, h.until = false, errClosed, time.Time{}
		h.turn.Unlock()
	}
}
