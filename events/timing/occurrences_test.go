package timing

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func wall(t testing.TB, s string) *calendar.Moment {
	t.Helper()
	m, err := calendar.ParseMoment(s)
	if err != nil {
		t.Fatal(err)
	}
	return &m
}

func utc(s string) time.Time {
	at, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		panic(err) // the test says it wrong
	}
	return at
}

func TestWhichOccurrencesAreDue(t *testing.T) {
	oslo := zone(t, "Europe/Oslo")
	nightly := order.Assignment{Cron: "30 2 * * *"}
	for name, c := range map[string]struct {
		zone        calendar.Zone
		assignments []order.Assignment
		available   *calendar.Moment
		opened      map[int]int64
		heard, now  string
		want        []Opening
	}{
		"nothing before the first time":          {assignments: []order.Assignment{nightly}, heard: "2026-12-01 03:00", now: "2026-12-02 02:29"},
		"the time that has come":                 {assignments: []order.Assignment{nightly}, heard: "2026-12-01 03:00", now: "2026-12-02 02:30", want: []Opening{{0, utc("2026-12-02 02:30").Unix(), utc("2026-12-02 02:30")}}},
		"missed three times, the newest":         {assignments: []order.Assignment{nightly}, heard: "2026-12-01 03:00", now: "2026-12-04 09:00", want: []Opening{{0, utc("2026-12-04 02:30").Unix(), utc("2026-12-04 02:30")}}},
		"not what was opened":                    {assignments: []order.Assignment{nightly}, opened: map[int]int64{0: utc("2026-12-04 02:30").Unix()}, heard: "2026-12-01 03:00", now: "2026-12-04 09:00"},
		"not what came before it was heard of":   {assignments: []order.Assignment{nightly}, heard: "2026-12-04 03:00", now: "2026-12-04 09:00"},
		"nothing before it is available":         {assignments: []order.Assignment{nightly, {ASAP: true}}, available: wall(t, "2026-12-05T00:00"), heard: "2026-12-01 03:00", now: "2026-12-04 09:00"},
		"as soon as possible, once":              {assignments: []order.Assignment{{ASAP: true}, nightly}, heard: "2026-12-01 03:00", now: "2026-12-01 03:00", want: []Opening{{0, 1, utc("2026-12-01 03:00")}}},
		"as soon as possible, not again":         {assignments: []order.Assignment{{ASAP: true}, nightly}, opened: map[int]int64{0: 1}, heard: "2026-12-01 03:00", now: "2026-12-01 04:00"},
		"two times that passed, the older first": {assignments: []order.Assignment{{At: wall(t, "2026-12-03T08:00")}, {At: wall(t, "2026-12-02T08:00")}}, heard: "2026-12-01 03:00", now: "2026-12-04 00:00", want: []Opening{{1, utc("2026-12-02 08:00").Unix(), utc("2026-12-02 08:00")}, {0, utc("2026-12-03 08:00").Unix(), utc("2026-12-03 08:00")}}},
		"logons are no matter of time":           {assignments: []order.Assignment{{Logon: true}, {Logoff: true}}, heard: "2026-12-01 03:00", now: "2026-12-04 00:00"},
		"nobody's assignment":                    {heard: "2026-12-01 03:00", now: "2026-12-04 00:00"},
		"02:30 where clocks skip it, at 03:00":   {zone: "Europe/Oslo", assignments: []order.Assignment{nightly}, heard: "2026-03-28 12:00", now: "2026-03-29 01:00", want: []Opening{{0, utc("2026-03-29 03:00").Unix(), utc("2026-03-29 01:00")}}},
		"02:30 where clocks show it twice":       {zone: "Europe/Oslo", assignments: []order.Assignment{nightly}, heard: "2026-10-24 12:00", now: "2026-10-25 00:30", want: []Opening{{0, utc("2026-10-25 02:30").Unix(), utc("2026-10-25 00:30")}}},
		"02:30 for the second time that night":   {zone: "Europe/Oslo", assignments: []order.Assignment{nightly}, opened: map[int]int64{0: utc("2026-10-25 02:30").Unix()}, heard: "2026-10-24 12:00", now: "2026-10-25 01:30"},
		"29 February, in a year that has it":     {assignments: []order.Assignment{{Cron: "0 2 29 2 *"}}, heard: "2027-01-01 00:00", now: "2028-03-01 00:00", want: []Opening{{0, utc("2028-02-29 02:00").Unix(), utc("2028-02-29 02:00")}}},
		"29 February, in a year that has none":   {assignments: []order.Assignment{{Cron: "0 2 29 2 *"}}, heard: "2027-01-01 00:00", now: "2027-12-01 00:00"},
	} {
		t.Run(name, func(t *testing.T) {
			o := order.Order{Zone: c.zone, Assignments: c.assignments, Available: c.available, NotAfter: utc("2030-01-01 00:00")}
			got := Due(o, Machine{ID: "agent0001", Zone: oslo}, c.opened, utc(c.heard), utc(c.now))
			if diff := cmp.Diff(c.want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A laptop takes its nightly run from Oslo to New York and back: the wall clock counts, and no night comes twice.
func TestAMachineThatTravelsRunsOncePerWallClockNight(t *testing.T) {
	oslo, york := zone(t, "Europe/Oslo"), zone(t, "America/New_York")
	o := order.Order{Zone: calendar.ZoneAgent, Assignments: []order.Assignment{{Cron: "0 2 * * *"}}, NotAfter: utc("2027-01-01 00:00")}
	opened := map[int]int64{}
	var got []string
	look := func(from, to string, loc *time.Location) {
		for at := utc(from); at.Before(utc(to)); at = at.Add(time.Minute) {
			for _, due := range Due(o, Machine{Zone: loc}, opened, utc("2026-12-01 12:00"), at) {
				opened[due.Assignment] = due.Occurrence
				got = append(got, time.Unix(due.Occurrence, 0).UTC().Format("2006-01-02 15:04")+" at "+at.Format("02 15:04"))
			}
		}
	}
	look("2026-12-01 12:00", "2026-12-02 03:00", oslo)
	look("2026-12-02 03:00", "2026-12-03 12:00", york) // still the evening of the first, and then the night again
	look("2026-12-03 12:00", "2026-12-05 12:00", oslo)
	want := []string{"2026-12-02 02:00 at 02 01:00", "2026-12-03 02:00 at 03 07:00", "2026-12-04 02:00 at 04 01:00", "2026-12-05 02:00 at 05 01:00"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhenAnOccurrenceStarts(t *testing.T) {
	at := order.Assignment{At: moment(4)}
	for name, c := range map[string]struct {
		assignment order.Assignment
		occurrence int64
		available  *calendar.Moment
		grace      time.Duration
		heard      time.Time
		want       time.Time
	}{
		"the machine was there":                         {assignment: at, heard: hour(0), want: hour(4)},
		"it was there, and grace is for who was not":    {assignment: at, grace: time.Hour, heard: hour(4).Add(late), want: hour(4)},
		"it came late":                                  {assignment: at, heard: hour(6), want: hour(6)},
		"it came late, and has its grace":               {assignment: at, grace: time.Hour, heard: hour(6), want: hour(7)},
		"by cron, its number is its time":               {assignment: order.Assignment{Cron: "0 10 * * *"}, occurrence: hour(2).Unix(), heard: hour(0), want: hour(2)},
		"by cron, it came late":                         {assignment: order.Assignment{Cron: "0 10 * * *"}, occurrence: hour(2).Unix(), grace: time.Hour, heard: hour(5), want: hour(6)},
		"as soon as possible is when it heard":          {assignment: order.Assignment{ASAP: true}, grace: time.Hour, heard: hour(3), want: hour(3)},
		"as soon as possible is not before available":   {assignment: order.Assignment{ASAP: true}, available: moment(5), heard: hour(3), want: hour(5)},
		"a time before it is available is at available": {assignment: at, available: moment(6), grace: time.Hour, heard: hour(0), want: hour(6)},
	} {
		t.Run(name, func(t *testing.T) {
			o := order.Order{Deployment: "d", Available: c.available, Grace: events.Duration(c.grace), NotAfter: hour(100)}
			if got := StartOf(o, c.assignment, c.occurrence, Machine{ID: "agent0001"}, c.heard); !got.Equal(c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestJitterSpreadsStartsAndNeverPastTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		jitter := time.Duration(rapid.Int64Range(0, int64(order.MaxDelay)).Draw(t, "jitter"))
		left := time.Duration(rapid.Int64Range(1, int64(order.MaxDelay)).Draw(t, "left"))
		agent := rapid.StringMatching(`[a-z0-9]{8}`).Draw(t, "agent")
		o := order.Order{Deployment: "d", Jitter: events.Duration(jitter), NotAfter: t0.Add(left - order.ClockTolerance)}
		got := StartOf(o, order.Assignment{ASAP: true}, 0, Machine{ID: agent}, t0)
		if got.Before(t0) || jitter > 0 && !got.Before(t0.Add(jitter)) || !got.Before(Ends(o, Machine{ID: agent})) {
			t.Fatalf("jitter %s, %s left: starts at %s", jitter, left, got.Sub(t0))
		}
	})
	o := order.Order{Deployment: "d", Jitter: events.Duration(time.Hour), NotAfter: hour(100)}
	early, moved := 0, 0
	for i := range 1000 {
		m := Machine{ID: string(rune('a'+i%26)) + time.Duration(i).String()}
		first, second := StartOf(o, order.Assignment{ASAP: true}, 1, m, t0), StartOf(o, order.Assignment{ASAP: true}, 2, m, t0)
		if first.Sub(t0) < 6*time.Minute {
			early++
		}
		if !first.Equal(second) {
			moved++
		}
	}
	if early < 60 || early > 140 || moved < 990 {
		t.Errorf("%d of 1000 start in the first tenth, and %d at another minute next time", early, moved)
	}
}

// zones in which clocks have been set in every way there is.
var zones = []string{"UTC", "Europe/Oslo", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Cairo", "America/Santiago", "Asia/Gaza", "Pacific/Apia", "Africa/Casablanca", "Pacific/Kiritimati"}

// A machine that looks at any times, restarts and is away as it likes opens each occurrence at most once, in order, never
// before its time, and ends with the newest opened.
func TestNoOccurrenceIsOpenedTwiceNorIsTheNewestLost(t *testing.T) {
	locations := map[string]*time.Location{}
	for _, name := range zones {
		locations[name] = zone(t, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		m := Machine{ID: "agent0001", Zone: locations[rapid.SampledFrom(zones).Draw(t, "zone")]}
		expression := rapid.SampledFrom([]string{"30 2 * * *", "*/20 * * * *", "0 0 * * SAT", "0 2 29 2 *", "15 1,2,3 * * *", "@hourly"}).Draw(t, "cron")
		cron, err := calendar.ParseCron(expression)
		if err != nil {
			t.Fatal(err)
		}
		o := order.Order{Zone: calendar.ZoneAgent, Assignments: []order.Assignment{{Cron: expression}}, NotAfter: utc("2040-01-01 00:00")}
		heard := utc("2027-01-01 00:00").Add(time.Duration(rapid.IntRange(0, 2*366*24*60).Draw(t, "heard")) * time.Minute)
		opened, now, last := map[int]int64{}, heard, int64(0)
		for _, pause := range rapid.SliceOfN(rapid.IntRange(1, 5*24*60), 1, 60).Draw(t, "pauses") {
			now = now.Add(time.Duration(pause) * time.Minute)
			for _, due := range Due(o, m, opened, heard, now) {
				if due.Occurrence <= last || due.At.After(now) || !due.At.After(heard) {
					t.Fatalf("opens %d at %s after %d", due.Occurrence, now, last)
				}
				if start := StartOf(o, o.Assignments[0], due.Occurrence, m, now); start.After(now) {
					t.Fatalf("what is opened at %s starts at %s", now, start)
				}
				opened[0], last = due.Occurrence, due.Occurrence
			}
			if newest, ok := cron.Last(heard, now, m.Zone); ok && number(newest, m.Zone) > last {
				t.Fatalf("the newest firing before %s, %s, is lost", now, newest)
			}
			if again := Due(o, m, opened, heard, now); len(again) > 0 {
				t.Fatalf("due again at once: %v", again)
			}
			if next := NextDue(o, m, opened, now); !next.IsZero() {
				if found := Due(o, m, opened, heard, next); !next.After(now) || len(found) == 0 && number(next, m.Zone) > last {
					t.Fatalf("at %s, which was named at %s, nothing is due", next, now)
				}
			}
		}
	})
}

func TestWhenSomethingIsDueNext(t *testing.T) {
	o := order.Order{Assignments: []order.Assignment{{At: moment(4)}, {At: moment(2)}, {Logon: true}, {ASAP: true}}, NotAfter: hour(100)}
	m := Machine{ID: "agent0001"}
	all := map[int]int64{0: o.Assignments[0].Occurrence(), 1: o.Assignments[1].Occurrence(), 3: 1}
	without := func(changes ...int) map[int]int64 {
		some := map[int]int64{}
		for i, n := range all {
			if !slices.Contains(changes, i) {
				some[i] = n
			}
		}
		return some
	}
	if got := NextDue(o, m, without(0, 1), hour(0)); !got.Equal(hour(2)) {
		t.Errorf("the first is at %s", got)
	}
	if got := NextDue(o, m, without(0), hour(2)); !got.Equal(hour(4)) {
		t.Errorf("then %s", got)
	}
	if got := NextDue(o, m, all, hour(4)); !got.IsZero() {
		t.Errorf("in the end %s", got)
	}
	o.Available = moment(1)
	if got := NextDue(o, m, nil, hour(0)); !got.Equal(hour(1)) {
		t.Errorf("before it is available: %s", got)
	}
	o.Expires = moment(3)
	if got := NextDue(o, m, without(0), hour(2)); !got.IsZero() {
		t.Errorf("after the end: %s", got)
	}
}

func TestNumbersOfWhatNoTimeNamesGoWithTheOthers(t *testing.T) {
	o := order.Order{Zone: "Europe/Oslo"}
	if got, want := NumberAt(o, Machine{}, utc("2026-12-01 01:00")), utc("2026-12-01 02:00").Unix(); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}
