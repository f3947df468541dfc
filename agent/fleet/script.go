package fleet

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"

	"chandler/events"
)

// Script says what programs do: a pure function of seed, job (which is of one agent) and attempt.
type Script struct {
	Seed     uint64
	Duration time.Duration // median of the program's run time (log-normal, Spread its sigma); 0: ends at once
	Spread   float64
	// Failures is the share of attempts that fail: half of them for good (exit code 1603), half because another installer
	// is busy (1618), which is tried again.
	Failures float64
	Output   int  // median bytes of output in the job's log, 0: no log
	Content  bool // tell downloading and downloaded too
	Fork     bool // run a real /bin/true
}

// Act is what one run of a program does.
type Act struct {
	Took   time.Duration
	Exit   int
	Reason events.Reason // of the failure; empty: it succeeds
	Output int           // bytes
}

// The exit codes of failures, as Windows Installer's.
const (
	exitFailed = 1603
	exitBusy   = 1618
)

// longest bounds the tail of the distributions, in medians.
const longest = 50

// Of says what an attempt's run does.
func (s Script) Of(job string, attempt int) Act {
	draw := rand.New(rand.NewPCG(s.Seed, seedOf(job)+uint64(attempt)))
	fails, busy, slow, loud := draw.Float64() < s.Failures, draw.Float64() < 0.5, draw.NormFloat64(), draw.NormFloat64()
	act := Act{
		Took:   time.Duration(float64(s.Duration) * min(longest, math.Exp(s.Spread*slow))),
		Output: int(float64(s.Output) * min(longest, math.Exp(s.Spread*loud))),
	}
	switch {
	case fails && busy:
		act.Exit, act.Reason = exitBusy, events.InstallerBusy
	case fails:
		act.Exit, act.Reason = exitFailed, events.ExitCode
	}
	return act
}

func (s Script) validate() error {
	if s.Duration < 0 || s.Output < 0 || s.Spread < 0 || s.Spread > 5 {
		return errors.New("script: duration, output and spread must not be negative, spread at most 5")
	}
	return share("failures", s.Failures)
}

func share(of string, v float64) error {
	if !(v >= 0 && v <= 1) {
		return fmt.Errorf("share of %s is %g: it must be from 0 to 1", of, v)
	}
	return nil
}

func seedOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}
