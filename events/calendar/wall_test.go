package calendar

import (
	"testing"
	"time"
)

// change is one setting of a zone's clocks: the instant, and the offsets before and after in seconds.
type change struct{ at, before, after int64 }

func offsetAt(loc *time.Location, sec int64) int64 {
	_, offset := time.Unix(sec, 0).In(loc).Zone()
	return int64(offset)
}

// changes are those of a zone between two years, found without ZoneBounds: by looking every twelve hours and halving.
func changes(loc *time.Location, from, until int) (found []change) {
	const step = 12 * 60 * 60
	low := time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	end := time.Date(until, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	before := offsetAt(loc, low)
	for ; low < end; low += step {
		after := offsetAt(loc, low+step)
		if after == before {
			continue
		}
		a, b := low, low+step
		for b-a > 1 {
			if middle := (a + b) / 2; offsetAt(loc, middle) == before {
				a = middle
			} else {
				b = middle
			}
		}
		found = append(found, change{b, before, after})
		before = after
	}
	return found
}

// shownAt are all instants at which clocks show w, by trying every offset that the zone has within two days.
func shownAt(loc *time.Location, w wall, near []change) (first int64, ok bool) {
	for _, c := range near {
		for _, offset := range []int64{c.before, c.after} {
			if at := int64(w) - offset; offsetAt(loc, at) == offset && (!ok || at < first) {
				first, ok = at, true
			}
		}
	}
	return first, ok
}

func TestWallTimesAroundEverySettingOfClocks(t *testing.T) {
	from, until := 1970, 2045
	if testing.Short() {
		from = 2010
	}
	total := 0
	for _, name := range zoneNamesOf(t) {
		loc := zoneOf(t, name)
		all := changes(loc, from, until)
		total += len(all)
		for i, c := range all {
			near := all[max(0, i-1):min(len(all), i+2)]
			low, high := c.at+min(c.before, c.after), c.at+max(c.before, c.after)
			for _, w := range []int64{low - dayLength, low - 1, low, (low + high) / 2, high - 1, high, high + dayLength} {
				checkWall(t, loc, wall(w), near)
			}
		}
	}
	if total < 10_000 {
		t.Fatalf("only %d settings of clocks were looked at", total)
	}
}

// checkWall compares with the definition: the first instant at which clocks show w, or else the one at which they
// skip it; and with shown.
func checkWall(t *testing.T, loc *time.Location, w wall, near []change) {
	t.Helper()
	got, ok := w.in(loc)
	want, exists := shownAt(loc, w, near)
	for _, c := range near {
		if exists || int64(w) < c.at+c.before || int64(w) >= c.at+c.after {
			continue
		}
		want = c.at
		if day := int64(w.date()) * dayLength; day >= c.at+c.before && day+dayLength <= c.at+c.after == ok {
			t.Errorf("%s: %s: there is such a date: %v", loc, w.text(secondsLayout), ok)
		}
	}
	if got.Unix() != want || exists && !ok {
		t.Errorf("%s: %s is %s, %v, want %s", loc, w.text(secondsLayout), got.UTC(), ok, time.Unix(want, 0).UTC())
	}
	if at := shown(got, loc); at < w {
		t.Errorf("%s: at the instant of %s clocks had shown no more than %s", loc, w.text(secondsLayout), at.text(secondsLayout))
	}
	if at := shown(got.Add(-1), loc); at >= w {
		t.Errorf("%s: before the instant of %s clocks had shown %s already", loc, w.text(secondsLayout), at.text(secondsLayout))
	}
}

// TestTheLastDayOfLeapYears is about package time, which bounds that day by its own start.
func TestTheLastDayOfLeapYears(t *testing.T) {
	for _, name := range zoneNamesOf(t) {
		loc := zoneOf(t, name)
		for _, s := range []string{"2028-12-31T02:30", "2032-12-31T23:59", "2040-12-31T12:00", "2040-12-30T23:59", "2041-01-01T12:00"} {
			w := wall(moment(t, s).sec)
			at, ok := w.in(loc)
			if got := at.Format(minutesLayout); !ok || got != s || shown(at, loc) != w {
				t.Errorf("%s: %s is %s, shown %s", name, s, got, shown(at, loc).text(secondsLayout))
			}
		}
	}
}

func TestADateThatAZoneSkipsDoesNotExist(t *testing.T) {
	for name, c := range map[string]struct {
		zone, moment string
		want         bool
	}{
		"Samoa skipped a day":           {"Pacific/Apia", "2011-12-30T12:00", false},
		"from its midnight":             {"Pacific/Apia", "2011-12-30T00:00", false},
		"to its end":                    {"Pacific/Apia", "2011-12-30T23:59", false},
		"the day before was one":        {"Pacific/Apia", "2011-12-29T23:59", true},
		"the day after was one":         {"Pacific/Apia", "2011-12-31T00:00", true},
		"Kiritimati skipped another":    {"Pacific/Kiritimati", "1994-12-31T12:00", false},
		"an hour skipped is no day":     {"Europe/Oslo", "2027-03-28T02:30", true},
		"nor is a skipped midnight one": {"America/Santiago", "2026-09-06T00:00", true},
	} {
		t.Run(name, func(t *testing.T) {
			at, ok := wall(moment(t, c.moment).sec).in(zoneOf(t, c.zone))
			if ok != c.want {
				t.Fatalf("got %v at %s", ok, at)
			}
		})
	}
}
