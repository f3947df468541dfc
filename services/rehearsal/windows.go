package rehearsal

import (
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/target"
	"chandler/events/timing"
)

// membership tells the maintenance windows of machines: as [timing.WindowsOf], with each collection compiled once, and one
// set for all machines of the same collections.
type membership struct {
	of   []target.Target
	own  []order.Windows
	sets map[string]*windowSet
}

func newMembership(o order.Order) (membership, error) {
	m := membership{sets: map[string]*windowSet{}, own: o.Windows}
	for _, w := range o.Windows {
		t, err := target.New(w.Expression, w.Include, w.Exclude)
		if err != nil {
			return m, fmt.Errorf("windows of collection %s: %w", w.Collection, err)
		}
		m.of = append(m.of, t)
	}
	return m, nil
}

// windows of a machine; nil: none hold it.
func (m membership) windows(f events.Facts) *windowSet {
	key, held := make([]byte, len(m.of)), false
	for i, t := range m.of {
		member, err := t.Matches(f)
		if member && err == nil {
			key[i] = 1
		}
		held = held || member || err != nil
	}
	if !held {
		return nil
	}
	set := m.sets[string(key)]
	if set == nil {
		set = &windowSet{fits: map[*time.Location]knownFit{}}
		for i, in := range key {
			if in == 1 {
				set.windows = append(set.windows, m.own[i].Windows...)
			}
		}
		m.sets[string(key)] = set
	}
	return set
}

// windowSet remembers the newest answer for each zone: time only goes on, and an answer holds for long.
type windowSet struct {
	windows []calendar.Window
	fits    map[*time.Location]knownFit
}

type knownFit struct {
	calendar.Fit
	from time.Time
}

func (w *windowSet) fit(m timing.Machine, now time.Time, need time.Duration) calendar.Fit {
	known, ok := w.fits[m.Zone]
	if ok && !now.Before(known.from) && (known.Never || known.Open && !now.Add(need).After(known.Until) || !known.Open && now.Before(known.Next)) {
		return known.Fit
	}
	known = knownFit{timing.Fits(w.windows, true, m, now, need), now}
	w.fits[m.Zone] = known
	return known.Fit
}
