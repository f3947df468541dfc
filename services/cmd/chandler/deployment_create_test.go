package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/manifest"
	"chandler/events/order"
)

// helloFleet has its trust, one package and one collection.
func helloFleet(t *testing.T) *fakeFleet {
	t.Helper()
	f := newFakeFleet(t)
	if code, _, stderr := command(t, f.app, "", "trust", "init", "--fleet", "example"); code != 0 {
		t.Fatalf("trust init: exit code %d: %s", code, stderr)
	}
	hello := events.Program{Command: events.Command{Argv: []string{"sh", "hello.sh"}}, Run: events.RunAdministrative}
	f.publish(t, events.Manifest{API: manifest.API, Package: "hello", Version: "2.10-3", Programs: map[string]events.Program{"install": hello, "remove": hello}})
	f.set(func() {
		f.collection = events.CollectionView{Collection: events.Collection{Name: "office", Expression: `agent.os == "linux"`, Exclude: []string{"agent0002"}}, Members: []string{"agent0001"}}
	})
	return f
}

// signer is the context's.
func (f *fakeFleet) signer(t *testing.T) signer {
	t.Helper()
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(where, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.bus.Conn().Close()
	s, err := f.app.signer(t.Context(), c, &asking{app: f.app})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// publish puts the only package there is, signed by the context's key.
func (f *fakeFleet) publish(t *testing.T, m events.Manifest) {
	t.Helper()
	m.Published = testNow
	envelope, err := f.signer(t).seal(m)
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() {
		f.packages = []events.PackageInfo{{Digest: events.DigestOf(envelope), Manifest: m, Envelope: envelope}}
	})
}

var createHello = []string{"deployment", "create", "hello-everywhere", "--package", "hello", "--program", "install", "--to", "office"}

func TestADeploymentIsSignedAsAgentsWillReadIt(t *testing.T) {
	f := helloFleet(t)
	code, _, stderr := command(t, f.app, "", append(createHello, "--deadline", "+24h", "--expires", "2026-12-24T12:00 Europe/Oslo", "--rerun", "never")...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, says := range []string{"1 machine now", `target agent.os == "linux"`, "excluded: 1 agent (list " + order.ListDigest([]string{"agent0002"}) + "): agent0002\n"} {
		if !strings.Contains(stderr, says) {
			t.Errorf("it does not say %q: %s", says, stderr)
		}
	}
	if strings.Contains(stderr, "included") {
		t.Errorf("it tells of a list that is not there: %s", stderr)
	}
	s := f.signer(t)
	got, _, err := order.Verify(f.sent().Envelope, s.trust, testNow)
	if err != nil {
		t.Fatal(err)
	}
	want := order.Order{
		Format: order.Format, Fleet: s.trust.Fleet, Deployment: "hello-everywhere", Revision: 1, Package: "hello", Version: "2.10-3", Manifest: f.packages[0].Digest,
		Program: "install", Run: events.RunAdministrative, Collection: "office", Expression: `agent.os == "linux"`, ExcludeDigest: order.ListDigest([]string{"agent0002"}),
		Assignments: []order.Assignment{{At: new(calendar.At(testNow.Add(24 * time.Hour)))}}, Expires: new(calendar.At(time.Date(2026, 12, 24, 11, 0, 0, 0, time.UTC))),
		Rerun: order.RerunNever, Issued: testNow, NotAfter: testNow.Add(order.DefaultValidity),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"agent0002"}, f.sent().Exclude); diff != "" {
		t.Error(diff)
	}
}

func TestWhatMustNotBeSentIsNotSent(t *testing.T) {
	many := make([]string, confirmAbove)
	for name, c := range map[string]struct {
		change func(*fakeFleet)
		args   []string
		code   int
		says   string
	}{
		"a dry run":                           {args: []string{"--dry-run"}, says: "1 machine now"},
		"a program that is not there":         {args: []string{"--program", "instal"}, code: 1, says: "install, remove"},
		"a package that is not there":         {args: []string{"--package", "goodbye"}, code: 1, says: "--package"},
		"a deadline after the signature ends": {args: []string{"--deadline", "+91d"}, code: 1, says: "--valid"},
		"a deadline in the past":              {args: []string{"--deadline", "2026-12-01T07:59:59Z"}, code: 1, says: "--deadline lies in the past"},
		"an expiry in the past":               {args: []string{"--expires", "2026-12-01T07:59:59Z"}, code: 1, says: "--expires lies in the past"},
		"an expiry before it is available":    {args: []string{"--available", "+2d", "--expires", "+1d"}, code: 1, says: "--expires: lies before available"},
		"no validity":                         {args: []string{"--valid", "0d"}, code: 1, says: "--valid"},
		"an expiry before the deadline":       {args: []string{"--deadline", "+2d", "--expires", "+1d"}, code: 1, says: "expires"},
		"a time without a zone":               {args: []string{"--available", "2026-12-01T08:00"}, code: 1, says: "zone"},
		"at logoff, with users logged on":     {args: []string{"--at", "logoff"}, code: 1, says: "logon: none"},
		"an unknown rerun":                    {args: []string{"--rerun", "sometimes"}, code: 1, says: "if-failed"},
		"another collection than asked for":   {change: func(f *fakeFleet) { f.collection.Name = "everybody" }, code: 1, says: "answered with everybody"},
		"very many machines, not confirmed":   {change: func(f *fakeFleet) { f.collection.Members = many }, code: 1, says: "--yes"},
		"a name that is taken": {change: func(f *fakeFleet) {
			f.deployment = &events.DeploymentView{DeploymentNotice: events.DeploymentNotice{Revision: 4}, Life: events.LifeActive}
		}, code: 1, says: "--revise"},
		"an expression agents could not read": {change: func(f *fakeFleet) { f.collection.Expression = "agent." }, code: 1, says: "expression"},
	} {
		t.Run(name, func(t *testing.T) {
			f := helloFleet(t)
			if c.change != nil {
				f.set(func() { c.change(f) })
			}
			code, _, stderr := command(t, f.app, "", append(createHello, c.args...)...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, %s; want %d and %q", code, stderr, c.code, c.says)
			}
			if f.sent() != nil {
				t.Error("it was sent")
			}
		})
	}
}

func TestMistakesOnTheCommandLineAreToldBeforeAnybodyIsAsked(t *testing.T) {
	a := testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()})
	store, err := a.contexts()
	if err != nil {
		t.Fatal(err)
	}
	if err := store.save(connection{Name: "nowhere", Server: "nats://127.0.0.1:1", Caller: defaultCaller}); err != nil {
		t.Fatal(err)
	}
	for says, args := range map[string][]string{
		"the broker":              nil,
		"--rerun":                 {"--rerun", "sometimes"},
		"--valid":                 {"--valid", "soon"},
		"--at":                    {"--at", "noon"},
		"--available-only":        {"--available-only", "--deadline", "+1d"},
		"no assignments":          {"--available-only", "--at", "logon"},
		"--at: assignment 2":      {"--at", "logon", "--at", "logon"},
		"--phase: ":               {"--phase", "a=5%", "--phase", "b=100%"},
		"--with-rollback: ":       {"--with-rollback", "remove"},
		"lies before available":   {"--available", "+3d", "--expires", "+2d"},
		"lies before the deadli":  {"--deadline", "+3d", "--expires", "+2d"},
		"longer validity":         {"--deadline", "+30d", "--valid", "7d"},
		"NAME=1%":                 {"--phase", "canary"},
		"adds nobody":             {"--phase", "a=5%,advance=approval", "--phase", "b=4%"},
		"advance-when":            {"--phase", "a=5%", "--phase", "b=100%"},
		"unknown zone":            {"--zone", "europe/oslo"},
		"uninstall, or a program": {"--with-rollback", "remove"},
		"said by one of them":     {"--phases", "x", "--phase", "a=5%"},
		"--deadline":              {"--deadline", "yesterday"},
		"--package":               {"--package", "Hello World"},
		"--to":                    {"--to", "a.b"},
		"--program":               {"--program", "*"},
		"--available":             {"--available", "2026-12-01T08:00"},
	} {
		code, _, stderr := command(t, a, "", append(append([]string{"--context", "nowhere"}, createHello...), args...)...)
		if code != 1 || !strings.Contains(stderr, says) || len(args) > 0 && strings.Contains(stderr, "the broker") {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
}

// republish puts the package hello with another program install.
func (f *fakeFleet) republish(t *testing.T, change func(*events.Program)) {
	t.Helper()
	m := f.packages[0].Manifest
	p := m.Programs["install"]
	change(&p)
	m.Programs = map[string]events.Program{"install": p}
	f.publish(t, m)
}

func TestAnOrderSaysWhenAndByWhomAProgramRuns(t *testing.T) {
	none := func(p *events.Program) { p.Logon, p.InstallationAccount = events.LogonNone, "corp-installer" }
	for name, c := range map[string]struct {
		change func(*events.Program)
		args   []string
		want   order.Assignment
		shown  []string // by a dry run
	}{
		"as soon as possible":          {func(*events.Program) {}, nil, order.Assignment{ASAP: true}, []string{"as soon as possible"}},
		"as soon as possible, said":    {func(*events.Program) {}, []string{"--at", "asap"}, order.Assignment{ASAP: true}, []string{"as soon as possible"}},
		"at no time in particular":     {func(*events.Program) {}, []string{"--at", ""}, order.Assignment{ASAP: true}, []string{"as soon as possible"}},
		"at logon, as the user":        {func(p *events.Program) { p.Run = events.RunUser }, []string{"--at", "logon"}, order.Assignment{Logon: true}, []string{"when a user logs on"}},
		"at logoff, by an account":     {none, []string{"--at", "logoff"}, order.Assignment{Logoff: true}, []string{"when the last user has logged off", "corp-installer"}},
		"at a deadline, by an account": {none, []string{"--deadline", "+24h"}, order.Assignment{At: new(calendar.At(testNow.Add(24 * time.Hour)))}, []string{"corp-installer"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := helloFleet(t)
			f.republish(t, c.change)
			code, stdout, stderr := command(t, f.app, "", slices.Concat(createHello, c.args, []string{"--dry-run"})...)
			for _, says := range c.shown {
				if code != 0 || !strings.Contains(stdout, says) {
					t.Errorf("dry run: exit code %d, %s %s; want %q", code, stdout, stderr, says)
				}
			}
			if code, _, stderr = command(t, f.app, "", append(createHello, c.args...)...); code != 0 || strings.Contains(stderr, "WARNING") {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			o, _, err := order.Open(f.sent().Envelope)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]order.Assignment{c.want}, o.Assignments); diff != "" {
				t.Error(diff)
			}
			if want := f.packages[0].Manifest.Programs["install"].InstallationAccount; o.InstallationAccount != want {
				t.Errorf("installation account %q, want %q", o.InstallationAccount, want)
			}
		})
	}
}

