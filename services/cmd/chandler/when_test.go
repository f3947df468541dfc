package main

import (
	"strings"
	"testing"
	"time"
)

var testNow = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// testApp is an app of fixed time in a zone of its own, without a terminal.
func testApp(env map[string]string) *app {
	return &app{
		getenv: func(name string) string { return env[name] }, now: func() time.Time { return testNow }, zone: time.FixedZone("CET", 3600),
		isTerminal: func(any) bool { return false }, output: formTable, timeout: time.Second,
		self: installedSelf, agentSelf: installedAgent,
	}
}

func TestTimesAreUnambiguousOrRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want, refused string }{
		"RFC 3339 in UTC":                     {text: "2026-12-01T08:00:00Z", want: "2026-12-01T08:00:00Z"},
		"RFC 3339 with an offset":             {text: "2026-12-01T08:00:00+01:00", want: "2026-12-01T07:00:00Z"},
		"local with a zone":                   {text: "2026-12-01T08:00 Europe/Oslo", want: "2026-12-01T07:00:00Z"},
		"local with a space, seconds, a zone": {text: "2026-07-01 08:00:30 Europe/Oslo", want: "2026-07-01T06:00:30Z"},
		"local in UTC":                        {text: "2026-12-01T08:00 UTC", want: "2026-12-01T08:00:00Z"},
		"a span from now":                     {text: "+36h", want: "2026-12-02T20:00:00Z"},
		"days from now":                       {text: "+7d", want: "2026-12-08T08:00:00Z"},
		"local without a zone":                {text: "2026-12-01T08:00", refused: "has no zone"},
		"local with a space, without a zone":  {text: "2026-12-01 08:00", refused: "has no zone"},
		"this machine's zone":                 {text: "2026-12-01T08:00 Local", refused: "not known"},
		"an unknown zone":                     {text: "2026-12-01T08:00 Europe/Atlantis", refused: "not known"},
		"a time the clocks jump over":         {text: "2026-03-29T02:30 Europe/Oslo", refused: "does not exist"},
		"a day that is not":                   {text: "2026-02-30T08:00 UTC", refused: "write it as"},
		"a word":                              {text: "tomorrow", refused: "write it as"},
		"a span backwards":                    {text: "+-3h", refused: "span"},
		"nothing":                             {text: "", refused: "write it as"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseWhen(c.text, testNow)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("got %v, %v; want it refused: %s", got, err, c.refused)
				}
				return
			}
			if err != nil || got.Format(time.RFC3339) != c.want {
				t.Fatalf("got %v, %v; want %s", got, err, c.want)
			}
		})
	}
}

func TestSpansMayBeDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "0d": 0, "1h30m": 90 * time.Minute} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "90", "-1d", "-1h", "1.5d", "999999999d", "d"} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("%q was taken as %v", text, got)
		}
	}
}

func TestNumbersAndTimesForPeople(t *testing.T) {
	a := testApp(nil)
	for _, c := range []struct{ got, want string }{
		{count(0), "0"}, {count(999), "999"}, {count(9214), "9,214"}, {count(1234567), "1,234,567"}, {count(-100), "-100"}, {count(-1000), "-1,000"},
		{byteSize(1023), "1023 B"}, {byteSize(53_148), "51.9 KiB"}, {byteSize(5 << 30), "5.0 GiB"},
		{plural(1, "agent", "agents"), "1 agent"}, {plural(1200, "agent", "agents"), "1,200 agents"},
		{a.shortTime(testNow.Add(time.Hour)), "10:00"}, {a.shortTime(testNow.Add(22 * time.Hour)), "2026-12-02 07:00"},
		{a.ago(testNow.Add(-30 * time.Second)), "now"}, {a.ago(testNow.Add(-90 * time.Minute)), "1h ago"}, {a.ago(time.Time{}), "never"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func FuzzParseWhen(f *testing.F) {
	for _, s := range []string{"2026-12-01T08:00:00Z", "2026-12-01T08:00 Europe/Oslo", "+36h", "2026-03-29T02:30 Europe/Oslo"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseWhen(s, testNow)
		if err != nil {
			return
		}
		if got.Location() != time.UTC {
			t.Fatalf("%q is in %s", s, got.Location())
		}
		if !strings.HasPrefix(s, "+") && !strings.ContainsAny(s, "Zz+- ") {
			t.Fatalf("%q was taken without a zone", s)
		}
	})
}
