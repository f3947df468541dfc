package rollout

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"chandler/events"
)

// Seen is how lately a machine must have been heard of to be drawn for a phase before the last: one that is put away
// would only fall silent.
const Seen = 14 * 24 * time.Hour

// Cut is the place (timing.Place) up to which agents are in a phase by percent or count, and in those before it: the place
// of the last of as many as the phase names, of the agents that may be drawn. Rounded up, at least one; all of them where
// there are fewer, and nobody where there is none, so that who joins later does not come into an early phase in numbers.
// An agent keeps its place, so that who joins later reshuffles nobody.
func Cut(phase events.Phase, places []float64) float64 {
	n := phase.Count
	if phase.Percent > 0 {
		if phase.Percent >= 100 {
			return 1
		}
		n = shareOf(phase.Percent, len(places))
	}
	if len(places) == 0 {
		return -1
	}
	sorted := slices.Sorted(slices.Values(places))
	return sorted[min(max(n, 1), len(sorted))-1]
}

// Check says what is wrong with a plan.
func Check(p events.Plan) error {
	if len(p.Phases) > events.MaxPhases {
		return fmt.Errorf("%d phases: at most %d", len(p.Phases), events.MaxPhases)
	}
	if p.MaxInFlight < 0 || p.MaxInFlightPerSite < 0 {
		return errors.New("max-in-flight must not be negative")
	}
	if p.OnHalt != "" && p.OnHalt != events.OnHaltRollback {
		return fmt.Errorf("on-halt is %q: it can be %s, or be left out", p.OnHalt, events.OnHaltRollback)
	}
	names := map[string]bool{}
	percent, count := 0.0, 0
	for i, phase := range p.Phases {
		if err := checkPhase(phase, i == len(p.Phases)-1); err != nil {
			return fmt.Errorf("phase %d (%s): %w", i+1, phase.Name, err)
		}
		if names[phase.Name] {
			return fmt.Errorf("phase %d: there are two of the name %s", i+1, phase.Name)
		}
		names[phase.Name] = true
		if phase.Percent > 0 && phase.Percent <= percent || phase.Count > 0 && phase.Count <= count {
			return fmt.Errorf("phase %d (%s) adds nobody: percent and count are cumulative", i+1, phase.Name)
		}
		percent, count = max(percent, phase.Percent), max(count, phase.Count)
	}
	return nil
}

func checkPhase(p events.Phase, last bool) error {
	if err := events.ValidToken(p.Name); err != nil {
		return err
	}
	kinds := 0
	for _, set := range []bool{p.Percent != 0, p.Count != 0, p.Collection != ""} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return errors.New("exactly one of percent, count and collection says who is in it")
	case p.Percent < 0 || p.Percent > 100 || math.IsNaN(p.Percent) || p.Count < 0:
		return errors.New("percent is above 0 and at most 100, count at least 1")
	case p.Collection != "" && events.ValidToken(p.Collection) != nil:
		return events.ValidToken(p.Collection)
	case p.MaxInFlight < 0:
		return errors.New("max-in-flight must not be negative")
	case last && p.AdvanceWhen != nil:
		return errors.New("nothing comes after the last phase: it has no advance-when")
	case !last && (p.AdvanceWhen == nil || *p.AdvanceWhen == (events.Advance{})):
		return errors.New("say when the next phase opens: advance-when: {succeeded: 95%, for: 24h}, or {approval: true}")
	case p.HaltWhen != nil && p.HaltWhen.Failed == nil && p.HaltWhen.Silent == nil:
		return errors.New("halt-when names neither failed nor silent")
	}
	if p.HaltWhen != nil && p.HaltWhen.Silent != nil && (p.HaltWhen.Silent.After <= 0 || p.HaltWhen.Silent.Share == (events.Limit{})) {
		return errors.New("halt-when silent: it needs a share and a time: {share: 20%, after: 4h}")
	}
	if e := gateEvent(p); e != nil && (len(e.Type) == 0 || len(e.Type) > 200 || len(e.Subject) == 0 || len(e.Subject) > 200) {
		return errors.New("advance-when event: it needs a type and a subject, each at most 200 bytes")
	}
	return nil
}

func gateEvent(p events.Phase) *events.ExternalGate {
	if p.AdvanceWhen == nil {
		return nil
	}
	return p.AdvanceWhen.Event
}
