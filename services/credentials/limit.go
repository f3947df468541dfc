package credentials

import (
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"chandler/events"
)

// Bounds of one replica. Whoever has an enrolment token's identity may ask in any name, so that what is kept
// of askers, and what is stored about them, has a bound of its own.
const (
	// proofsPerSecond bounds the statements whose signatures are verified.
	proofsPerSecond, proofsAtOnce = 1000, 10_000
	// joinsPerSecond bounds the machines that a token lets in: what a stolen token for any number of machines
	// can make the bucket grow by.
	joinsPerSecond, joinsAtOnce = 100, 5000
	// refusalEvery is the pace at which refusals are stored as events in the long run.
	refusalEvery, refusalsAtOnce = 5 * time.Second, 500
	// askEvery is the pace at which one agent may ask for identities.
	askEvery, asksAtOnce = 10 * time.Second, 20
	// leaseEvery is the pace at which one agent may ask for accounts, and at which it is heard about rejected ones.
	leaseEvery, leasesAtOnce = 5 * time.Second, 30
	// remembered is how many agents, and as many refusals, are kept in mind: at most twice as many.
	remembered = 1 << 15
	// moment bounds the time after which those that came too many at once ask again.
	moment = time.Minute
)

// limits of what is done for those that ask.
type limits struct {
	proofs, joins, refusals *rate.Limiter

	mu     sync.Mutex
	agents recent[*rate.Limiter]
	leases recent[*rate.Limiter]
	uses   recent[*rate.Limiter]
	told   recent[struct{}]
	denied recent[struct{}]
}

func newLimits() *limits {
	return &limits{
		proofs: rate.NewLimiter(proofsPerSecond, proofsAtOnce), joins: rate.NewLimiter(joinsPerSecond, joinsAtOnce),
		refusals: rate.NewLimiter(rate.Every(refusalEvery), refusalsAtOnce),
		agents:   recent[*rate.Limiter]{limit: remembered}, leases: recent[*rate.Limiter]{limit: remembered},
		uses: recent[*rate.Limiter]{limit: remembered}, told: recent[struct{}]{limit: remembered}, denied: recent[struct{}]{limit: remembered},
	}
}

// crowd refuses for a moment, each asker for another one, what exceeds a limit on all together.
func crowd(l *rate.Limiter, now time.Time) error {
	if l.AllowN(now, 1) {
		return nil
	}
	later := moment/2 + rand.N(moment/2)
	return &refusal{reason: events.RefusedLater, why: "too many machines ask at once", later: later}
}

// asks refuses an agent that asks too often. Its key must have been proved: nobody uses up another's share.
func (l *limits) asks(agent string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := own(&l.agents, agent, askEvery, asksAtOnce).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	return &refusal{reason: events.RefusedLater, why: "this agent asks too often", later: max(wait, time.Second)}
}

// lends says whether an agent may ask for one more account.
func (l *limits) lends(agent string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return own(&l.leases, agent, leaseEvery, leasesAtOnce).AllowN(now, 1)
}

// hears says whether one more word of an agent about a rejected account is heard: each is a look at the leases.
func (l *limits) hears(agent string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return own(&l.uses, agent, leaseEvery, leasesAtOnce).AllowN(now, 1)
}

// own is the limit of one agent.
func own(of *recent[*rate.Limiter], agent string, every time.Duration, atOnce int) *rate.Limiter {
	l, ok := of.get(agent)
	if !ok {
		l = rate.NewLimiter(rate.Every(every), atOnce)
		of.put(agent, l)
	}
	return l
}

// tellRefusal says whether a refusal is to be stored: each id once, and not too many at once.
func (l *limits) tellRefusal(id string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, told := l.told.get(id); told || !l.refusals.AllowN(now, 1) {
		return false
	}
	l.told.put(id, struct{}{})
	return true
}

// tellDenial says whether the denial of a lease is to be stored: each id once. How many there are is bounded by what
// each agent may ask, see lends; machines that do not get in, and other agents, use up nothing of it.
func (l *limits) tellDenial(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, told := l.denied.get(id); told {
		return false
	}
	l.denied.put(id, struct{}{})
	return true
}

// recent maps keys to values and forgets those that were not used while limit others were. It holds at most
// twice as many.
type recent[V any] struct {
	limit      int
	young, old map[string]V
}

func (r *recent[V]) get(key string) (V, bool) {
	v, ok := r.young[key]
	if ok {
		return v, true
	}
	if v, ok = r.old[key]; ok {
		r.put(key, v)
	}
	return v, ok
}

func (r *recent[V]) put(key string, v V) {
	if len(r.young) >= r.limit {
		r.old, r.young = r.young, nil
	}
	if r.young == nil {
		r.young = make(map[string]V)
	}
	r.young[key] = v
}
