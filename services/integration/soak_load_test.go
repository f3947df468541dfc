package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// load is the work that the rig is given while it is broken: deployments, one after another, some as rollouts, some of one
// site, some stopped or tried again, and freezes.
type load struct {
	r       *rig
	random  *rand.Rand
	p       events.PackageInfo
	names   []string
	stopped int
	retried int
	freezes int
}

// insisting is how long an administrator tries to be heard.
const insisting = 5 * time.Minute

// insist makes a request again until the answer is not that nobody is there.
func insist[Req, Resp any](r *rig, call events.Call[Req, Resp], req Req) (Resp, error) {
	var resp Resp
	err := r.look(call.Service+"."+call.Verb+" is answered", insisting, func() error {
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		var err error
		resp, err = bus.Request(ctx, r.admin, "admin", call, req)
		return err
	}, notHeard)
	return resp, err
}

// notHeard errors mean that the same request may be made again.
func notHeard(err error) bool {
	for _, one := range []error{bus.ErrUnavailable, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrDisconnected, nats.ErrNoResponders, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// behind is how many jobs of each agent may be under way before more is deployed.
const behind = 4

// work goes on until enough is closed.
func (l *load) work(enough <-chan struct{}) error {
	pacer := breaker{r: l.r, random: l.random}
	for pacer.pause(enough, 300*time.Millisecond, 1500*time.Millisecond) {
		if l.r.underWay() > int64(behind*l.r.size.sites*l.r.size.agents) {
			continue
		}
		do := l.deploy
		switch n := l.random.IntN(20); {
		case len(l.names) == 0:
		case n < 2:
			do = l.stop
		case n < 4:
			do = l.retry
		case n < 6:
			do = l.freeze
		}
		if err := do(); err != nil {
			return err
		}
	}
	return l.thaw()
}

// underWay is how many jobs agents took on that have not ended: those that end without a run count too, and few do.
func (r *rig) underWay() (n int64) {
	for _, s := range r.sites {
		stats := s.fleet.Stats()
		n += stats.Offers - stats.Ended
	}
	return n
}

func (l *load) deploy() error {
	name := fmt.Sprintf("soak-%04d", len(l.names)+1)
	request := l.r.sign(name, l.p, func(o *order.Order) {
		if l.random.IntN(3) == 0 {
			s := l.r.anySite(l.random)
			o.Collection, o.Expression = s.name, s.expression()
		}
	})
	if l.random.IntN(3) == 0 {
		request.Plan = &events.Plan{MaxInFlight: 10 + l.random.IntN(50), Phases: []events.Phase{
			{Name: "canary", Percent: 5, AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 1}}},
			{Name: "half", Percent: 50, AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 50}}},
			{Name: "rest", Percent: 100, HaltWhen: &events.Halt{Failed: &events.Limit{Percent: 90}}},
		}}
	}
	l.names = append(l.names, name)
	// A replica whose clock was set back refuses an order from the future.
	return l.r.look(name+" is taken", insisting, func() error {
		_, err := insist(l.r, events.DeploymentCreate, request)
		return err
	}, func(err error) bool {
		return errors.Is(err, bus.ErrBadRequest) && strings.Contains(err.Error(), "clocks")
	})
}

// recent is a deployment that was made not long ago, so that something is under way.
func (l *load) recent() string {
	return l.names[len(l.names)-1-l.random.IntN(min(3, len(l.names)))]
}

func (l *load) stop() error {
	l.stopped++
	name := l.recent()
	// Execution may not have heard of it yet.
	return l.r.look("a stop of "+name+" is taken", insisting, func() error {
		_, err := insist(l.r, events.ExecutionStop, events.StopRequest{Deployment: name, Why: "the soak says so"})
		return err
	}, func(err error) bool { return errors.Is(err, bus.ErrNotFound) })
}

func (l *load) retry() error {
	l.retried++
	_, err := insist(l.r, events.ExecutionRetry, events.Named{Name: l.recent()})
	if errors.Is(err, bus.ErrConflict) || errors.Is(err, bus.ErrNotFound) { // stopped, or not heard of yet
		return nil
	}
	return err
}

// freeze freezes a site or all, or lifts what is frozen.
func (l *load) freeze() error {
	frozen, err := insist(l.r, events.ExecutionFreezes, events.Nothing{})
	if err != nil || len(frozen.Freezes) > 0 {
		return errors.Join(err, l.thaw())
	}
	l.freezes++
	f := events.Freeze{Scope: "fleet"}
	if l.random.IntN(2) == 0 {
		f = events.Freeze{Scope: "site", Name: l.r.anySite(l.random).name}
	}
	_, err = insist(l.r, events.ExecutionFreeze, f)
	return err
}

// thaw lifts what an administrator froze; what a halt froze stays.
func (l *load) thaw() error {
	frozen, err := insist(l.r, events.ExecutionFreezes, events.Nothing{})
	for _, f := range frozen.Freezes {
		if strings.HasPrefix(f.ID, "deployment-") {
			continue
		}
		if _, e := insist(l.r, events.ExecutionUnfreeze, events.Named{Name: f.ID}); e != nil && !errors.Is(e, bus.ErrNotFound) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (s *lightSite) expression() string { return fmt.Sprintf("agent.site == %q", s.name) }
