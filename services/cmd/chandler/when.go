package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"chandler/events/calendar"
)

// localForms are the ways to write a local time; a zone must follow.
var localForms = []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04"}

// parseWhen reads a point in time: RFC 3339 (2026-12-01T08:00:00Z), a local time and its zone
// (2026-12-01T08:00 Europe/Oslo), or a span from now (+36h, +7d). A local time without a zone is an
// error: nobody can tell which machine's clock was meant.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if rest, ok := strings.CutPrefix(s, "+"); ok {
		span, err := parseSpan(rest)
		return now.Add(span).UTC(), err
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	local, zone := s, ""
	if i := strings.LastIndexByte(s, ' '); i > 0 && !strings.Contains(s[i:], ":") {
		local, zone = s[:i], s[i+1:]
	}
	for _, form := range localForms {
		if _, err := time.Parse(form, local); err != nil {
			continue
		}
		return parseLocal(form, local, zone)
	}
	return time.Time{}, fmt.Errorf("time %q: write it as 2026-12-01T08:00:00Z, as \"2026-12-01T08:00 Europe/Oslo\", or as +36h", s)
}

func parseLocal(form, local, zone string) (time.Time, error) {
	if zone == "" {
		return time.Time{}, fmt.Errorf("time %q has no zone: write \"%s UTC\" or \"%s Europe/Oslo\"", local, local, local)
	}
	location, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return time.Time{}, fmt.Errorf("time zone %q is not known: use a name such as Europe/Oslo, or UTC", zone)
	}
	t, err := time.ParseInLocation(form, local, location)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %q: %w", local, err)
	}
	if t.Format(form) != local { // clocks are put forward over it
		return time.Time{}, fmt.Errorf("time %s does not exist in %s: the clocks are put forward over it", local, zone)
	}
	return t.UTC(), nil
}

// parseSpan reads a length of time: Go's notation, or days as 90d.
func parseSpan(s string) (time.Duration, error) {
	var span time.Duration
	var err error
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		if n > 100*365 {
			err = strconv.ErrRange
		}
		span = time.Duration(n) * 24 * time.Hour
	} else {
		span, err = time.ParseDuration(s)
	}
	if err != nil || span < 0 {
		return 0, fmt.Errorf("span %q: write it as 30m, 12h or 90d", s)
	}
	return span, nil
}

// shortTime shows a time to people: the hour today, the date otherwise.
func (a *app) shortTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	t, now := t.In(a.zone), a.now().In(a.zone)
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// longTime shows a time to the second with its zone.
func (a *app) longTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(a.zone).Format("2006-01-02 15:04:05 MST")
}

// moment shows a moment: an instant as every other time, a wall-clock time with the zone whose clocks show it.
func (a *app) moment(m *calendar.Moment, zone calendar.Zone) string {
	switch {
	case m == nil:
		return ""
	case !m.Floating():
		return a.longTime(m.In(time.UTC))
	case zone == calendar.ZoneAgent:
		return m.String() + " each machine's own time"
	}
	return m.String() + " " + cmp.Or(string(zone), "UTC")
}

// ago says how long ago something was, in its largest unit.
func (a *app) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := a.now().Sub(t)
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// count writes a number with its thousands apart: 9,214.
func count[N int | int64 | uint64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is a count and its noun.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// byteSize writes a size for people.
func byteSize(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
