package calendar

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func windowsOf(t testing.TB, texts ...string) (ws []Window) {
	t.Helper()
	for _, text := range texts {
		ws = append(ws, windowOf(t, text))
	}
	return ws
}

func spanTexts(spans []Span) (out []string) {
	for _, s := range spans {
		out = append(out, fmt.Sprintf("%s for %s", s.From.Format("2006-01-02 15:04 -0700"), Duration(s.Length())))
	}
	return out
}

func TestOpenings(t *testing.T) {
	for name, c := range map[string]struct {
		windows    []string
		own, after string
		n          int
		want       []string
	}{
		"no windows have no openings": {nil, "UTC", "2026-12-01T00:00:00Z", 3, nil},
		"none were asked for":         {[]string{`{daily: 1, at: "02:00", for: 3h}`}, "UTC", "2026-12-01T00:00:00Z", 0, nil},
		"those to come": {[]string{`{daily: 1, at: "02:00", for: 3h}`}, "UTC", "2026-12-01T00:00:00Z", 2,
			[]string{"2026-12-01 02:00 +0000 for 3h", "2026-12-02 02:00 +0000 for 3h"}},
		"the one that is open": {[]string{`{daily: 1, at: "22:00", for: 6h}`}, "UTC", "2026-12-01T03:59:59Z", 1,
			[]string{"2026-11-30 22:00 +0000 for 6h"}},
		"not the one that ends now": {[]string{`{daily: 1, at: "22:00", for: 6h}`}, "UTC", "2026-12-01T04:00:00Z", 1,
			[]string{"2026-12-01 22:00 +0000 for 6h"}},
		"only so many as there are": {[]string{`{once: 2026-12-01T22:00, for: 4h}`}, "UTC", "2026-12-01T00:00:00Z", 5,
			[]string{"2026-12-01 22:00 +0000 for 4h"}},
		"overlapping ones are one": {[]string{`{weekly: [sat], at: "22:00", for: 4h}`, `{weekly: [sun], at: "01:00", for: 4h}`}, "UTC", "2026-12-01T00:00:00Z", 2,
			[]string{"2026-12-05 22:00 +0000 for 7h", "2026-12-12 22:00 +0000 for 7h"}},
		"touching ones are one, over midnight": {[]string{`{weekly: [sun], at: "00:00", for: 2h}`, `{weekly: [sat], at: "22:00", for: 2h}`}, "UTC", "2026-12-01T00:00:00Z", 1,
			[]string{"2026-12-05 22:00 +0000 for 4h"}},
		"one inside another adds nothing": {[]string{`{weekly: [sat], at: "10:00", for: 8h}`, `{weekly: [sat], at: "11:00", for: 1h}`}, "UTC", "2026-12-01T00:00:00Z", 1,
			[]string{"2026-12-05 10:00 +0000 for 8h"}},
		"a minute between them keeps them apart": {[]string{`{weekly: [sat], at: "10:00", for: 1h}`, `{weekly: [sat], at: "11:01", for: 1h}`}, "UTC", "2026-12-01T00:00:00Z", 2,
			[]string{"2026-12-05 10:00 +0000 for 1h", "2026-12-05 11:01 +0000 for 1h"}},
		"zones meet": {[]string{`{daily: 1, at: "02:00", for: 3h, zone: Europe/Oslo}`, `{daily: 1, at: "04:00", for: 1h}`}, "UTC", "2026-12-01T00:00:00Z", 1,
			[]string{"2026-12-01 02:00 +0100 for 4h"}},
		"a long weekend is one": {[]string{`{weekly: [sat, sun, mon], at: "00:00", for: 23h}`, `{weekly: [sat, sun], at: "22:00", for: 3h}`}, "UTC", "2026-12-06T12:00:00Z", 1,
			[]string{"2026-12-05 00:00 +0000 for 71h"}},
		"a window as long as the day on which clocks are set merges with itself": {[]string{`{daily: 1, at: "12:00", for: 23h, zone: agent}`}, "Europe/Oslo", "2027-03-26T12:00:00Z", 3,
			[]string{"2027-03-26 12:00 +0100 for 23h", "2027-03-27 12:00 +0100 for 46h", "2027-03-29 12:00 +0200 for 23h"}},
		"what is open for ever is cut and goes on": {[]string{`{daily: 1, from: 2026-12-01, at: "00:00", for: 12h}`, `{daily: 1, from: 2026-12-01, at: "12:00", for: 12h}`}, "UTC", "2026-12-01T00:00:00Z", 2,
			[]string{"2026-12-01 00:00 +0000 for 744h", "2027-01-01 00:00 +0000 for 744h"}},
		"what is cut inside a window goes on with its rest": {[]string{`{daily: 1, from: 2026-12-01, at: "00:00", for: 17h}`, `{daily: 1, from: 2026-12-01, at: "12:00", for: 17h}`}, "UTC", "2026-12-01T00:00:00Z", 2,
			[]string{"2026-12-01 00:00 +0000 for 749h", "2027-01-01 05:00 +0000 for 744h"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Openings(windowsOf(t, c.windows...), zoneOf(t, c.own), instant(t, c.after), c.n)
			if diff := cmp.Diff(c.want, spanTexts(got)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestFits(t *testing.T) {
	nightly, weekend := `{daily: 1, at: "22:00", for: 6h}`, `{weekly: [sat], at: "22:00", for: 12h}`
	for name, c := range map[string]struct {
		windows     []string
		now         string
		need        time.Duration
		open, never bool
		until, next string
		longest     time.Duration
	}{
		"without windows always":               {nil, "2026-12-01T12:00:00Z", time.Hour, true, false, "", "", 0},
		"with all the time left":               {[]string{nightly}, "2026-12-01T22:00:00Z", 6 * time.Hour, true, false, "2026-12-02T04:00:00Z", "", 6 * time.Hour},
		"with just the time left":              {[]string{nightly}, "2026-12-02T02:00:00Z", 2 * time.Hour, true, false, "2026-12-02T04:00:00Z", "", 6 * time.Hour},
		"with too little left: the next night": {[]string{nightly}, "2026-12-02T02:00:01Z", 2 * time.Hour, false, false, "2026-12-02T04:00:00Z", "2026-12-02T22:00:00Z", 6 * time.Hour},
		"before it opens":                      {[]string{nightly}, "2026-12-01T12:00:00Z", 2 * time.Hour, false, false, "", "2026-12-01T22:00:00Z", 6 * time.Hour},
		"the end is outside":                   {[]string{nightly}, "2026-12-02T04:00:00Z", 0, false, false, "", "2026-12-02T22:00:00Z", 6 * time.Hour},
		"what needs no time fits while open":   {[]string{nightly}, "2026-12-02T03:59:59Z", 0, true, false, "2026-12-02T04:00:00Z", "", 6 * time.Hour},
		"only the long night will do":          {[]string{nightly, weekend}, "2026-12-01T23:00:00Z", 8 * time.Hour, false, false, "2026-12-02T04:00:00Z", "2026-12-05T22:00:00Z", 12 * time.Hour},
		"120 minutes in 60 never fit":          {[]string{`{daily: 1, at: "02:00", for: 1h}`}, "2026-12-01T02:00:00Z", 2 * time.Hour, false, true, "2026-12-01T03:00:00Z", "", time.Hour},
		"but in two that touch":                {[]string{`{daily: 1, at: "02:00", for: 1h}`, `{weekly: [sat], at: "03:00", for: 1h}`}, "2026-12-01T02:00:00Z", 2 * time.Hour, false, false, "2026-12-01T03:00:00Z", "2026-12-05T02:00:00Z", 2 * time.Hour},
		"once and past is never":               {[]string{`{once: 2026-11-01T22:00, for: 4h}`}, "2026-12-01T12:00:00Z", time.Hour, false, true, "", "", 0},
		"once in eleven years":                 {[]string{`{once: 2037-11-01T22:00, for: 4h}`}, "2026-12-01T12:00:00Z", time.Hour, false, false, "", "2037-11-01T22:00:00Z", 4 * time.Hour},
		"once in thirteen years is never":      {[]string{`{once: 2039-12-02T22:00, for: 4h}`}, "2026-12-01T12:00:00Z", time.Hour, false, true, "", "", 0},
		"29 February is waited for": {[]string{`{monthly: 29, every: 12, from: 2020-02-01, at: "02:00", for: 4h}`, `{daily: 1, at: "02:00", for: 1h}`}, "2028-03-01T00:00:00Z",
			4 * time.Hour, false, false, "", "2032-02-29T02:00:00Z", 4 * time.Hour},
		"also where it merges with other days": {[]string{`{monthly: 29, every: 12, from: 2020-02-01, at: "03:00", for: 4h}`, `{daily: 1, at: "02:00", for: 1h}`}, "2028-03-01T00:00:00Z",
			5 * time.Hour, false, false, "", "2032-02-29T02:00:00Z", 5 * time.Hour},
		"never is known of it too": {[]string{`{monthly: 29, every: 12, from: 2020-02-01, at: "03:00", for: 4h}`, `{daily: 1, at: "02:00", for: 1h}`}, "2028-03-01T00:00:00Z",
			6 * time.Hour, false, true, "", "", 5 * time.Hour},
		"a nightly one that begins in five years": {[]string{`{daily: 1, at: "02:00", for: 1h}`, `{daily: 1, from: 2031-12-01, at: "03:00", for: 3h}`}, "2026-12-01T12:00:00Z",
			4 * time.Hour, false, false, "", "2031-12-01T02:00:00Z", 4 * time.Hour},
		"one that begins when the near look ends, east of UTC": {[]string{`{daily: 1, from: 2028-12-03, at: "00:00", for: 3h, zone: Asia/Tokyo}`}, "2026-12-01T12:00:00Z",
			time.Hour, false, false, "", "2028-12-02T15:00:00Z", 3 * time.Hour},
		"one that has ended":               {[]string{`{daily: 1, until: 2026-11-01, at: "02:00", for: 3h}`}, "2026-12-01T12:00:00Z", time.Hour, false, true, "", "", 0},
		"windows that are none never open": {[]string{`{}`}, "2026-12-01T12:00:00Z", time.Hour, false, true, "", "", 0},
		"the hour that clocks skip helps once a year": {[]string{`{daily: 1, at: "12:00", for: 23h, zone: Europe/Oslo}`}, "2026-12-01T12:00:00Z",
			40 * time.Hour, false, false, "2026-12-02T10:00:00Z", "2027-03-27T11:00:00Z", 46 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			var ws []Window
			for _, text := range c.windows {
				w, err := readWindow(text)
				if err != nil {
					t.Fatal(err)
				}
				ws = append(ws, w)
			}
			got := Fits(ws, nil, instant(t, c.now), c.need)
			want := Fit{Open: c.open, Until: instant(t, c.until), Next: instant(t, c.next), Never: c.never, Longest: c.longest}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestWhatIsAlwaysOpenIsOpenWheneverAsked(t *testing.T) {
	ws := windowsOf(t, `{daily: 1, at: "00:00", for: 14h, zone: Europe/Oslo}`, `{daily: 1, at: "12:00", for: 14h, zone: Europe/Oslo}`)
	now := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	for range 500 {
		now = now.Add(7 * time.Hour)
		if fit := Fits(ws, nil, now, 20*24*time.Hour); !fit.Open || fit.Never {
			t.Fatalf("at %s: %+v", now, fit)
		}
	}
}

func drawWindow(t *rapid.T) Window {
	w := Window{
		At:   wall(rapid.IntRange(0, 24*60-1).Draw(t, "minute") * 60).text("15:04"),
		For:  Duration(rapid.IntRange(5, 24*60-1).Draw(t, "length")) * Duration(time.Minute),
		Zone: rapid.SampledFrom([]Zone{"", ZoneAgent, "Europe/Oslo", "America/Santiago"}).Draw(t, "zone"),
	}
	days := []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		w.Daily = rapid.IntRange(1, 9).Draw(t, "daily")
	case 1:
		w.Weekly = rapid.SliceOfNDistinct(rapid.SampledFrom(days), 1, 7, rapid.ID[string]).Draw(t, "weekly")
		w.Every = rapid.IntRange(1, 3).Draw(t, "every")
	case 2:
		w.Monthly = fmt.Sprint(rapid.IntRange(1, 31).Draw(t, "monthly"))
		w.Every = rapid.IntRange(1, 2).Draw(t, "every")
	case 3:
		w.Nth = fmt.Sprintf("%d %s", rapid.IntRange(1, 5).Draw(t, "nth"), rapid.SampledFrom(days).Draw(t, "day"))
		w.Plus = rapid.IntRange(0, 27).Draw(t, "plus")
	}
	w.From = wall(rapid.IntRange(15_000, 20_000).Draw(t, "from") * dayLength).text(time.DateOnly)
	return w
}

// TestSpansAreTheUnionOfWindows compares with each window's openings, one by one.
func TestSpansAreTheUnionOfWindows(t *testing.T) {
	zones, of := everyZone(t)
	rapid.Check(t, func(t *rapid.T) {
		own, now := drawAround(t, zones, of)
		ws := rapid.SliceOfN(rapid.Custom(drawWindow), 1, 4).Draw(t, "windows")
		if slices.ContainsFunc(ws, func(w Window) bool { return w.Validate() != nil }) {
			t.Skip("a month without its day")
		}
		end := now.Add(20 * 24 * time.Hour)
		openAt := func(at time.Time) bool {
			return slices.ContainsFunc(ws, func(w Window) bool {
				opened := w.Next(at.Add(-time.Duration(w.For)), own)
				return !opened.IsZero() && !opened.After(at)
			})
		}
		spans := Openings(ws, own, now, 40)
		for i, s := range spans {
			if !s.To.After(now) || !s.From.Before(s.To) || i > 0 && s.From.Before(spans[i-1].To) {
				t.Fatalf("span %d of %v", i, spanTexts(spans))
			}
			if !openAt(s.From) || !openAt(s.To.Add(-1)) || s.Length() < longestSpan && openAt(s.To) {
				t.Fatalf("span %d of %v does not begin and end as the windows do", i, spanTexts(spans))
			}
		}
		for at := now; at.Before(end); at = at.Add(97 * time.Minute) {
			inside := slices.ContainsFunc(spans, func(s Span) bool { return !at.Before(s.From) && at.Before(s.To) })
			if covered := len(spans) == 40 && !at.Before(spans[39].To); !covered && inside != openAt(at) {
				t.Fatalf("at %s: inside %v, open %v, spans %v", at, inside, openAt(at), spanTexts(spans))
			}
		}
		checkFit(t, ws, own, now, spans, time.Duration(rapid.IntRange(0, 40).Draw(t, "need"))*time.Hour)
	})
}

// checkFit compares with the spans, as far as they reach.
func checkFit(t *rapid.T, ws []Window, own *time.Location, now time.Time, spans []Span, need time.Duration) {
	fit := Fits(ws, own, now, need)
	if fit.Open && (!fit.Next.IsZero() || fit.Never) || fit.Never != (!fit.Open && fit.Next.IsZero()) {
		t.Fatalf("contradictory: %+v", fit)
	}
	for _, s := range spans {
		open := !now.Before(s.From)
		if open && s.To.Sub(now) >= need {
			if !fit.Open || !fit.Until.Equal(s.To) {
				t.Fatalf("need %s at %s: %+v, but it is open: %v", need, now, fit, spanTexts(spans))
			}
			return
		}
		if !open && s.Length() >= need {
			if !fit.Next.Equal(s.From) {
				t.Fatalf("need %s at %s: %+v, but next is %s", need, now, fit, s.From)
			}
			return
		}
	}
	if len(spans) == 0 {
		if !fit.Never {
			t.Fatalf("need %s at %s: %+v, but nothing opens", need, now, fit)
		}
		return
	}
	if fit.Open || !fit.Next.IsZero() && fit.Next.Before(spans[len(spans)-1].To) {
		t.Fatalf("need %s at %s: %+v, but there is none in %v", need, now, fit, spanTexts(spans))
	}
}

func BenchmarkFits(b *testing.B) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	oslo := zoneOf(b, "Europe/Oslo")
	nightly := windowOf(b, `{daily: 1, at: "22:00", for: 6h, zone: agent}`)
	named := windowOf(b, `{daily: 1, at: "22:00", for: 6h, zone: Europe/Oslo}`)
	patch := windowOf(b, `{nth: 2 tue, plus: 3, at: "22:00", for: 6h, zone: agent}`)
	noon := windowOf(b, `{daily: 1, at: "04:00", for: 18h, zone: agent}`)
	for name, c := range map[string]struct {
		ws   []Window
		need time.Duration
	}{
		"tonight":                  {[]Window{nightly}, time.Hour},
		"tonight, a named zone":    {[]Window{named}, time.Hour},
		"never, one nightly":       {[]Window{nightly}, 7 * time.Hour},
		"never, nightly and patch": {[]Window{nightly, patch}, 13 * time.Hour},
		"always open":              {[]Window{nightly, noon}, 7 * time.Hour},
		"never, ten windows":       {slices.Concat(slices.Repeat([]Window{nightly}, 8), slices.Repeat([]Window{patch}, 2)), 13 * time.Hour},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Fits(c.ws, oslo, now, c.need)
			}
		})
	}
}

func BenchmarkNext(b *testing.B) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	oslo := zoneOf(b, "Europe/Oslo")
	for _, text := range []string{
		`{daily: 1, at: "22:00", for: 6h, zone: agent}`, `{weekly: [sat], at: "22:00", for: 6h, zone: agent}`,
		`{nth: 2 tue, plus: 3, at: "22:00", for: 6h, zone: agent}`, `{monthly: 29, every: 12, from: 2020-02-01, at: "22:00", for: 6h, zone: agent}`,
		`{daily: 1, at: "22:00", for: 6h, zone: Europe/Oslo}`,
	} {
		w := windowOf(b, text)
		b.Run(text, func(b *testing.B) {
			for b.Loop() {
				w.Next(now, oslo)
			}
		})
	}
}