func TestAProgramThatNobodyMayBeLoggedOnForIsNotDeployedAtLogon(t *testing.T) {
	f := helloFleet(t)
	f.republish(t, func(p *events.Program) { p.Logon = events.LogonNone })
	for _, args := range [][]string{{"--at", "logon"}, {"--at", "logon", "--dry-run"}} {
		code, _, stderr := command(t, f.app, "", slices.Concat(createHello, args)...)
		if code != 1 || !strings.Contains(stderr, "agents would refuse it") || !strings.Contains(stderr, "has logon: none") {
			t.Errorf("%q: exit code %d: %s", args, code, stderr)
		}
	}
	if f.sent() != nil {
		t.Error("it was sent")
	}
}

func TestARevisionFollowsEveryOneThatSomebodyKnows(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fakeFleet)
		args   []string
		want   uint64
	}{
		"scheduling": {func(f *fakeFleet) { f.deployment = liveAt(4) }, []string{"--revise"}, 5},
		"a draft": {func(f *fakeFleet) {
			f.draft = &events.DraftView{DeploymentOrder: events.DeploymentOrder{DeploymentNotice: liveAt(6).DeploymentNotice}}
		}, nil, 7},
		"execution, which knows more than a scheduling that was restored": {func(f *fakeFleet) { f.deployment, f.progress = liveAt(4), &events.Progress{Revision: 9} }, []string{"--revise"}, 10},
		"execution alone": {func(f *fakeFleet) { f.progress = &events.Progress{Revision: 9} }, nil, 10},
		"whoever says it": {func(f *fakeFleet) { f.deployment = liveAt(4) }, []string{"--revision", "20"}, 20},
		"nobody":          {func(*fakeFleet) {}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := helloFleet(t)
			f.set(func() { c.change(f) })
			if code, _, stderr := command(t, f.app, "", append(createHello, c.args...)...); code != 0 {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			if got := f.sentRevision(t); got != c.want {
				t.Fatalf("got revision %d, want %d", got, c.want)
			}
			f.set(func() { f.deployment, f.draft, f.progress = nil, nil, nil }) // every service was restored
			if code, _, stderr := command(t, f.app, "", createHello...); code != 0 {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			if got := f.sentRevision(t); got != c.want+1 {
				t.Fatalf("after that, got revision %d, want %d", got, c.want+1)
			}
		})
	}
}

