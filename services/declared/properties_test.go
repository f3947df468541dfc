package declared

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// text is anything that people write, and what YAML takes for something else.
func text() *rapid.Generator[string] {
	odd := []string{"", "2.10", "0x10", "1_000", "0o17", "1e3", ".inf", ".nan", "null", "~", "yes", "No", "on", "true", "- a", "a: b", "# a", "a # b", "{a}", "[a]", "&a", "*a", "!a", "|", ">", "%a", "@a", "`a",
		"'", "\"", "a\nb", "a\n", "\na", " a ", "\ta", "a\\b", "---", "...", "<<", "=", "?", "? a", ":", "a:", "12:30:45", "2026-12-01", "é 漢 🙂", "\u0085", "\u00a0", "\u2028", "\ufeff", "\u0007"}
	return rapid.OneOf(rapid.SampledFrom(odd), rapid.StringN(0, 20, 80), rapid.StringMatching(`[a-z0-9.:# -]{0,12}`))
}

func token() *rapid.Generator[string] {
	return rapid.OneOf(rapid.StringMatching(`[a-zA-Z0-9_-]{1,12}`), rapid.SampledFrom([]string{"null", "true", "No", "1e3", "0x10", "007", "12", "-1", "_", "-"})).
		Filter(func(s string) bool { return events.ValidToken(s) == nil })
}

func moments() *rapid.Generator[calendar.Moment] {
	return rapid.Custom(func(t *rapid.T) calendar.Moment {
		at := time.Unix(rapid.Int64Range(1_700_000_000, 2_000_000_000).Draw(t, "seconds"), 0).UTC()
		text := at.Format(rapid.SampledFrom([]string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339}).Draw(t, "form"))
		m, err := calendar.ParseMoment(text)
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

func zones() *rapid.Generator[calendar.Zone] {
	return rapid.SampledFrom([]calendar.Zone{"", "UTC", calendar.ZoneAgent, "Europe/Oslo", "America/Argentina/Buenos_Aires"})
}

func windows() *rapid.Generator[calendar.Window] {
	return rapid.Custom(func(t *rapid.T) calendar.Window {
		w := calendar.Window{Name: text().Draw(t, "name"), At: fmt.Sprintf("%02d:%02d", rapid.IntRange(0, 23).Draw(t, "hour"), rapid.IntRange(0, 59).Draw(t, "minute")),
			For: calendar.Duration(time.Duration(rapid.IntRange(5, 1439).Draw(t, "minutes")) * time.Minute), Zone: zones().Draw(t, "zone")}
		from := rapid.Bool().Draw(t, "from")
		if from {
			w.From = "2026-12-01"
		}
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			w = calendar.Window{Name: w.Name, Once: moments().Draw(t, "once"), For: w.For}
			if w.Once.Floating() {
				w.Zone = zones().Draw(t, "zone of once")
			}
		case 1:
			if w.Daily = 1; from {
				w.Daily = rapid.IntRange(1, 366).Draw(t, "daily")
			}
		case 2:
			w.Weekly = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"mon", "Saturday", "sun"}), 1, 3, rapid.ID).Draw(t, "weekly")
			if from {
				w.Every = rapid.IntRange(0, 52).Draw(t, "every")
			}
		case 3:
			w.Monthly = rapid.SampledFrom([]string{"1", "31", "last"}).Draw(t, "monthly")
		default:
			w.Nth, w.Plus = rapid.SampledFrom([]string{"2 tue", "last sunday"}).Draw(t, "nth"), rapid.IntRange(0, 27).Draw(t, "plus")
		}
		return w
	}).Filter(func(w calendar.Window) bool { return w.Validate() == nil })
}

func limits() *rapid.Generator[events.Limit] {
	return rapid.Custom(func(t *rapid.T) events.Limit {
		if rapid.Bool().Draw(t, "counted") {
			return events.Limit{Count: rapid.IntRange(1, 1_000_000).Draw(t, "count")}
		}
		return events.Limit{Percent: rapid.Float64Range(0, 100).Draw(t, "share")}
	})
}

