package calendar

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

func zoneOf(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// instant reads RFC 3339; "" is the zero time.
func instant(t testing.TB, s string) time.Time {
	t.Helper()
	if s == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func moment(t testing.TB, s string) Moment {
	t.Helper()
	m, err := ParseMoment(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMomentsHaveOneSpelling(t *testing.T) {
	for name, c := range map[string]struct {
		in, want string
		floating bool
	}{
		"an instant in UTC stays":               {"2026-12-01T08:00:00Z", "2026-12-01T08:00:00Z", false},
		"an instant with offset is told in UTC": {"2026-12-01T08:00:00+01:00", "2026-12-01T07:00:00Z", false},
		"an instant keeps nanoseconds":          {"2026-12-01T08:00:00.123456789Z", "2026-12-01T08:00:00.123456789Z", false},
		"without seconds it floats":             {"2026-12-01T08:00", "2026-12-01T08:00", true},
		"with zero seconds it is the same":      {"2026-12-01T08:00:00", "2026-12-01T08:00", true},
		"with seconds it keeps them":            {"2026-12-01T08:00:30", "2026-12-01T08:00:30", true},
		"the first":                             {"1970-01-01T00:00", "1970-01-01T00:00", true},
		"the first instant":                     {"1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", false},
		"the last":                              {"9999-12-31T23:59:59", "9999-12-31T23:59:59", true},
		"29 February of a leap year":            {"2028-02-29T00:00", "2028-02-29T00:00", true},
	} {
		t.Run(name, func(t *testing.T) {
			m := moment(t, c.in)
			if m.String() != c.want || m.Floating() != c.floating || m.IsZero() {
				t.Fatalf("got %q, floating %v, none %v", m, m.Floating(), m.IsZero())
			}
			if again := moment(t, m.String()); again != m {
				t.Fatalf("read again it is %+v, was %+v", again, m)
			}
		})
	}
}

func TestWhatIsNoMomentIsRefused(t *testing.T) {
	for _, s := range []string{
		"", "now", "2026-12-01", "2026-12-01T8:00", "2026-12-01 08:00", "2026-12-01T08:00Z", "2026-12-01T08:00:00.5",
		"2026-12-01T24:00", "2026-12-01T08:60", "2026-12-01T08:00:60Z", "2027-02-29T08:00", "2026-13-01T08:00",
		"1969-12-31T23:59", "1970-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00Z",
		"2026-12-01T08:00:00,5Z", "2026-12-01T08:00:00+24:00", " 2026-12-01T08:00", "2026-12-01T08:00\n",
		"2026-12-01T08:00:00.0000000000000000000000000000000000000000001Z", strings.Repeat("2", 1<<16),
	} {
		m, err := ParseMoment(s)
		if err == nil {
			t.Errorf("%q was read as %s", s, m)
		} else if len(err.Error()) > 200 {
			t.Errorf("the error about %.20q… has %d characters", s, len(err.Error()))
		}
	}
}

func TestMomentsInZones(t *testing.T) {
	for name, c := range map[string]struct{ moment, zone, want string }{
		"an instant is itself everywhere":              {"2026-12-01T08:00:00Z", "Europe/Oslo", "2026-12-01T08:00:00Z"},
		"a floating one is the zone's":                 {"2026-12-01T08:00", "Europe/Oslo", "2026-12-01T07:00:00Z"},
		"summer has its own offset":                    {"2026-07-01T08:00", "Europe/Oslo", "2026-07-01T06:00:00Z"},
		"skipped: when the clocks are set":             {"2027-03-28T02:30", "Europe/Oslo", "2027-03-28T01:00:00Z"},
		"the end of what is skipped":                   {"2027-03-28T03:00", "Europe/Oslo", "2027-03-28T01:00:00Z"},
		"before what is skipped":                       {"2027-03-28T01:59:59", "Europe/Oslo", "2027-03-28T00:59:59Z"},
		"shown twice: the first":                       {"2026-10-25T02:30", "Europe/Oslo", "2026-10-25T00:30:00Z"},
		"after what is shown twice":                    {"2026-10-25T03:00", "Europe/Oslo", "2026-10-25T02:00:00Z"},
		"half an hour skipped":                         {"2026-10-04T02:15", "Australia/Lord_Howe", "2026-10-03T15:30:00Z"},
		"a skipped midnight":                           {"2026-09-06T00:10", "America/Santiago", "2026-09-06T04:00:00Z"},
		"two hours skipped":                            {"2027-03-28T02:30", "Antarctica/Troll", "2027-03-28T01:00:00Z"},
		"a skipped date: when the next begins":         {"2011-12-30T08:00", "Pacific/Apia", "2011-12-30T10:00:00Z"},
		"winter time that the zone data call negative": {"2027-03-28T01:30", "Europe/Dublin", "2027-03-28T01:00:00Z"},
		"a far year follows today's rules":             {"9999-07-01T08:00", "Europe/Oslo", "9999-07-01T06:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			got := moment(t, c.moment).In(zoneOf(t, c.zone))
			if !got.Equal(instant(t, c.want)) {
				t.Fatalf("got %s (%s), want %s", got, got.UTC().Format(time.RFC3339), c.want)
			}
		})
	}
}

func TestAMomentComesToTheWorldWithin26Hours(t *testing.T) {
	m := moment(t, "2026-12-01T08:00")
	if got := m.Earliest(); !got.Equal(instant(t, "2026-11-30T18:00:00Z")) {
		t.Errorf("earliest %s", got)
	}
	if got := m.Latest(); !got.Equal(instant(t, "2026-12-01T20:00:00Z")) {
		t.Errorf("latest %s", got)
	}
	m = moment(t, "2026-12-01T08:00:00Z")
	if !m.Earliest().Equal(m.Latest()) || !m.Latest().Equal(m.In(nil)) {
		t.Errorf("an instant comes at %s, %s", m.Earliest(), m.Latest())
	}
	for _, zone := range zoneNamesOf(t) {
		m := moment(t, "2026-07-01T08:00")
		if at := m.In(zoneOf(t, zone)); at.Before(m.Earliest()) || at.After(m.Latest()) {
			t.Errorf("%s: it comes at %s", zone, at)
		}
	}
}

func TestNoneIsNoMoment(t *testing.T) {
	var none Moment
	if !none.IsZero() || none.Floating() || none.String() != "" || !none.In(nil).IsZero() || !none.Earliest().IsZero() || !none.Latest().IsZero() {
		t.Errorf("the zero moment is %+v", none)
	}
	if At(time.Time{}) != none {
		t.Error("the zero time is a moment")
	}
	if m := At(time.Unix(0, 0)); m.IsZero() || m == none {
		t.Error("1970 is none")
	}
	at := time.Date(2026, 12, 1, 9, 0, 0, 7, time.FixedZone("", 3600))
	if got := At(at); got != At(at.UTC()) || !got.In(nil).Equal(at) {
		t.Errorf("At(%s) is %s", at, got)
	}
}

func TestMomentsAndCronInFiles(t *testing.T) {
	type file struct {
		At     Moment `json:"at,omitzero" yaml:"at,omitempty"`
		Absent Moment `json:"absent,omitzero" yaml:"absent,omitempty"`
		Cron   Cron   `json:"cron,omitzero" yaml:"cron,omitempty"`
		Never  Cron   `json:"never,omitzero" yaml:"never,omitempty"`
	}
	cron, err := ParseCron("0 2 * * SAT")
	if err != nil {
		t.Fatal(err)
	}
	want := file{At: moment(t, "2026-12-01T08:00"), Cron: cron}
	var fromYAML, fromJSON, again file
	if err := yaml.UnmarshalWithOptions([]byte("at: 2026-12-01T08:00:00\ncron: 0 2 * * SAT\n"), &fromYAML, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(text), `{"at":"2026-12-01T08:00","cron":"0 2 * * SAT"}`; got != want {
		t.Errorf("as JSON %s, want %s", got, want)
	}
	if err := json.Unmarshal(text, &fromJSON); err != nil {
		t.Fatal(err)
	}
	if text, err = yaml.Marshal(fromJSON); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]file{"from YAML": fromYAML, "from JSON": fromJSON, "from YAML again": again} {
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if err := json.Unmarshal([]byte(`{"at":"soon"}`), &fromJSON); err == nil || !strings.Contains(err.Error(), `moment "soon"`) {
		t.Errorf("soon is read with error %v", err)
	}
	var empty file
	if err := json.Unmarshal([]byte(`{"at":"","cron":""}`), &empty); err != nil || empty != (file{}) {
		t.Errorf("empty text is read as %+v, %v", empty, err)
	}
}

func FuzzParseMoment(f *testing.F) {
	for _, s := range []string{"2026-12-01T08:00", "2026-12-01T08:00:01", "2026-12-01T08:00:00.5+01:00", "", "9999-12-31T23:59:59Z"} {
		f.Add(s)
	}
	oslo := zoneOf(f, "Europe/Oslo")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMoment(s)
		if err != nil {
			if m != (Moment{}) {
				t.Fatalf("%q: error %v and %+v", s, err, m)
			}
			return
		}
		again, err := ParseMoment(m.String())
		if diff := cmp.Diff(m, again, cmp.AllowUnexported(Moment{})); err != nil || diff != "" {
			t.Fatalf("%q, written %s: %v %s", s, m, err, diff)
		}
		if at := m.In(oslo); at.Before(m.Earliest()) || at.After(m.Latest()) {
			t.Fatalf("%s comes to Oslo at %s", m, at)
		}
	})
}
