package rehearsal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/target"
	"chandler/events/timing"
)

// t0 is a Tuesday.
var t0 = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// at is an instant by the hour of t0's day, and minutes.
func at(hour, minutes int) time.Time {
	return t0.Add(time.Duration(hour-8)*time.Hour + time.Duration(minutes)*time.Minute)
}

func limit(t testing.TB, s string) *events.Limit {
	t.Helper()
	var l events.Limit
	if err := l.UnmarshalText([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return &l
}

func moment(t time.Time) *calendar.Moment { return new(calendar.At(t)) }

// machines are linux ones of two sites, always there.
func machines(n int) (all []Machine) {
	for i := range n {
		all = append(all, Machine{LastSeen: t0, Facts: events.Facts{ID: fmt.Sprintf("agent%05d", i), Hostname: fmt.Sprintf("ws-%05d", i), OS: "linux", OSName: "debian",
			OSVersion: "12.7", Arch: "amd64", Site: []string{"oslo", "rome"}[i%2], Zone: "UTC", ClientKind: events.Advanced}})
	}
	return all
}

// everybody is an input that succeeds on every machine, within ten minutes.
func everybody(n int) Input {
	return Input{
		Order: order.Order{Format: order.Format, Fleet: "fleet", Deployment: "hello-everywhere", Revision: 1, Package: "hello", Version: "2.10-3", Manifest: events.DigestOf(nil),
			Program: "install", Run: events.RunAdministrative, Collection: "all", Expression: `agent.os == "linux"`, Rerun: order.RerunIfFailed,
			Assignments: []order.Assignment{{ASAP: true}}, Issued: t0, NotAfter: t0.Add(90 * 24 * time.Hour)},
		Program: events.Program{Run: events.RunAdministrative}, Bytes: 1000, Fleet: machines(n), Start: t0, Until: t0.Add(30 * 24 * time.Hour),
		Outcome: func(string, int) Result { return Result{Took: 10 * time.Minute} },
	}
}

func played(t testing.TB, in Input) Timeline {
	t.Helper()
	line, err := Run(in)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, n := range line.Totals {
		sum += n
	}
	if sum != len(line.Agents) || len(line.Agents)+line.Outside != len(in.Fleet) {
		t.Fatalf("%d machines: %d in the target, %d outside, %d in totals", len(in.Fleet), len(line.Agents), line.Outside, sum)
	}
	return line
}

// office is Monday to Friday, 08:00 to 16:00 UTC.
func office() (p Presence) {
	for day := range 5 {
		for h := 8; h < 16; h++ {
			hour := day*24 + h
			p[hour/8] |= 0x80 >> (hour % 8)
		}
	}
	return p
}

// daily is a window of three hours for everybody.
func daily(at string) []order.Windows {
	return []order.Windows{{Collection: "all", Expression: "true", Windows: []calendar.Window{{Daily: 1, At: at, For: calendar.Duration(3 * time.Hour)}}}}
}

func TestWhatHappensToOneMachine(t *testing.T) {
	type story struct {
		State   events.State
		Reason  events.Reason
		Waits   events.WaitingFor
		Started time.Time
		Never   string // how it begins
	}
	started := func(at time.Time) story { return story{State: events.Succeeded, Started: at} }
	job := events.JobID("hello-everywhere", 1, "agent00000", 0, "")
	lastTry := t0
	for attempt := range 4 {
		pause, _ := events.Transient.Retry().PauseFor(attempt+1, job)
		lastTry = lastTry.Add(time.Minute + pause)
	}
	for name, c := range map[string]struct {
		change func(*Input, *Machine)
		want   story
	}{
		"as soon as possible starts at once": {func(*Input, *Machine) {}, started(t0)},
		"a deadline is waited for": {func(in *Input, _ *Machine) {
			in.Order.Assignments = []order.Assignment{{At: moment(at(20, 0))}}
		}, started(at(20, 0))},
		"a machine that is off at the deadline starts when it is back and its grace is over": {func(in *Input, m *Machine) {
			m.Presence = office()
			in.Order.Assignments, in.Order.Grace = []order.Assignment{{At: moment(at(20, 0))}}, events.Duration(time.Hour)
		}, started(at(24+9, 0))},
		"a grace that ends when the machine is off is not given again": {func(in *Input, m *Machine) {
			m.Presence = office()
			in.Order.Assignments, in.Order.Grace = []order.Assignment{{At: moment(at(20, 0))}}, events.Duration(10*time.Hour)
		}, started(at(48+8, 0))},
		"a window that opens at night is waited for":         {func(in *Input, _ *Machine) { in.Order.Windows = daily("02:00") }, started(at(26, 0))},
		"a window that is told to be ignored is not":         {func(in *Input, _ *Machine) { in.Order.Windows, in.Order.IgnoreWindows = daily("02:00"), true }, started(t0)},
		"a window at noon is one that an office machine has": {func(in *Input, m *Machine) { in.Order.Windows, m.Presence = daily("12:00"), office() }, started(at(12, 0))},
		"a window at night is none that it has": {func(in *Input, m *Machine) { in.Order.Windows, m.Presence = daily("02:00"), office() },
			story{State: events.Waiting, Waits: events.WaitMaintenanceWindow, Never: "no maintenance window opens in the time played while it is there"}},
		"a window shorter than the program may run fails at once": {func(in *Input, _ *Machine) { in.Order.Windows, in.Need = daily("02:00"), 4*time.Hour },
			story{State: events.Failed, Reason: events.WindowNeverFits, Never: "failed: maintenance_window_never_fits: "}},
		"a window that opens after the end fails at once": {func(in *Input, _ *Machine) {
			in.Order.Windows, in.Order.Expires = daily("02:00"), moment(at(20, 0))
		}, story{State: events.Failed, Reason: events.WindowNeverFits, Never: "failed: maintenance_window_never_fits: "}},
		"what expires before the machine is back does not start": {func(in *Input, m *Machine) {
			m.Presence, in.Order.Expires = office(), moment(at(21, 0))
			in.Order.Assignments = []order.Assignment{{At: moment(at(20, 0))}}
		}, story{State: events.Expired, Reason: events.DeploymentExpired, Never: "the deployment ends before the program could start"}},
		"a program that ran does not run again": {func(_ *Input, m *Machine) { m.Last = timing.LastSucceeded },
			story{State: events.WillNotRerun, Reason: events.AlreadyRan, Never: "will_not_rerun: already_ran: "}},
		"a program that failed does": {func(_ *Input, m *Machine) { m.Last = timing.LastFailed }, started(t0)},
		"another platform rejects it": {func(in *Input, _ *Machine) { in.Program.Platforms = []events.Platform{{OS: "windows"}} },
			story{State: events.Rejected, Reason: events.PlatformUnsupported, Never: "rejected: platform_unsupported: "}},
		"a platform by name and version takes it": {func(in *Input, _ *Machine) {
			in.Program.Platforms = []events.Platform{{OS: "linux", Name: "Debian", MinVersion: "12", MaxVersion: "12.10"}}
		}, started(t0)},
		"a version is as precise as its bound": {func(in *Input, m *Machine) {
			in.Program.Platforms, m.Facts.OSVersion = []events.Platform{{OS: "linux", MaxVersion: "12"}}, "12.7 (bookworm)"
		}, started(t0)},
		"a version above the bound is rejected": {func(in *Input, m *Machine) {
			in.Program.Platforms, m.Facts.OSVersion = []events.Platform{{OS: "linux", MaxVersion: "12.6"}}, "12.7"
		}, story{State: events.Rejected, Reason: events.PlatformUnsupported, Never: "rejected: platform_unsupported: "}},
		"requirements that are not met reject it": {func(in *Input, _ *Machine) { in.Program.AppliesIf = `agent.arch == "arm64"` },
			story{State: events.Rejected, Reason: events.RequirementsNotMet, Never: "rejected: requirements_not_met: "}},
		"what never ran cannot be rolled back": {func(in *Input, _ *Machine) {
			in.Order.Rolls = &order.Rolls{Deployment: "other", Revision: 1, Package: "hello", Version: "2", Program: "install"}
		}, story{State: events.Rejected, Reason: events.NothingToRollBack, Never: "rejected: nothing_to_roll_back: "}},
		"a machine that is put away says nothing": {func(_ *Input, m *Machine) { m.LastSeen = t0.AddDate(0, 0, -15) },
			story{State: events.Offered, Never: "it is never there: not heard since 2026-11-16"}},
		"a machine without an identity fails": {func(in *Input, _ *Machine) {
			in.Identity = func(events.Facts) events.Reason { return events.NoNetworkIdentity }
		}, story{State: events.Failed, Reason: events.NoNetworkIdentity, Never: "failed: no_network_identity: "}},
		"a program that runs for too long fails": {func(in *Input, _ *Machine) { in.Program.MaxRunTime = events.Duration(5 * time.Minute) },
			story{State: events.Failed, Reason: events.RunTimeExceeded, Started: t0}},
		"a transient failure is tried five times": {func(in *Input, _ *Machine) {
			in.Outcome = func(string, int) Result { return Result{Took: time.Minute, Reason: events.DiskFull} }
		}, story{State: events.Failed, Reason: events.DiskFull, Started: lastTry}},
		"available to users alone, it waits for one": {func(in *Input, _ *Machine) { in.Order.Assignments = nil },
			story{State: events.Waiting, Waits: events.WaitAssignment, Never: "it waits for somebody at the machine to start it"}},
		"a program for every day runs each day": {func(in *Input, _ *Machine) {
			in.Order.Assignments, in.Order.Rerun, in.Until = []order.Assignment{{Cron: "0 20 * * *"}}, order.RerunAlways, t0.AddDate(0, 0, 3)
		}, started(at(48+20, 0))},
		"one that is never to run again runs once of several times": {func(in *Input, _ *Machine) {
			in.Order.Assignments, in.Order.Rerun = []order.Assignment{{At: moment(at(10, 0))}, {At: moment(at(12, 0))}}, order.RerunNever
		}, started(at(10, 0))},
		"at logon counts as at once, also beside others": {func(in *Input, _ *Machine) {
			in.Order.Assignments = []order.Assignment{{Logon: true}, {At: moment(at(12, 0))}}
		}, started(t0)},
		"what is available later begins then": {func(in *Input, _ *Machine) { in.Order.Available = moment(at(13, 0)) }, started(at(13, 0))},
	} {
		t.Run(name, func(t *testing.T) {
			in := everybody(1)
			c.change(&in, &in.Fleet[0])
			a := played(t, in).Agents[0]
			got := story{a.State, a.Reason, a.Waits, a.Started, a.Never}
			if c.want.Never != "" && strings.HasPrefix(got.Never, c.want.Never) {
				got.Never = c.want.Never
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestInputThatNobodyWouldAccept(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Input)
		want   string
	}{
		"an order without a target":          {func(in *Input) { in.Order.Expression = "" }, "nobody"},
		"lists that the order does not bind": {func(in *Input) { in.Include = []string{"agent00001"} }, "binds"},
		"a plan without gates":               {func(in *Input) { in.Plan.Phases = []events.Phase{{Name: "a", Count: 1}, {Name: "b", Percent: 100}} }, "advance-when"},
		"a phase of an unknown collection":   {func(in *Input) { in.Plan.Phases = []events.Phase{{Name: "a", Collection: "pilots"}} }, "no collection pilots"},
		"applies-if that does not compile":   {func(in *Input) { in.Program.AppliesIf = "agent.nothing" }, "applies-if"},
		"an end before the beginning":        {func(in *Input) { in.Until = t0 }, "before it begins"},
		"nothing about outcomes":             {func(in *Input) { in.Outcome = nil }, "how programs end"},
	} {
		t.Run(name, func(t *testing.T) {
			in := everybody(1)
			c.change(&in)
			if _, err := Run(in); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestPhasesOpenByTheirGates(t *testing.T) {
	in := everybody(100)
	pilots, err := target.New(`agent.site == "rome"`, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	in.Collections = map[string]target.Target{"pilots": pilots}
	in.People = People{Approve: new(time.Hour), Signal: new(6 * time.Hour)}
	in.Plan.Phases = []events.Phase{
		{Name: "canary", Count: 3, AdvanceWhen: &events.Advance{Succeeded: limit(t, "95%"), For: events.Duration(24 * time.Hour)}},
		{Name: "pilots", Collection: "pilots", AdvanceWhen: &events.Advance{Succeeded: limit(t, "10"), Approval: true}},
		{Name: "half", Percent: 60, AdvanceWhen: &events.Advance{Event: &events.ExternalGate{Type: "com.example.passed", Subject: "hello"}}},
		{Name: "all", Percent: 100},
	}
	line := played(t, in)
	pilotsNew, half := line.Phases[1].Size, line.Phases[2].Size
	type phase struct {
		Name         string
		Opened, Left time.Duration
		Size         int
	}
	var got []phase
	for _, p := range line.Phases {
		got = append(got, phase{p.Name, p.Opened.Sub(t0), p.Left.Sub(t0), p.Size})
	}
	m := time.Minute
	want := []phase{{"canary", 0, 1450 * m, 3}, {"pilots", 1450 * m, 1520 * m, pilotsNew}, {"half", 1520 * m, 1880 * m, half}, {"all", 1880 * m, 1890 * m, 97 - pilotsNew - half}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if pilotsNew < 47 || pilotsNew > 50 || half < 20 || half > 40 || !line.Done.Equal(t0.Add(1890*m)) {
		t.Fatalf("%d pilots, %d in half; done %s", pilotsNew, half, line.Done)
	}
	// Without people it waits for the approval, and says so.
	in.People = People{}
	if line = played(t, in); line.Totals[NotReleased] != 97-pilotsNew || line.Phases[1].Says != "waits for somebody's approval (chandler deployment approve)" {
		t.Fatalf("%v; %s", line.Totals, line.Phases[1].Says)
	}
}

func TestBytesAreCountedBySiteAndHour(t *testing.T) {
	in := everybody(5)
	in.Plan.MaxInFlightPerSite = 1
	in.Outcome = func(string, int) Result { return Result{Took: 40 * time.Minute} }
	line := played(t, in)
	want := []SiteHour{{"oslo", at(8, 0), 2000}, {"oslo", at(9, 0), 1000}, {"rome", at(8, 0), 2000}}
	if diff := cmp.Diff(want, line.Sites); diff != "" {
		t.Fatal(diff)
	}
	hours := []Hour{{At: at(8, 0), Offered: 4, Started: 4, Succeeded: 2, Bytes: 4000}, {At: at(9, 0), Offered: 1, Started: 1, Succeeded: 2, Bytes: 1000}, {At: at(10, 0), Succeeded: 1}}
	if diff := cmp.Diff(hours, line.Hours); diff != "" || line.Most != 2 {
		t.Fatalf("%d in flight at most; %s", line.Most, diff)
	}
}

func TestRetriesKeepTheBudgetOfTheFleet(t *testing.T) {
	in := everybody(50)
	in.Limits.RetriesPerMinute = 10
	in.Outcome = func(_ string, attempt int) Result {
		if attempt == 1 {
			return Result{Took: time.Minute, Reason: events.SourceUnreachable}
		}
		return Result{Took: time.Minute}
	}
	line := played(t, in)
	starts := map[time.Time]int{}
	for _, a := range line.Agents {
		starts[a.Started.Truncate(time.Minute)]++
	}
	for minute, n := range starts {
		if n > 10 || minute.After(at(8, 7)) {
			t.Errorf("%d retries in the minute of %s", n, minute)
		}
	}
	if line.Retries != 50 || line.Totals[events.Succeeded] != 50 {
		t.Fatalf("%d retries; %v", line.Retries, line.Totals)
	}
}

func TestPresenceIsReadAndFollowed(t *testing.T) {
	p, err := ParsePresence("000001" + strings.Repeat("0", 36)) // Monday, 23:00
	if err != nil {
		t.Fatal(err)
	}
	m := Machine{LastSeen: t0, Presence: p}
	if got, want := m.there(t0, t0), time.Date(2026, 12, 7, 23, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Fatalf("got %s, want %s", got, want)
	}
	inside := time.Date(2026, 12, 7, 23, 59, 59, 0, time.UTC)
	if got := m.there(t0, inside); !got.Equal(inside) {
		t.Fatalf("got %s within the hour", got)
	}
	for _, bad := range []string{"00", strings.Repeat("x", 42), strings.Repeat("0", 44)} {
		if _, err := ParsePresence(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestHoursInWhichNobodyWasHeardAreUnknown(t *testing.T) {
	monday := func(hours ...int) (p Presence) {
		for _, h := range hours {
			p[h/8] |= 0x80 >> (h % 8)
		}
		return p
	}
	fleet := []Machine{{Presence: monday(8)}, {Presence: monday(9)}, {}}
	heard := Heard(fleet)
	if heard != monday(8, 9) || heard.hours() != 2 {
		t.Fatalf("heard in %d hours", heard.hours())
	}
	for hour, want := range map[int]bool{8: true, 9: false, 10: true} {
		if got := fleet[0].Presence.among(heard).in(hour); got != want {
			t.Errorf("the first is there in hour %d: %v", hour, got)
		}
	}
	if fleet[0].Presence.among(Presence{}) != fleet[0].Presence || fleet[2].Presence.among(heard) != (Presence{}) {
		t.Error("where nothing is known it stays so")
	}
}