func durations(most time.Duration) *rapid.Generator[events.Duration] {
	return rapid.Map(rapid.OneOf(rapid.Int64Range(0, int64(most)), rapid.Map(rapid.Int64Range(0, int64(most/time.Minute)), func(n int64) int64 { return n * int64(time.Minute) })),
		func(n int64) events.Duration { return events.Duration(n) })
}

// maybe is nil now and then.
func maybe[T any](t *rapid.T, what string, g *rapid.Generator[T]) *T {
	if !rapid.Bool().Draw(t, what+"?") {
		return nil
	}
	return new(g.Draw(t, what))
}

// phases are one to four of a plan, the shares rising.
func phases(t *rapid.T) (all []events.Phase) {
	n := rapid.IntRange(1, 4).Draw(t, "phases")
	for i := range n {
		p := events.Phase{Name: fmt.Sprintf("%s-%d", token().Draw(t, "phase"), i), MaxInFlight: rapid.IntRange(0, 9).Draw(t, "max")}
		switch rapid.IntRange(0, 2).Draw(t, "who") {
		case 0:
			p.Percent = float64(i)*10 + rapid.Float64Range(0.001, 9).Draw(t, "percent")
		case 1:
			p.Count = i*10 + rapid.IntRange(1, 9).Draw(t, "count")
		default:
			p.Collection = token().Draw(t, "collection")
		}
		if i < n-1 {
			p.AdvanceWhen = &events.Advance{Succeeded: maybe(t, "succeeded", limits()), For: durations(1000*time.Hour).Draw(t, "for"), Approval: true}
			if rapid.Bool().Draw(t, "event") {
				some := text().Filter(func(s string) bool { return s != "" })
				p.AdvanceWhen.Event = &events.ExternalGate{Type: some.Draw(t, "type"), Subject: some.Draw(t, "subject")}
			}
		}
		if failed := maybe(t, "failed", limits()); failed != nil {
			p.HaltWhen = &events.Halt{Failed: failed}
		}
		if share := limits().Draw(t, "silent"); share != (events.Limit{}) && rapid.Bool().Draw(t, "silence") {
			if p.HaltWhen == nil {
				p.HaltWhen = &events.Halt{}
			}
			p.HaltWhen.Silent = &events.Silence{Share: share, After: 1 + durations(1000*time.Hour).Draw(t, "after")}
		}
		all = append(all, p)
	}
	return all
}

func deployments() *rapid.Generator[Deployment] {
	return rapid.Custom(func(t *rapid.T) Deployment {
		d := Deployment{API: API, Deployment: token().Draw(t, "deployment"), Program: rapid.SampledFrom([]string{"hello@2.10-3/install", "a@1e3/b", "p@1:2~3/remove"}).Draw(t, "program"),
			Collection: token().Draw(t, "collection"), Available: maybe(t, "available", moments()), Zone: zones().Draw(t, "zone"), Expires: maybe(t, "expires", moments()),
			Purpose: rapid.SampledFrom([]string{"", PurposeRequired, PurposeAvailable}).Draw(t, "purpose"),
			Grace:   durations(order.MaxDelay).Draw(t, "grace"), Jitter: durations(order.MaxDelay).Draw(t, "jitter"),
			Rerun: rapid.SampledFrom([]order.Rerun{"", order.RerunNever, order.RerunAlways, order.RerunIfFailed, order.RerunIfSucceeded}).Draw(t, "rerun"), IgnoreWindows: rapid.Bool().Draw(t, "ignore"),
			RestartOutside: rapid.Bool().Draw(t, "outside"), Rollback: rapid.SampledFrom([]string{"", RollbackUninstall, "hello@2.9/install"}).Draw(t, "rollback"),
			Validity: Span(durations(200*24*time.Hour).Draw(t, "validity"))}
		if d.Purpose != PurposeAvailable {
			d.Deadline = maybe(t, "deadline", moments())
			some := rapid.SampledFrom([]Assignment{{At: AtASAP}, {At: AtLogon}, {At: AtLogoff}, {At: "2026-12-01T08:00"}, {At: "2026-12-01T08:00:00Z"}, {Cron: "0 2 * * SAT"}, {Cron: "*/5 * * * *"}})
			d.Assignments = rapid.SliceOfNDistinct(some, 0, 7, rapid.ID).Draw(t, "assignments")
		}
		d.MaxInFlight, d.MaxInFlightPerSite = rapid.IntRange(0, 9).Draw(t, "in flight"), rapid.IntRange(0, 9).Draw(t, "per site")
		if rapid.Bool().Draw(t, "phased") {
			d.Phases = phases(t)
		}
		if d.Rollback != "" && rapid.Bool().Draw(t, "rolls back") {
			d.OnHalt = events.OnHaltRollback
		}
		return d
	}).Filter(func(d Deployment) bool { return d.Check() == nil })
}

