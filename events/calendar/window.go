package calendar

import (
	"fmt"
	"strings"
	"time"
)

// Window is one maintenance window: exactly one recurrence, when on the day it opens, and for how long.
//
//	{once: 2026-12-01T22:00, for: 4h, zone: agent}
//	{daily: 1, at: "02:00", for: 3h}
//	{weekly: [sat, sun], every: 2, from: 2026-12-05, at: "02:00", for: 4h, zone: Europe/Oslo}
//	{monthly: 15, at: "02:00", for: 4h}       # or: last
//	{nth: 2 tue, plus: 3, at: "22:00", for: 6h}
//
// It is data as people write it: Validate says whether it is one. A window that Validate refuses never opens.
type Window struct {
	Name string `json:"name,omitempty" yaml:"name,omitempty"` // for people

	// Recurrence: exactly one of these five.
	Once    Moment   `json:"once,omitzero" yaml:"once,omitempty"`        // has no At; with an offset no Zone either
	Daily   int      `json:"daily,omitempty" yaml:"daily,omitempty"`     // every so many days, 1 to 366
	Weekly  []string `json:"weekly,omitempty" yaml:"weekly,omitempty"`   // days of the week: mon or monday
	Monthly string   `json:"monthly,omitempty" yaml:"monthly,omitempty"` // 1 to 31 (months without that day are left out) or last
	Nth     string   `json:"nth,omitempty" yaml:"nth,omitempty"`         // "2 tue": second Tuesday of the month; 1 to 5 or last

	Plus  int      `json:"plus,omitempty" yaml:"plus,omitempty"`   // days after Nth's, 0 to 27
	Every int      `json:"every,omitempty" yaml:"every,omitempty"` // only each so many weeks (1 to 52; they begin on Monday) or months (1 to 12)
	At    string   `json:"at,omitempty" yaml:"at,omitempty"`       // "02:00", in Zone
	For   Duration `json:"for,omitempty" yaml:"for,omitempty"`     // 5m to less than 24h, elapsed
	Zone  Zone     `json:"zone,omitempty" yaml:"zone,omitempty"`   // of At and of a floating Once
	// From and Until are the first and the last date, "2026-12-01", at which a recurring window may open. From is also
	// what every second day, week or month is counted from, so it is needed there: its day, its week, its month.
	From  string `json:"from,omitempty" yaml:"from,omitempty"`
	Until string `json:"until,omitempty" yaml:"until,omitempty"`
}

// Limits of a window's length, as in the original (domain-facts, maintenance windows).
const (
	shortestWindow = 5 * time.Minute
	windowLimit    = 24 * time.Hour
)

// Validate refuses what is no window, also one that never opens.
func (w Window) Validate() error {
	r, err := w.rule(time.UTC)
	if err == nil {
		err = r.opens()
	}
	if err != nil {
		if w.Name != "" {
			return fmt.Errorf("window %.50q: %w", w.Name, err)
		}
		return fmt.Errorf("window: %w", err)
	}
	return nil
}

// Next is the first opening strictly after an instant, on a machine whose own zone is own (nil: UTC); zero if there is
// none within 12 years. A date has one opening at most. Where clocks skip its time, it opens when they are set; a zone that
// skips the time before midnight so shows the next date already, which has its own opening all the same.
func (w Window) Next(after time.Time, own *time.Location) time.Time {
	r, err := w.rule(own)
	if err != nil {
		return time.Time{}
	}
	c := r.opening(shown(after, r.loc))
	if !c.ok || c.at.After(after.AddDate(horizonYears, 0, 0)) {
		return time.Time{}
	}
	return c.at
}

// Duration is written "90s", "20m", "4h", in files and on the wire.
type Duration time.Duration

// String is the shortest spelling: 4h, 1h30m.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads Go's notation; negative ones are refused.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %.50q: write it as 90s, 20m or 4h", text)
	}
	if v < 0 {
		return fmt.Errorf("duration %.50q is negative", text)
	}
	*d = Duration(v)
	return nil
}
