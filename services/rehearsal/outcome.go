package rehearsal

import (
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"chandler/events"
)

// Model draws outcomes as they were recorded. What it draws for an agent depends on the seed and the agent alone.
type Model struct {
	Seed uint64
	// Failed is the share of jobs, of those that end, that fail in the end, for Reasons in proportion; with none of them for
	// exit_code.
	Failed  float64
	Reasons map[events.Reason]int64
	// Silent is the share of machines that never say a word.
	Silent float64
	// Seconds are evenly spaced quantiles of the run time, from the shortest to the longest; none: [SupposedRunTime].
	Seconds []float64
}

// SupposedRunTime of a program of which none is recorded.
const SupposedRunTime = 5 * time.Minute

// Outcome is [Input.Outcome]. A job that is to fail does so at each attempt: recorded are ends of jobs, after all attempts.
func (m Model) Outcome(agent string, attempt int) Result {
	id := fnv.New64a()
	_, _ = id.Write([]byte(agent)) // never fails
	fate := rand.New(rand.NewPCG(m.Seed, id.Sum64()))
	if fate.Float64() < m.Silent {
		return Result{Silent: true}
	}
	var r Result
	if fate.Float64() < m.Failed {
		r.Reason = m.reason(fate)
	}
	for range attempt - 1 {
		fate.Float64()
	}
	r.Took = m.took(fate.Float64())
	return r
}

func (m Model) reason(fate *rand.Rand) events.Reason {
	var total int64
	for _, n := range m.Reasons {
		total += max(n, 0)
	}
	if total == 0 {
		return events.ExitCode
	}
	drawn := fate.Int64N(total)
	for _, r := range slices.Sorted(maps.Keys(m.Reasons)) {
		if drawn -= max(m.Reasons[r], 0); drawn < 0 {
			return r
		}
	}
	return events.ExitCode
}

// took is the run time at a quantile, between the recorded ones in a straight line, in whole seconds.
func (m Model) took(quantile float64) time.Duration {
	if len(m.Seconds) == 0 {
		return SupposedRunTime
	}
	at := quantile * float64(len(m.Seconds)-1)
	low := int(at)
	high := min(low+1, len(m.Seconds)-1)
	seconds := m.Seconds[low] + (m.Seconds[high]-m.Seconds[low])*(at-float64(low))
	return max(time.Duration(seconds)*time.Second, 0)
}