func liveAt(revision uint64) *events.DeploymentView {
	return &events.DeploymentView{DeploymentNotice: events.DeploymentNotice{Revision: revision}, Life: events.LifeActive}
}

func (f *fakeFleet) sentRevision(t *testing.T) uint64 {
	t.Helper()
	o, _, err := order.Open(f.sent().Envelope)
	if err != nil {
		t.Fatal(err)
	}
	return o.Revision
}

func TestAListIsShownBeforeItIsSigned(t *testing.T) {
	many := []string{"a1", "a2", "a3", "a4", "a5", "a6"}
	for want, list := range map[string][]string{
		"": nil,
		"1 agent (list " + order.ListDigest(many[:1]) + "): a1":                  many[:1],
		"5 agents (list " + order.ListDigest(many[:5]) + "): a1, a2, a3, a4, a5": many[:5],
		"6 agents (list " + order.ListDigest(many) + "): a1, a2, a3, a4, a5 …":   many,
	} {
		if got := listText(list); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestManyMachinesAskForTheNameTyped(t *testing.T) {
	for typed, sent := range map[string]bool{"hello-everywhere\n": true, "yes\n": false, "": false} {
		f := helloFleet(t)
		f.app.isTerminal = func(any) bool { return true }
		f.set(func() { f.collection.Members = make([]string, confirmAbove) })
		code, _, stderr := command(t, f.app, typed, createHello...)
		if sent != (f.sent() != nil) || sent != (code == 0) {
			t.Errorf("%q: sent %v, exit code %d: %s", typed, f.sent() != nil, code, stderr)
		}
	}
}

func TestAnAnswerThatIsNotWhatAPublisherSignedIsNotSigned(t *testing.T) {
	f := helloFleet(t)
	s := f.signer(t)
	right := f.packages[0]
	if _, err := checkFound(right, s.trust, "hello", "2.10-3"); err != nil {
		t.Fatal(err)
	}
	stranger, err := freshKey()
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := manifest.Seal(right.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := manifest.Seal(right.Manifest, stranger)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		found         events.PackageInfo
		name, version string
	}{
		"another digest":         {events.PackageInfo{Digest: events.DigestOf([]byte("another")), Envelope: right.Envelope}, "hello", ""},
		"another package":        {right, "goodbye", ""},
		"another version":        {right, "hello", "2.0"},
		"signed by nobody":       {events.PackageInfo{Digest: events.DigestOf(unsigned), Envelope: unsigned}, "hello", ""},
		"signed by a stranger":   {events.PackageInfo{Digest: events.DigestOf(foreign), Envelope: foreign}, "hello", ""},
		"no envelope, as of old": {events.PackageInfo{Digest: events.DigestOf(nil), Manifest: right.Manifest}, "hello", ""},
	} {
		if _, err := checkFound(c.found, s.trust, c.name, c.version); err == nil || !strings.Contains(err.Error(), "nothing was signed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
