package rollout

import (
	"fmt"
	"math"
	"strings"
	"time"

	"chandler/events"
)

// Judge says what to do about the newest open phase. A bad gate comes before everything but a skip; the success gate
// holds only while it is met: a success that turns into something else begins the bake time anew.
func Judge(p events.Plan, v View, now time.Time) Verdict {
	if len(p.Phases) == 0 {
		return Verdict{Step: Done}
	}
	phase, last := p.Phases[v.Index], v.Index == len(p.Phases)-1
	if v.Skipped && !last {
		return Verdict{Step: Open, Says: "skipped"}
	}
	applies := max(0, int64(v.Size)-v.Counts.NotApplicable)
	if why := bad(phase, v, applies); why != "" {
		return Verdict{Step: Stop, Says: why}
	}
	if last {
		if ended := v.Counts.Succeeded + v.Counts.Failed; ended < applies {
			return Verdict{Says: fmt.Sprintf("%d of %d machines have ended", ended, applies)}
		}
		return Verdict{Step: Done}
	}
	return advance(phase.AdvanceWhen, v, applies, now)
}

// bad says why the phase's gate halts the rollout; "": it does not.
func bad(phase events.Phase, v View, applies int64) string {
	if phase.HaltWhen == nil {
		return ""
	}
	if l, n := phase.HaltWhen.Failed, v.Counts.Failed-v.Forgiven.Failed; l != nil && reached(*l, n, applies) {
		return fmt.Sprintf("%s in phase %s%s; the gate halts at %s", share("failed", n, applies), phase.Name, forgiven(v.Forgiven.Failed), l)
	}
	if s, n := phase.HaltWhen.Silent, v.Counts.Silent-v.Forgiven.Silent; s != nil && reached(s.Share, n, applies) {
		return fmt.Sprintf("%s in phase %s for %s since the offer%s; the gate halts at %s", share("said nothing", n, applies), phase.Name, time.Duration(s.After), forgiven(v.Forgiven.Silent), s.Share)
	}
	return ""
}

func forgiven(n int64) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(", beside %d that somebody resumed in spite of", n)
}

// reached says whether n machines are as many as a halting limit names; nobody is never too many.
func reached(l events.Limit, n, of int64) bool {
	if n < 1 {
		return false
	}
	if l.Count > 0 {
		return n >= int64(l.Count)
	}
	return attains(n, l.Percent, of)
}

// enough says whether n successes open the gate: as many as the limit names, or all there can be.
func enough(l events.Limit, n, of int64) bool {
	if l.Count > 0 {
		return n >= min(int64(l.Count), of)
	}
	return attains(n, l.Percent, of)
}

// millionths of a percent: shares are compared in whole numbers, for the product of 1.1 and 17,000 is a little above 18,700.
const millionths = 1_000_000

func exact(percent float64) int64 { return int64(math.Round(percent * millionths)) }

// attains says whether n is at least a share of a number.
func attains(n int64, percent float64, of int64) bool {
	return n*100*millionths >= exact(percent)*of
}

// shareOf is a share of a number, rounded up.
func shareOf(percent float64, of int) int {
	const whole = 100 * millionths
	return int((exact(percent)*int64(of) + whole - 1) / whole)
}

func share(what string, n, of int64) string {
	if of == 0 {
		return fmt.Sprintf("%d of 0 machines %s", n, what)
	}
	return fmt.Sprintf("%d of %d machines %s (%.3g%%)", n, of, what, float64(n)*100/float64(of))
}

// advance judges the success gate.
func advance(a *events.Advance, v View, applies int64, now time.Time) Verdict {
	if a == nil {
		return Verdict{Step: Open}
	}
	if a.Succeeded != nil && !enough(*a.Succeeded, v.Counts.Succeeded, applies) {
		return Verdict{Says: fmt.Sprintf("%s, the gate opens at %s", share("succeeded", v.Counts.Succeeded, applies), a.Succeeded)}
	}
	met := v.Met
	if met.IsZero() {
		met = now
		if a.Succeeded == nil {
			met = v.Opened
			if v.Resumed.After(met) {
				met = v.Resumed
			}
		}
	}
	w := Verdict{Met: met}
	var waits []string
	if baked := met.Add(time.Duration(a.For)); now.Before(baked) {
		w.Until = baked
		waits = append(waits, "the bake time to end at "+baked.UTC().Format(time.RFC3339))
	}
	if a.Approval && !v.Approved {
		waits = append(waits, "somebody's approval (chandler deployment approve)")
	}
	if a.Event != nil && !v.Signalled {
		waits = append(waits, fmt.Sprintf("the event %s about %s", a.Event.Type, a.Event.Subject))
	}
	if len(waits) > 0 {
		w.Says = "waits for " + strings.Join(waits, ", and ")
		return w
	}
	w.Step = Open
	return w
}
