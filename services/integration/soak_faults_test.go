package integration

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// fault is one way to break the rig.
type fault struct {
	name   string
	weight int // how often it comes, beside the others of its place
	place  place
	// from and to are how long it lasts; the longer ones come in long runs alone.
	from, to time.Duration
	// missing says what this machine lacks for it, "" nothing; nil: nothing is needed.
	missing func(*rig) string
	// do breaks something, says what, and gives the function that mends it again.
	do func(*rig, *rand.Rand) (what string, undo func() error, err error)
}

// place is a part of the rig. Faults of one place come one after another, those of several at the same time.
type place string

const (
	atBrokers  place = "brokers"
	atLeaders  place = "leaders"
	atServices place = "services"
	atAgents   place = "agents"
)

// faults are all that is done to the rig.
func faults() []fault {
	return append(append(brokerFaults(), serviceFaults()...), agentFaults()...)
}

// strike is one fault as it happened.
type strike struct {
	name, what string
	began      time.Duration // since the soak began
	took       time.Duration
}

func (s strike) String() string {
	return fmt.Sprintf("%7.1fs %5.1fs %-28s %s", s.began.Seconds(), s.took.Seconds(), s.name, s.what)
}

// breaker carries out the faults of one place.
type breaker struct {
	r      *rig
	random *rand.Rand
	deck   []fault // what comes next, in this order; then it is shuffled anew
	kinds  []fault
	began  time.Time
	count  *atomic.Int64 // of all places
	log    func(strike)
}

// run breaks and mends until enough is closed; what is broken then is mended first.
func (b *breaker) run(enough <-chan struct{}) error {
	for b.pause(enough, 100*time.Millisecond, 1500*time.Millisecond) {
		f := b.next()
		began := time.Now()
		what, undo, err := f.do(b.r, b.random)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		b.pause(enough, f.from, f.from+time.Duration(float64(f.to-f.from)*b.r.size.intensity))
		if err := undo(); err != nil {
			return fmt.Errorf("%s: mend %s: %w", f.name, what, err)
		}
		b.count.Add(1)
		b.log(strike{f.name, what, began.Sub(b.began), time.Since(began)})
	}
	return nil
}

// next draws from a deck that holds each fault as often as it weighs, so that every one comes.
func (b *breaker) next() fault {
	if len(b.deck) == 0 {
		for _, f := range b.kinds {
			for range f.weight {
				b.deck = append(b.deck, f)
			}
		}
		b.random.Shuffle(len(b.deck), func(i, j int) { b.deck[i], b.deck[j] = b.deck[j], b.deck[i] })
	}
	f := b.deck[0]
	b.deck = b.deck[1:]
	return f
}

// pause waits for some time; false: enough is closed.
func (b *breaker) pause(enough <-chan struct{}, from, to time.Duration) bool {
	timer := time.NewTimer(from + time.Duration(b.random.Float64()*float64(to-from)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-enough:
		return false
	}
}
