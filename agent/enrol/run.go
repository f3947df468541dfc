package enrol

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/bus"
)

// Run keeps the identity of the connection that b stands on, which must have been made with NATSOptions,
// and follows the fleet's trust, until ctx is done.
func (k *Keeper) Run(ctx context.Context, b *bus.Bus) error {
	conn := b.Conn()
	sub, err := conn.Subscribe(events.TrustAnnounced.Pattern, k.hearTrust)
	if err != nil {
		return fmt.Errorf("listen to %s: %w", events.TrustAnnounced.Pattern, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only if the connection is closed
	up := conn.StatusChanged(nats.CONNECTED)
	defer conn.RemoveStatusListener(up)

	r := &rounds{Keeper: k, bus: b, conn: conn}
	if conn.IsConnected() {
		r.connected()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-up:
			if !open {
				up = nil
				continue
			}
			r.connected()
		case <-k.wake:
		case <-timer.C:
		}
		timer.Reset(r.round(ctx))
	}
}

// hearTrust hears which bundle is the newest. Run asks for it.
func (k *Keeper) hearTrust(m *nats.Msg) {
	e, err := bus.Open(events.TrustAnnounced, m)
	if err != nil {
		k.log.Warn("message refused", "subject", m.Subject, "error", err)
		return
	}
	k.mu.Lock()
	newer := e.Data.Version > k.heard && e.Data.Version > k.chain.bundle.Version
	k.heard = max(k.heard, e.Data.Version)
	k.mu.Unlock()
	if newer {
		k.Wake()
	}
}

// rounds is the state of Run, of its goroutine alone.
type rounds struct {
	*Keeper
	bus  *bus.Bus
	conn *nats.Conn

	back, renewal, trust pause
	wanted               bool // bundles are to be asked for
	answered             int  // newest announced version that was asked for
}

// connected is called when a connection was taken, and so its identity.
func (r *rounds) connected() {
	r.mu.Lock()
	r.rejected, r.hurry = false, false
	r.mu.Unlock()
	r.back = pause{}
	r.wantTrust() // bundles may have been announced meanwhile
}

// wantTrust asks for bundles after a random delay.
func (r *rounds) wantTrust() {
	if !r.wanted {
		r.wanted = true
		r.trust.wait(time.Now(), time.Duration(r.Rand()*float64(r.TrustDelay)))
	}
}

// round does what is due and says after which time to look again.
func (r *rounds) round(ctx context.Context) time.Duration {
	next := r.keepIdentity(ctx)
	return max(0, min(next, r.keepTrust(ctx), r.LookEvery))
}

// keepIdentity renews what is getting old and replaces what the broker does not take.
func (r *rounds) keepIdentity(ctx context.Context) time.Duration {
	connected := r.conn.IsConnected()
	if !connected {
		r.hear(r.conn.LastError()) // a connection that was never there tells its errors to nobody else
	}
	now := r.Clock()
	r.mu.Lock()
	if connected {
		r.rejected = false // what was heard is over
	}
	due, ever := r.life.due(now, r.share)
	must := r.identity != nil && !connected && (r.jwt == "" || r.rejected || r.life.expired(now))
	anew := must && (r.back == pause{} || r.hurry && r.back.away) // or the broker is there again
	r.hurry = false
	hasJWT := r.jwt != ""
	told := r.refused != nil && r.refused.stays() // by the answer before a start: is it still so?
	r.mu.Unlock()
	if anew {
		r.back = pause{}
		r.back.grow(time.Now(), r.Rand(), pauseFirst)
	}
	switch {
	case must:
		return r.attempt(ctx, "return", &r.back, r.Return)
	case connected && hasJWT && ever && (told || !now.Before(due)):
		return r.attempt(ctx, "renewal", &r.renewal, func(ctx context.Context) error { return r.renew(ctx, r.bus) })
	case connected && hasJWT && ever:
		return due.Sub(now)
	}
	return r.LookEvery
}

// attempt asks for an identity unless it is to wait, and says how long until the next attempt.
func (r *rounds) attempt(ctx context.Context, what string, p *pause, ask func(context.Context) error) time.Duration {
	now := time.Now()
	if !p.over(now) {
		return p.until.Sub(now)
	}
	err := ask(ctx)
	now = time.Now()
	switch {
	case ctx.Err() != nil:
		return 0
	case err != nil:
		p.after(err, now, r.Rand())
		r.log.WarnContext(ctx, "no identity received", "attempt", what, "error", err, "again_at", p.until)
		return p.until.Sub(now)
	}
	if what == "renewal" {
		*p = pause{}
	} else {
		p.away = false
		p.grow(now, r.Rand(), pauseMost) // should the broker refuse this one too; taken back once connected
	}
	if err := r.conn.ForceReconnect(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		r.log.WarnContext(ctx, "new identity not shown to the broker", "error", err)
	}
	return 0
}

// keepTrust asks for bundles when newer ones were announced or may have been.
func (r *rounds) keepTrust(ctx context.Context) time.Duration {
	r.mu.Lock()
	enrolled := len(r.chain.envelopes) > 0
	if r.heard > max(r.answered, r.chain.bundle.Version) {
		r.mu.Unlock()
		r.wantTrust()
		r.mu.Lock()
	}
	heard := r.heard
	r.mu.Unlock()
	now := time.Now()
	switch {
	case !r.wanted || !enrolled || !r.conn.IsConnected():
		return r.LookEvery
	case !r.trust.over(now):
		return r.trust.until.Sub(now)
	}
	if err := r.AskTrust(ctx, r.bus); err != nil {
		if ctx.Err() == nil {
			now = time.Now()
			r.trust.grow(now, r.Rand(), pauseMost)
			r.log.DebugContext(ctx, "trust bundles not received", "error", err)
		}
		return r.trust.until.Sub(now)
	}
	r.wanted, r.answered, r.trust = false, heard, pause{}
	return r.LookEvery
}

// AskTrust asks for newer bundles at once, until there are none, or one is refused: that one Run does not ask for
// again unless a newer one is announced or the agent connects anew.
func (k *Keeper) AskTrust(ctx context.Context, b *bus.Bus) error {
	for {
		have := k.Trust().Version
		limit, cancel := whileConnected(ctx, b.Conn())
		answer, err := bus.Request(limit, b, k.id, events.AgentTrust, events.TrustQuery{Have: have})
		cancel()
		if err != nil {
			return err
		}
		now, err := k.followBundles(answer.Bundles)
		if err != nil {
			return err
		}
		if !answer.More || now.Version == have {
			return nil
		}
	}
}
