package fleet

import (
	"errors"
	"math/rand/v2"
	"time"
)

// Presence says who is there when: a pure function of seed and agent. The zero value: all are there, all the time.
type Presence struct {
	Seed    uint64
	Offline float64       // share of agents that stay away until Until
	Until   time.Duration // after Run began; then they come, spread over Spread
	Spread  time.Duration
	Flap    float64 // share of agents whose connection breaks again and again
	// FlapEvery is the mean time between breaks; it varies by half to both sides.
	FlapEvery time.Duration
}

func (p Presence) validate() error {
	if p.Until < 0 || p.Spread < 0 || p.FlapEvery < 0 || p.Flap > 0 && p.FlapEvery == 0 {
		return errors.New("presence: times must not be negative, and who flaps must do so every so often")
	}
	return errors.Join(share("those who are offline", p.Offline), share("those who flap", p.Flap))
}

// draws of an agent: each kind has its own stream, so that one share does not move the others.
func (p Presence) draw(agent, kind string) *rand.Rand {
	return rand.New(rand.NewPCG(p.Seed, seedOf(kind+" "+agent)))
}

// Comes is when an agent comes, after Run began; 0: it is there from the start.
func (p Presence) Comes(agent string) time.Duration {
	d := p.draw(agent, "offline")
	if d.Float64() >= p.Offline {
		return 0
	}
	return p.Until + time.Duration(d.Float64()*float64(p.Spread))
}

// Flaps says whether an agent's connection breaks again and again.
func (p Presence) Flaps(agent string) bool {
	return p.draw(agent, "flap").Float64() < p.Flap
}

// Pause is the time before the nth break of an agent that flaps, counted from 1, after the one before it.
func (p Presence) Pause(agent string, n int) time.Duration {
	d := rand.New(rand.NewPCG(p.Seed+uint64(n), seedOf("pause "+agent)))
	return time.Duration((0.5 + d.Float64()) * float64(p.FlapEvery))
}
