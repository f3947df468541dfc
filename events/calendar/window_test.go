package calendar

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var byFields = cmp.AllowUnexported(Moment{})

// readWindow reads YAML strictly, as files are, without validating.
func readWindow(text string) (w Window, err error) {
	err = yaml.UnmarshalWithOptions([]byte(text), &w, yaml.Strict())
	return w, err
}

func windowOf(t testing.TB, text string) Window {
	t.Helper()
	w, err := readWindow(text)
	if err == nil {
		err = w.Validate()
	}
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return w
}

func TestWindowsOpen(t *testing.T) {
	for name, c := range map[string]struct {
		window, own, after string
		want               []string // the next openings; "" where there is none
	}{
		"once, in UTC": {`{once: 2026-12-01T22:00, for: 4h}`, "Asia/Tokyo", "2026-11-01T00:00:00Z",
			[]string{"2026-12-01 22:00 +0000", ""}},
		"once, each machine's own": {`{once: 2026-12-01T22:00, for: 4h, zone: agent}`, "Asia/Tokyo", "2026-11-01T00:00:00Z",
			[]string{"2026-12-01 22:00 +0900", ""}},
		"once, at an instant": {`{once: 2026-12-01T22:00:00+01:00, for: 4h}`, "Asia/Tokyo", "2026-11-01T00:00:00Z",
			[]string{"2026-12-01 21:00 +0000", ""}},
		"once, in a gap": {`{once: 2027-03-28T02:30, for: 4h, zone: Europe/Oslo}`, "UTC", "2026-11-01T00:00:00Z",
			[]string{"2027-03-28 03:00 +0200", ""}},
		"once, in the past": {`{once: 2026-12-01T22:00, for: 4h}`, "UTC", "2026-12-01T22:00:00Z", []string{""}},
		"daily": {`{daily: 1, at: "02:00", for: 3h}`, "UTC", "2026-12-01T02:00:00Z",
			[]string{"2026-12-02 02:00 +0000", "2026-12-03 02:00 +0000"}},
		"daily, in between": {`{daily: 1, at: "02:00", for: 3h}`, "UTC", "2026-12-01T01:59:59.9Z",
			[]string{"2026-12-01 02:00 +0000"}},
		"every third day from a date": {`{daily: 3, from: 2026-12-02, at: "02:00", for: 3h}`, "UTC", "2026-11-01T00:00:00Z",
			[]string{"2026-12-02 02:00 +0000", "2026-12-05 02:00 +0000", "2026-12-08 02:00 +0000"}},
		"weekly": {`{weekly: [sat, sun], at: "02:00", for: 4h}`, "UTC", "2026-12-01T00:00:00Z",
			[]string{"2026-12-05 02:00 +0000", "2026-12-06 02:00 +0000", "2026-12-12 02:00 +0000"}},
		"every second week, counted from a week": {`{weekly: [mon, Saturday], every: 2, from: 2026-12-02, at: "02:00", for: 4h}`, "UTC", "2026-11-01T00:00:00Z",
			[]string{"2026-12-05 02:00 +0000", "2026-12-14 02:00 +0000", "2026-12-19 02:00 +0000", "2026-12-28 02:00 +0000"}},
		"every second week, asked years later": {`{weekly: [sat], every: 2, from: 2020-01-04, at: "02:00", for: 4h}`, "UTC", "2026-12-01T00:00:00Z",
			[]string{"2026-12-12 02:00 +0000", "2026-12-26 02:00 +0000"}},
		"weeks begin on Monday": {`{weekly: [sun], every: 2, from: 2026-11-30, at: "02:00", for: 4h}`, "UTC", "2026-11-01T00:00:00Z",
			[]string{"2026-12-06 02:00 +0000", "2026-12-20 02:00 +0000"}},
		"on the 15th": {`{monthly: 15, at: "02:00", for: 4h}`, "UTC", "2026-12-01T00:00:00Z",
			[]string{"2026-12-15 02:00 +0000", "2027-01-15 02:00 +0000"}},
		"the 31st leaves short months out": {`{monthly: 31, at: "02:00", for: 4h}`, "UTC", "2026-12-31T12:00:00Z",
			[]string{"2027-01-31 02:00 +0000", "2027-03-31 02:00 +0000", "2027-05-31 02:00 +0000"}},
		"the last of the month": {`{monthly: last, at: "02:00", for: 4h}`, "UTC", "2027-12-31T12:00:00Z",
			[]string{"2028-01-31 02:00 +0000", "2028-02-29 02:00 +0000", "2028-03-31 02:00 +0000"}},
		"29 February": {`{monthly: 29, every: 12, from: 2028-02-01, at: "02:00", for: 4h}`, "UTC", "2026-12-01T12:00:00Z",
			[]string{"2028-02-29 02:00 +0000", "2032-02-29 02:00 +0000"}},
		"29 February, over a century": {`{monthly: 29, every: 12, from: 2028-02-01, at: "02:00", for: 4h}`, "UTC", "2096-12-01T12:00:00Z",
			[]string{"2104-02-29 02:00 +0000"}},
		"quarterly": {`{monthly: 1, every: 3, from: 2026-12-15, at: "02:00", for: 4h}`, "UTC", "2026-11-01T12:00:00Z",
			[]string{"2027-03-01 02:00 +0000", "2027-06-01 02:00 +0000"}},
		"the second Tuesday plus three days": {`{nth: 2 tue, plus: 3, at: "22:00", for: 6h}`, "UTC", "2026-12-01T00:00:00Z",
			[]string{"2026-12-11 22:00 +0000", "2027-01-15 22:00 +0000"}},
		"plus leads into the next month": {`{nth: last tue, plus: 10, at: "22:00", for: 6h}`, "UTC", "2026-12-05T00:00:00Z",
			[]string{"2027-01-08 22:00 +0000", "2027-02-05 22:00 +0000"}},
		"the last Sunday": {`{nth: last sun, at: "22:00", for: 6h}`, "UTC", "2026-12-01T00:00:00Z",
			[]string{"2026-12-27 22:00 +0000", "2027-01-31 22:00 +0000", "2027-02-28 22:00 +0000"}},
		"the fifth Sunday leaves months out": {`{nth: 5 sun, at: "22:00", for: 6h}`, "UTC", "2026-12-01T00:00:00Z",
			[]string{"2027-01-31 22:00 +0000", "2027-05-30 22:00 +0000"}},
		"until a date, which belongs to it": {`{daily: 1, until: 2026-12-02, at: "02:00", for: 3h}`, "UTC", "2026-12-01T00:00:00Z",
			[]string{"2026-12-01 02:00 +0000", "2026-12-02 02:00 +0000", ""}},
		"from a date too far away": {`{daily: 1, from: 2040-01-01, at: "02:00", for: 3h}`, "UTC", "2026-12-01T00:00:00Z",
			[]string{""}},
		"a skipped time opens when clocks are set": {`{daily: 1, at: "02:30", for: 3h, zone: agent}`, "Europe/Oslo", "2027-03-27T12:00:00Z",
			[]string{"2027-03-28 03:00 +0200", "2027-03-29 02:30 +0200"}},
		"a time shown twice opens the first time": {`{daily: 1, at: "02:30", for: 3h, zone: agent}`, "Europe/Oslo", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25 02:30 +0200", "2026-10-26 02:30 +0100"}},
		"what is skipped before midnight opens with the next date, which keeps its own": {`{daily: 1, at: "23:30", for: 3h, zone: agent}`, "America/Scoresbysund", "2025-03-29T12:00:00Z",
			[]string{"2025-03-30 00:00 -0100", "2025-03-30 23:30 -0100"}},
		"a skipped date has no opening": {`{daily: 1, at: "08:00", for: 3h, zone: agent}`, "Pacific/Apia", "2011-12-29T12:00:00Z",
			[]string{"2011-12-29 08:00 -1000", "2011-12-31 08:00 +1400"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, own, at := windowOf(t, c.window), zoneOf(t, c.own), instant(t, c.after)
			for _, want := range c.want {
				at = w.Next(at, own)
				got := ""
				if !at.IsZero() {
					got = at.Format("2006-01-02 15:04 -0700")
				}
				if got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
		})
	}
}

func TestWindowsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ window, want string }{
		"nothing":                       {`{}`, "it must last from 5m"},
		"no recurrence":                 {`{at: "02:00", for: 4h}`, "exactly one of once, daily, weekly, monthly and nth"},
		"two recurrences":               {`{daily: 1, monthly: 3, at: "02:00", for: 4h}`, "exactly one of"},
		"an unknown key":                {`{dayly: 1, at: "02:00", for: 4h}`, `unknown field "dayly"`},
		"too short":                     {`{daily: 1, at: "02:00", for: 4m59s}`, "for 4m59s: it must last from 5m to less than 24h"},
		"a whole day":                   {`{daily: 1, at: "02:00", for: 24h}`, "for 24h: it must last"},
		"no duration":                   {`{daily: 1, at: "02:00", for: soon}`, `duration "soon"`},
		"a negative duration":           {`{daily: 1, at: "02:00", for: -4h}`, "negative"},
		"no time":                       {`{daily: 1, for: 4h}`, `at "": write it as "02:00"`},
		"hour 24":                       {`{daily: 1, at: "24:00", for: 4h}`, `at "24:00"`},
		"a time with seconds":           {`{daily: 1, at: "02:00:00", for: 4h}`, `at "02:00:00"`},
		"a short time":                  {`{daily: 1, at: "2:00", for: 4h}`, `at "2:00"`},
		"an unknown zone":               {`{daily: 1, at: "02:00", for: 4h, zone: europe/oslo}`, "did you mean Europe/Oslo"},
		"the zone of whoever reads it":  {`{daily: 1, at: "02:00", for: 4h, zone: Local}`, "did you mean agent"},
		"a negative number of days":     {`{daily: -1, at: "02:00", for: 4h}`, "every -1: write 1 to 366"},
		"too many days":                 {`{daily: 367, from: 2026-12-01, at: "02:00", for: 4h}`, "every 367: write 1 to 366"},
		"every second day of no date":   {`{daily: 2, at: "02:00", for: 4h}`, "needs a date to count from"},
		"daily with every":              {`{daily: 1, every: 2, at: "02:00", for: 4h}`, "write daily: 2"},
		"every second week of no date":  {`{weekly: [sat], every: 2, at: "02:00", for: 4h}`, "needs a date to count from"},
		"every 53rd week":               {`{weekly: [sat], every: 53, from: 2026-12-01, at: "02:00", for: 4h}`, "every 53: write 1 to 52"},
		"every negative":                {`{weekly: [sat], every: -1, from: 2026-12-01, at: "02:00", for: 4h}`, "every -1: write 1 to 52"},
		"an unknown day":                {`{weekly: [sam], at: "02:00", for: 4h}`, `weekly: unknown day of the week "sam"`},
		"a day twice":                   {`{weekly: [sat, saturday], at: "02:00", for: 4h}`, "saturday stands there twice"},
		"day 0":                         {`{monthly: 0, at: "02:00", for: 4h}`, `monthly "0": write 1 to 31 or last`},
		"day 32":                        {`{monthly: 32, at: "02:00", for: 4h}`, `monthly "32": write 1 to 31 or last`},
		"the first":                     {`{monthly: first, at: "02:00", for: 4h}`, `monthly "first": write 1 to 31 or last`},
		"the sixth Tuesday":             {`{nth: 6 tue, at: "02:00", for: 4h}`, `nth "6 tue": write it as "2 tue"`},
		"Tuesday the second":            {`{nth: tue 2, at: "02:00", for: 4h}`, `nth "tue 2": write it as "2 tue"`},
		"only which":                    {`{nth: 2, at: "02:00", for: 4h}`, `nth "2": write it as "2 tue"`},
		"plus too many days":            {`{nth: 2 tue, plus: 28, at: "02:00", for: 4h}`, "plus 28: write 0 to 27 days"},
		"plus fewer than none":          {`{nth: 2 tue, plus: -1, at: "02:00", for: 4h}`, "plus -1: write 0 to 27 days"},
		"plus of a date":                {`{monthly: 2, plus: 3, at: "02:00", for: 4h}`, "plus goes with nth alone"},
		"once with a time":              {`{once: 2026-12-01T22:00, at: "02:00", for: 4h}`, "once goes with for and zone alone"},
		"once, every second":            {`{once: 2026-12-01T22:00, every: 2, for: 4h}`, "once goes with for and zone alone"},
		"once with offset and zone":     {`{once: 2026-12-01T22:00:00Z, zone: agent, for: 4h}`, "leave out the zone, or the offset"},
		"once, a date":                  {`{once: 2026-12-01, for: 4h}`, `moment "2026-12-01"`},
		"from no date":                  {`{daily: 1, from: 2027-02-29, at: "02:00", for: 4h}`, `from "2027-02-29": write the date`},
		"until no date":                 {`{daily: 1, until: tomorrow, at: "02:00", for: 4h}`, `until "tomorrow": write the date`},
		"until before from":             {`{daily: 1, from: 2026-12-02, until: 2026-12-01, at: "02:00", for: 4h}`, "until 2026-12-01 is before from 2026-12-02"},
		"no such day between the dates": {`{weekly: [sat], from: 2026-12-06, until: 2026-12-11, at: "02:00", for: 4h}`, "never opens"},
		"every February's 30th":         {`{monthly: 30, every: 12, from: 2026-02-01, at: "02:00", for: 4h}`, "never opens, or not within 12 years"},
		"a named one is named":          {`{name: nightly, daily: 1, at: "25:00", for: 4h}`, `window "nightly": at "25:00"`},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := readWindow(c.window)
			if err == nil {
				err = w.Validate()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestWindowsInWords(t *testing.T) {
	for window, want := range map[string]string{
		`{once: 2026-12-01T22:00, for: 4h}`:                                  "once, 2026-12-01 22:00 for 4h, UTC",
		`{once: 2026-12-01T22:00:00+01:00, for: 4h}`:                         "once, 2026-12-01 21:00:00Z for 4h",
		`{daily: 1, at: "02:00", for: 1h30m}`:                                "every day, 02:00 for 1h30m, UTC",
		`{daily: 2, from: 2026-12-01, at: "02:00", for: 20m}`:                "every 2 days, 02:00 for 20m, UTC, from 2026-12-01",
		`{weekly: [sun, sat, mon], at: "02:00", for: 4h, zone: Europe/Oslo}`: "every Monday, Saturday and Sunday, 02:00 for 4h, Europe/Oslo time",
		`{weekly: [sat], every: 2, from: 2026-12-01, at: "02:00", for: 4h}`:  "Saturday of every 2 weeks, 02:00 for 4h, UTC, from 2026-12-01",
		`{monthly: 15, until: 2027-12-01, at: "02:00", for: 4h}`:             "day 15 of the month, 02:00 for 4h, UTC, until 2027-12-01",
		`{monthly: last, every: 3, from: 2026-12-01, at: "02:00", for: 4h}`:  "last day of every 3 months, 02:00 for 4h, UTC, from 2026-12-01",
		`{nth: 2 tue, plus: 3, at: "22:00", for: 6h, zone: agent}`:           "second Tuesday of the month plus 3 days, 22:00 for 6h, each machine's own time",
		`{nth: last tue, plus: 1, at: "22:00", for: 6h}`:                     "last Tuesday of the month plus 1 day, 22:00 for 6h, UTC",
		`{nth: 5 sun, at: "22:00", for: 6h}`:                                 "fifth Sunday of the month, 22:00 for 6h, UTC",
	} {
		if got := windowOf(t, window).String(); got != want {
			t.Errorf("%s: %q, want %q", window, got, want)
		}
	}
	if got := (Window{}).String(); !strings.HasPrefix(got, "no window: ") {
		t.Errorf("no window is %q", got)
	}
}

func TestWindowsKeepTheirFormInFiles(t *testing.T) {
	for _, text := range []string{
		`{once: 2026-12-01T22:00, for: 4h, zone: agent}`,
		`{once: 2026-12-01T22:00:00+01:00, for: 4h}`,
		`{name: night, daily: 1, at: "02:00", for: 3h}`,
		`{weekly: [sat, sun], every: 2, from: 2026-12-01, until: 2027-12-01, at: "02:00", for: 4h}`,
		`{monthly: 15, at: 02:00, for: 4h}`,
		`{monthly: last, at: 22:00, for: 4h}`,
		`{nth: 2 tue, plus: 3, at: "22:00", for: 6h}`,
	} {
		want := windowOf(t, text)
		inYAML, err := yaml.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, windowOf(t, string(inYAML)), byFields); diff != "" {
			t.Errorf("%s, written %s: %s", text, inYAML, diff)
		}
		inJSON, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Window
		if err := json.Unmarshal(inJSON, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, byFields); diff != "" {
			t.Errorf("%s, written %s: %s", text, inJSON, diff)
		}
	}
	inJSON, err := json.Marshal(windowOf(t, `{monthly: 15, at: "02:00", for: 4h}`))
	if want := `{"monthly":"15","at":"02:00","for":"4h"}`; err != nil || string(inJSON) != want {
		t.Errorf("as JSON %s, %v, want %s", inJSON, err, want)
	}
}

func TestDurationsAreWrittenShort(t *testing.T) {
	for in, want := range map[string]string{"4h": "4h", "90m": "1h30m", "20m": "20m", "90s": "1m30s", "0": "0s", "1h0m5s": "1h0m5s", "100h": "100h", "10m": "10m", "500ms": "500ms"} {
		var d, again Duration
		if err := d.UnmarshalText([]byte(in)); err != nil || d.String() != want {
			t.Errorf("%s is written %s, %v", in, d, err)
		}
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%s read again is %s, %v", d, again, err)
		}
	}
}

// checkDaily says what every zone must keep: one opening for each date that exists, in order, at its wall time, or,
// where clocks skip that, when they are set; and as long as it should be.
func checkDaily(t testing.TB, w Window, loc *time.Location, from time.Time, days int) {
	t.Helper()
	at := w.Next(from, loc)
	opened := wall(-1)
	for range days {
		now := wall(at.Unix() + offsetAt(loc, at.Unix()))
		was := wall(at.Unix() - 1 + offsetAt(loc, at.Unix()-1))
		// The wall time that it belongs to: the one shown, or the last one skipped.
		midnight := wall(now.date()) * dayLength
		hour, minute := int(w.At[0]-'0')*10+int(w.At[1]-'0'), int(w.At[3]-'0')*10+int(w.At[4]-'0')
		nominal := midnight + wall(hour*60*60+minute*60)
		if nominal > now {
			nominal -= dayLength
		}
		if nominal != now && nominal <= was {
			t.Fatalf("%s in %s: it opens at %s, which is not its time", w, loc, at)
		}
		if nominal <= opened {
			t.Fatalf("%s in %s: it opens again at %s", w, loc, at)
		}
		if opened >= 0 && nominal != opened+dayLength {
			if _, exists := (opened + dayLength).in(loc); exists {
				t.Fatalf("%s in %s: it does not open between %s and %s", w, loc, opened.text(minutesLayout), at)
			}
		}
		opened = nominal
		if s := Openings([]Window{w}, loc, at, 1); len(s) != 1 || !s[0].From.Equal(at) || s[0].Length() != time.Duration(w.For) {
			t.Fatalf("%s in %s: the span from %s is %v", w, loc, at, s)
		}
		next := w.Next(at, loc)
		if !next.After(at) {
			t.Fatalf("%s in %s: after %s it opens at %s", w, loc, at, next)
		}
		at = next
	}
}

func TestDailyWindowsWhileClocksAreSetInEveryZone(t *testing.T) {
	from := 2020
	if testing.Short() {
		from = 2026
	}
	for _, name := range zoneNamesOf(t) {
		loc := zoneOf(t, name)
		for _, c := range changes(loc, from, 2029) {
			inGap := wall((c.at*2 + c.before + c.after) / 2).text("15:04")
			for _, at := range []string{"02:30", inGap} {
				w := Window{Daily: 1, At: at, For: Duration(3 * time.Hour), Zone: ZoneAgent}
				checkDaily(t, w, loc, time.Unix(c.at, 0).Add(-36*time.Hour), 3)
			}
		}
	}
}

func TestDailyWindowsOfAnyTimeInAnyZone(t *testing.T) {
	zones, of := everyZone(t)
	rapid.Check(t, func(rt *rapid.T) {
		loc, start := drawAround(rt, zones, of)
		at := wall(rapid.IntRange(0, 24*60-1).Draw(rt, "minute") * 60)
		length := rapid.IntRange(5, 22*60).Draw(rt, "length") // shorter than any day, so that they do not merge
		w := Window{Daily: 1, At: at.text("15:04"), For: Duration(length) * Duration(time.Minute), Zone: ZoneAgent}
		checkDaily(t, w, loc, start, 6)
	})
}

func FuzzWindowInYAML(f *testing.F) {
	for _, s := range []string{
		`{once: 2026-12-01T22:00, for: 4h, zone: agent}`, `{daily: 2, from: 2026-12-01, at: "02:00", for: 3h}`,
		`{weekly: [sat, sun], every: 2, from: 2026-12-01, at: "02:00", for: 4h}`, `{monthly: last, at: 02:00, for: 4h}`,
		`{nth: 5 tue, plus: 3, at: "22:00", for: 6h}`, `{monthly: 29, every: 12, from: 2028-02-01, at: "02:00", for: 23h59m}`,
	} {
		f.Add(s)
	}
	oslo := zoneOf(f, "Europe/Oslo")
	now := time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		w, err := readWindow(s)
		if err != nil || len(s) > 1000 {
			return
		}
		if w.Validate() != nil {
			return
		}
		text, err := yaml.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(w, windowOf(t, string(text)), byFields); diff != "" {
			t.Fatalf("%q, written %q: %s", s, text, diff)
		}
		first := w.Next(now, oslo)
		if first.IsZero() {
			return
		}
		if second := w.Next(first, oslo); !first.After(now) || !second.IsZero() && !second.After(first) {
			t.Fatalf("%q opens at %s, then at %s", s, first, second)
		}
		if fit := Fits([]Window{w}, oslo, first, time.Duration(w.For)); !fit.Open {
			t.Fatalf("%q is not open when it opens: %+v", s, fit)
		}
	})
}