func collections() *rapid.Generator[Collection] {
	return rapid.Custom(func(t *rapid.T) Collection {
		return Collection{API: API, Collection: token().Draw(t, "collection"), Expression: fmt.Sprintf("agent.hostname != %q", rapid.StringMatching(`[ -~]{0,20}`).Draw(t, "host")),
			Include: rapid.SliceOfN(text().Filter(func(s string) bool { return s != "" }), 0, 3).Draw(t, "include"), Exclude: rapid.SliceOfN(token(), 0, 3).Draw(t, "exclude"),
			Windows: rapid.SliceOfN(windows(), 0, 3).Draw(t, "windows"), Comment: text().Draw(t, "comment")}
	}).Filter(func(c Collection) bool { return c.Check() == nil })
}

func packages() *rapid.Generator[Package] {
	return rapid.Custom(func(t *rapid.T) Package {
		p := Package{API: API, Package: rapid.SampledFrom([]string{"hello", "1e3", "null", "7zip"}).Draw(t, "package"), Version: rapid.SampledFrom([]string{"2.10", "1", "0x10", "1e3", "2.10-3", "1:2~rc1"}).Draw(t, "version"),
			Path: text().Draw(t, "path"), Manifest: rapid.SampledFrom([]string{"", events.DigestOf(nil)}).Draw(t, "manifest")}
		if p.Path != "" {
			p.Run = rapid.SampledFrom([]events.RunMode{"", events.RunUser, events.RunAdministrative}).Draw(t, "run")
		}
		return p
	}).Filter(func(p Package) bool { return p.Check() == nil })
}

// drawnSet is any set of documents.
func drawnSet(t *rapid.T) Set {
	s := Set{
		Packages:    rapid.SliceOfNDistinct(packages(), 0, 3, Package.Name).Draw(t, "packages"),
		Collections: rapid.SliceOfNDistinct(collections(), 0, 3, func(c Collection) string { return c.Collection }).Draw(t, "collections"),
		Deployments: rapid.SliceOfNDistinct(deployments(), 0, 3, func(d Deployment) string { return d.Deployment }).Draw(t, "deployments"),
	}
	if rapid.Bool().Draw(t, "limited") {
		bound := rapid.IntRange(0, 1_000_000)
		s.Limits = &Limits{API: API, Limits: FleetLimits{bound.Draw(t, "fleet"), bound.Draw(t, "site"), bound.Draw(t, "retries")}}
	}
	return s
}

func (s Set) documents() (all []any) {
	for _, p := range s.Packages {
		all = append(all, p)
	}
	for _, c := range s.Collections {
		all = append(all, c)
	}
	for _, d := range s.Deployments {
		all = append(all, d)
	}
	if s.Limits != nil {
		all = append(all, *s.Limits)
	}
	return all
}

func TestWhateverIsDeclaredIsReadAgainAsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawnSet(t)
		written, err := WriteAll(want.documents()...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse("written.yaml", written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if diff := cmp.Diff(want, got, byValue); diff != "" {
			t.Fatalf("%s\n%s", diff, written)
		}
	})
}

func TestEveryOrderIsItsDocuments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := deployments().Draw(t, "deployment")
		want, err := d.Order(issued)
		if err != nil {
			t.Fatal(err)
		}
		written, err := Write(OfOrder(want, &d.Plan, d.Rollback))
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("written.yaml", written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		got, err := again.Deployments[0].Order(issued)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, byValue); diff != "" {
			t.Fatalf("%s\n%s", diff, written)
		}
		if diff := cmp.Diff(d.Plan, again.Deployments[0].Plan, byValue); diff != "" || again.Deployments[0].Rollback != d.Rollback {
			t.Fatalf("%s\n%s", diff, written)
		}
	})
}
