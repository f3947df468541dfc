package calendar

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func cronOf(t testing.TB, s string) Cron {
	t.Helper()
	c, err := ParseCron(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// texts of times as their zones show them.
func texts(times []time.Time) (out []string) {
	for _, at := range times {
		out = append(out, at.Format("2006-01-02 15:04 -0700"))
	}
	return out
}

func TestFirings(t *testing.T) {
	for name, c := range map[string]struct {
		cron, zone, after string
		want              []string
	}{
		"every Saturday at two": {"0 2 * * SAT", "UTC", "2026-12-01T00:00:00Z",
			[]string{"2026-12-05 02:00 +0000", "2026-12-12 02:00 +0000"}},
		"strictly after": {"0 2 * * *", "UTC", "2026-12-01T02:00:00Z", []string{"2026-12-02 02:00 +0000"}},
		"a nanosecond before is before": {"0 2 * * *", "UTC", "2026-12-01T01:59:59.999999999Z",
			[]string{"2026-12-01 02:00 +0000"}},
		"a nanosecond after is after": {"0 2 * * *", "UTC", "2026-12-01T02:00:00.000000001Z",
			[]string{"2026-12-02 02:00 +0000"}},
		"lists, ranges and steps": {"*/30 8-10/2,22 * * *", "UTC", "2026-12-01T08:15:00Z",
			[]string{"2026-12-01 08:30 +0000", "2026-12-01 10:00 +0000", "2026-12-01 10:30 +0000", "2026-12-01 22:00 +0000", "2026-12-01 22:30 +0000", "2026-12-02 08:00 +0000"}},
		"Sunday is 7":               {"0 0 * * 7", "UTC", "2026-12-01T00:00:00Z", []string{"2026-12-06 00:00 +0000"}},
		"Sunday is 0":               {"0 0 * * 0", "UTC", "2026-12-01T00:00:00Z", []string{"2026-12-06 00:00 +0000"}},
		"Friday to Sunday":          {"0 0 * * fri-sun", "UTC", "2026-12-01T00:00:00Z", []string{"2026-12-04 00:00 +0000", "2026-12-05 00:00 +0000", "2026-12-06 00:00 +0000", "2026-12-11 00:00 +0000"}},
		"the second Friday":         {"0 6 * * 5#2", "UTC", "2026-12-01T00:00:00Z", []string{"2026-12-11 06:00 +0000", "2027-01-08 06:00 +0000"}},
		"the fifth Sunday":          {"0 6 * * SUN#5", "UTC", "2026-12-01T00:00:00Z", []string{"2027-01-31 06:00 +0000", "2027-02-28 06:00 +0000"}[:1]},
		"the last Friday":           {"0 6 * * 5L", "UTC", "2026-12-01T00:00:00Z", []string{"2026-12-25 06:00 +0000", "2027-01-29 06:00 +0000"}},
		"the last day of the month": {"0 6 L * *", "UTC", "2026-12-01T00:00:00Z", []string{"2026-12-31 06:00 +0000", "2027-01-31 06:00 +0000", "2027-02-28 06:00 +0000"}},
		"the 15th and the last":     {"0 6 15,L 2 *", "UTC", "2028-02-01T00:00:00Z", []string{"2028-02-15 06:00 +0000", "2028-02-29 06:00 +0000"}},
		"both days restricted: either": {"0 0 13 * FRI", "UTC", "2026-11-08T00:00:00Z",
			[]string{"2026-11-13 00:00 +0000", "2026-11-20 00:00 +0000", "2026-11-27 00:00 +0000", "2026-12-04 00:00 +0000", "2026-12-11 00:00 +0000", "2026-12-13 00:00 +0000"}},
		"a step of * only narrows": {"0 0 */2 * MON", "UTC", "2026-11-24T00:00:00Z",
			[]string{"2026-12-07 00:00 +0000", "2026-12-21 00:00 +0000"}},
		"29 February waits for leap years": {"0 0 29 2 *", "UTC", "2026-12-01T00:00:00Z", []string{"2028-02-29 00:00 +0000", "2032-02-29 00:00 +0000"}},
		"also for eight years":             {"0 0 29 2 *", "UTC", "2096-12-01T00:00:00Z", []string{"2104-02-29 00:00 +0000"}},
		"hourly":                           {"@hourly", "UTC", "2026-12-01T22:30:00Z", []string{"2026-12-01 23:00 +0000", "2026-12-02 00:00 +0000"}},
		"daily":                            {"@daily", "Europe/Oslo", "2026-12-01T22:30:00Z", []string{"2026-12-02 00:00 +0100"}},
		"weekly":                           {"@weekly", "UTC", "2026-12-01T00:00:00Z", []string{"2026-12-06 00:00 +0000"}},
		"monthly":                          {"@monthly", "UTC", "2026-12-01T00:00:00Z", []string{"2027-01-01 00:00 +0000"}},
		"yearly":                           {"@yearly", "UTC", "2026-12-01T00:00:00Z", []string{"2027-01-01 00:00 +0000", "2028-01-01 00:00 +0000"}},
		"a skipped time fires when clocks are set": {"30 2 * * *", "Europe/Oslo", "2027-03-27T12:00:00Z",
			[]string{"2027-03-28 03:00 +0200", "2027-03-29 02:30 +0200"}},
		"several of one gap fire once": {"*/20 2-3 * * *", "Europe/Oslo", "2027-03-27T12:00:00Z",
			[]string{"2027-03-28 03:00 +0200", "2027-03-28 03:20 +0200", "2027-03-28 03:40 +0200", "2027-03-29 02:00 +0200"}},
		"a time shown twice fires once": {"30 2 * * *", "Europe/Oslo", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25 02:30 +0200", "2026-10-26 02:30 +0100"}},
		"between the two it is past": {"30 2 * * *", "Europe/Oslo", "2026-10-25T01:10:00Z", []string{"2026-10-26 02:30 +0100"}},
		"every half hour rests while the hour comes again": {"*/30 * * * *", "Europe/Oslo", "2026-10-25T00:00:00Z",
			[]string{"2026-10-25 02:30 +0200", "2026-10-25 03:00 +0100"}},
		"a skipped midnight": {"0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z",
			[]string{"2026-09-06 01:00 -0300", "2026-09-07 00:00 -0300"}},
		"a skipped date does not fire": {"0 8 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z",
			[]string{"2011-12-29 08:00 -1000", "2011-12-31 08:00 +1400"}},
	} {
		t.Run(name, func(t *testing.T) {
			cron, loc, at := cronOf(t, c.cron), zoneOf(t, c.zone), instant(t, c.after)
			var got []time.Time
			for range c.want {
				at = cron.Next(at, loc)
				got = append(got, at)
			}
			if diff := cmp.Diff(c.want, texts(got)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestCronExpressionsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ cron, want string }{
		"31 February never comes":                     {"0 0 31 2 *", "never fires"},
		"nor does 31 in short months":                 {"0 0 31 4,6,9,11 *", "never fires"},
		"nor does a second Friday on the 1st or 20th": {"0 0 */19 * FRI#2", "never fires"},
		"a Sunday the 29 February is too seldom":      {"0 0 29 2 */7", "never fires, or not within 12 years"},
		"the fifth Monday of February too":            {"0 0 * 2 MON#5", "never fires, or not within 12 years"},
		"nothing":                                     {"", "five fields"},
		"four fields":                                 {"0 2 * *", "five fields"},
		"six fields":                                  {"0 0 2 * * SAT", "five fields"},
		"an unknown name":                             {"@reboot", "five fields"},
		"minute 60":                                   {"60 * * * *", `minute "60": not a number from 0 to 59`},
		"hour 24":                                     {"0 24 * * *", `hour "24": not a number from 0 to 23`},
		"day 0":                                       {"0 0 0 * *", `day of month "0"`},
		"day 32":                                      {"0 0 32 * *", `day of month "32"`},
		"month 13":                                    {"0 0 1 13 *", `month "13"`},
		"an unknown month":                            {"0 0 1 FOO *", `month "FOO": neither a number from 1 to 12 nor a name (JAN to DEC)`},
		"day of the week 8":                           {"0 0 * * 8", `day of week "8"`},
		"a negative number":                           {"-1 * * * *", `minute "-1"`},
		"a sign":                                      {"+1 * * * *", `minute "+1"`},
		"a backward range":                            {"0 22-2 * * *", `hour "22-2": the range runs backwards: write 22-23,0-2`},
		"a backward range of days":                    {"0 0 * * FRI-MON", `the range runs backwards: write 5-6,0-1`},
		"a step of a value":                           {"5/15 * * * *", `a step needs a range: 5-59/15`},
		"step 0":                                      {"*/0 * * * *", "the step is a number from 1 to 59"},
		"a step that leaves the range":                {"*/60 * * * *", "the step is a number from 1 to 59"},
		"an open range":                               {"5- * * * *", `minute "5-"`},
		"an empty item":                               {"1,,2 * * * *", `minute ""`},
		"a comma at the end":                          {"1, * * * *", `minute ""`},
		"which of the month, 6":                       {"0 0 * * 5#6", "1 to 5"},
		"which of the month, none":                    {"0 0 * * 5#", "1 to 5"},
		"L alone as day of the week":                  {"0 0 * * L", `day of week "L"`},
		"L of a month":                                {"0 0 * L *", `month "L"`},
		"a question mark":                             {"0 0 ? * MON", `day of month "?"`},
		"more than a line":                            {strings.Repeat("1,", 5000) + "1 * * * *", "at most 512"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseCron(c.cron)
			if err == nil || !strings.Contains(err.Error(), c.want) || got != (Cron{}) {
				t.Fatalf("got %+v, error %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestTheZeroCronNeverFires(t *testing.T) {
	var none Cron
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	if at := none.Next(now, nil); !at.IsZero() {
		t.Errorf("next %s", at)
	}
	if at, ok := none.Last(now.AddDate(-5, 0, 0), now, nil); ok {
		t.Errorf("last %s", at)
	}
}

func TestCronTextIsKept(t *testing.T) {
	for in, want := range map[string]string{" 0  2 * *\tSAT ": "0 2 * * SAT", "@daily": "@daily"} {
		if got := cronOf(t, in).String(); got != want {
			t.Errorf("%q is written %q", in, got)
		}
	}
}

func TestTheLastFiringOfASpan(t *testing.T) {
	for name, c := range map[string]struct{ cron, zone, after, upTo, want string }{
		"the newest of many":           {"0 2 * * *", "UTC", "2016-12-01T00:00:00Z", "2026-12-01T12:00:00Z", "2026-12-01T02:00:00Z"},
		"the end belongs to it":        {"0 2 * * *", "UTC", "2026-11-01T00:00:00Z", "2026-12-01T02:00:00Z", "2026-12-01T02:00:00Z"},
		"the start does not":           {"0 2 * * *", "UTC", "2026-12-01T02:00:00Z", "2026-12-01T12:00:00Z", ""},
		"nothing between":              {"0 2 * * *", "UTC", "2026-12-01T03:00:00Z", "2026-12-01T12:00:00Z", ""},
		"an empty span":                {"* * * * *", "UTC", "2026-12-01T03:00:00Z", "2026-12-01T03:00:00Z", ""},
		"a backward span":              {"* * * * *", "UTC", "2026-12-01T03:00:00Z", "2026-11-01T03:00:00Z", ""},
		"29 February, years ago":       {"0 0 29 2 *", "UTC", "2020-01-01T00:00:00Z", "2027-12-01T00:00:00Z", "2024-02-29T00:00:00Z"},
		"skipped: when clocks are set": {"30 2 * * *", "Europe/Oslo", "2027-03-27T12:00:00Z", "2027-03-28T01:00:00Z", "2027-03-28T01:00:00Z"},
		"skipped: not before that":     {"30 2 * * *", "Europe/Oslo", "2027-03-27T12:00:00Z", "2027-03-28T00:59:59Z", ""},
		"shown again: the first":       {"30 2 * * *", "Europe/Oslo", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z", "2026-10-25T00:30:00Z"},
		"a skipped date had none":      {"0 8 * * *", "Pacific/Apia", "2011-12-01T00:00:00Z", "2011-12-30T11:00:00Z", "2011-12-29T18:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := cronOf(t, c.cron).Last(instant(t, c.after), instant(t, c.upTo), zoneOf(t, c.zone))
			if ok != (c.want != "") || !got.Equal(instant(t, c.want)) {
				t.Fatalf("got %s, %v, want %s", got.UTC(), ok, c.want)
			}
		})
	}
}

// drawCron draws expressions that fire often enough to be compared minute by minute.
func drawCron(t *rapid.T) Cron {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	c, err := ParseCron(strings.Join([]string{
		pick("minute", "*", "0", "30", "*/7", "5-50/15", "0,59"),
		pick("hour", "*", "2", "0-3", "*/6", "1,2,23"),
		pick("day", "*", "1", "*/2", "L", "10-20", "8,L"),
		pick("month", "*", "3,10", "JAN-JUN", "*/3"),
		pick("weekday", "*", "SUN", "1-5", "6#2", "5L", "SAT-SUN", "2#1,7"),
	}, " "))
	if err != nil {
		t.Skip(err)
	}
	return c
}

// named says by definition, field by field, whether c names a minute.
func (c Cron) named(w wall) bool {
	t := time.Unix(int64(w), 0).UTC()
	_, month, date := t.Date()
	return w%60 == 0 && c.minutes&(1<<t.Minute()) != 0 && c.hours&(1<<t.Hour()) != 0 && c.months&(1<<month) != 0 && c.onDay(w.date(), t.Year(), month, date)
}

// drawAround draws a zone and an instant, mostly within days of a setting of its clocks.
func drawAround(t *rapid.T, zones []*time.Location, of map[string][]change) (*time.Location, time.Time) {
	loc := rapid.SampledFrom(zones).Draw(t, "zone")
	at := rapid.Int64Range(946684800, 2208988800).Draw(t, "at") // 2000 to 2040
	if cs := of[loc.String()]; len(cs) > 0 && rapid.IntRange(0, 4).Draw(t, "around") > 0 {
		at = rapid.SampledFrom(cs).Draw(t, "change").at + rapid.Int64Range(-3*dayLength, 2*dayLength).Draw(t, "off")
	}
	return loc, time.Unix(at, 0)
}

// everyZone reads all zones, and when each sets its clocks from 2000 to 2040; once, since that takes a while.
func everyZone(t testing.TB) ([]*time.Location, map[string][]change) {
	allZones.once.Do(func() {
		allZones.changes = map[string][]change{}
		for _, name := range zoneNamesOf(t) {
			loc := zoneOf(t, name)
			allZones.locations = append(allZones.locations, loc)
			allZones.changes[name] = changes(loc, 2000, 2040)
		}
	})
	return allZones.locations, allZones.changes
}

var allZones struct {
	once      sync.Once
	locations []*time.Location
	changes   map[string][]change
}

func TestFiringsAreThoseOfAClockThatIsWatched(t *testing.T) {
	zones, of := everyZone(t)
	rapid.Check(t, func(t *rapid.T) {
		c := drawCron(t)
		loc, start := drawAround(t, zones, of)
		start = start.Truncate(time.Minute)
		end := start.Add(3 * 24 * time.Hour)
		// Watch the clock: at each minute, fire if a minute that it names has been passed for the first time.
		var want []time.Time
		seen := shown(start, loc)
		for at := start.Add(time.Minute); !at.After(end); at = at.Add(time.Minute) {
			now := wall(at.Unix() + offsetAt(loc, at.Unix()))
			fire := false
			for w := seen - seen%60 + 60; w <= now; w += 60 {
				dateSkipped := now-seen > dayLength && w.date() < now.date()
				fire = fire || c.named(w) && !dateSkipped
			}
			if fire {
				want = append(want, at)
			}
			seen = max(seen, now)
		}
		var got []time.Time
		for at := c.Next(start, loc); !at.IsZero() && !at.After(end); at = c.Next(at, loc) {
			got = append(got, at)
		}
		if diff := cmp.Diff(texts(in(want, loc)), texts(in(got, loc))); diff != "" {
			t.Fatalf("%s in %s: %s", c, loc, diff)
		}
		last, ok := c.Last(start, end, loc)
		if ok != (len(want) > 0) || ok && !last.Equal(want[len(want)-1]) {
			t.Fatalf("%s in %s: last %s, %v, want the last of %v", c, loc, last, ok, texts(want))
		}
	})
}

func in(times []time.Time, loc *time.Location) (out []time.Time) {
	for _, at := range times {
		out = append(out, at.In(loc))
	}
	return out
}

func FuzzParseCron(f *testing.F) {
	for _, s := range []string{"0 2 * * SAT", "*/15 8-18 1,L JAN-MAR 5#2", "@weekly", "0 0 29 2 *", "0 0 * * 5L,FRI-SUN", "60 * * * *"} {
		f.Add(s)
	}
	oslo := zoneOf(f, "Europe/Oslo")
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCron(s)
		if err != nil {
			return
		}
		if again, err := ParseCron(c.String()); err != nil || again != c {
			t.Fatalf("%q, written %q: %+v, %v", s, c, again, err)
		}
		first := c.Next(now, oslo)
		if !first.After(now) {
			t.Fatalf("%q fires at %s", s, first)
		}
		if second := c.Next(first, oslo); !second.IsZero() && !second.After(first) {
			t.Fatalf("%q fires at %s after %s", s, second, first)
		}
		if last, ok := c.Last(now, first, oslo); !ok || !last.Equal(first) {
			t.Fatalf("%q: the last up to the first, %s, is %s, %v", s, first, last, ok)
		}
	})
}

func BenchmarkCron(b *testing.B) {
	oslo := zoneOf(b, "Europe/Oslo")
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	for _, s := range []string{"*/5 * * * *", "0 2 * * SAT", "0 0 29 2 *"} {
		c := cronOf(b, s)
		b.Run("next of "+s, func(b *testing.B) {
			for b.Loop() {
				c.Next(now, oslo)
			}
		})
		b.Run("last in ten years of "+s, func(b *testing.B) {
			for b.Loop() {
				c.Last(now.AddDate(-10, 0, 0), now, oslo)
			}
		})
	}
}
