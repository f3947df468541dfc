package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/enrolment"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

func TestTheFirstTrustIsMadeWhereTheContextSays(t *testing.T) {
	f := newFakeFleet(t)
	dir := filepath.Join(t.TempDir(), "trust")
	if code, _, stderr := command(t, f.app, "", "trust", "init", "--fleet", "example", "--dir", dir); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	if where.TrustDir != dir || where.SigningKey != filepath.Join(dir, "deployer.key") {
		t.Errorf("the context names %s and %s", where.TrustDir, where.SigningKey)
	}
	if runtime.GOOS != "windows" {
		for name, want := range map[string]fs.FileMode{"": 0o700, "root-1.key": 0o600, "root-2.key": 0o600, "root-3.key": 0o600, "deployer.key": 0o600, "trust.json": 0o600} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
				t.Errorf("%q: %v, %v; want mode %o", name, info.Mode(), err, want)
			}
		}
	}
	b, err := trust.Begin(f.signer(t).trust.Roots.Fingerprint(), f.bundles)
	if err != nil {
		t.Fatal(err)
	}
	if b.Fleet != "example" || b.Version != 1 || b.Threshold != 1 || b.Roots.Threshold != 2 || len(b.Roots.Keys) != 3 || len(b.Keys) != 1 || len(b.Publishers) != 1 || b.Keys[0].Name != defaultCaller {
		t.Errorf("the first bundle is %+v", b)
	}
	if code, _, stderr := command(t, f.app, "", "trust", "init"); code != 1 || !strings.Contains(stderr, "has its keys already") {
		t.Errorf("a second time: exit code %d: %s", code, stderr)
	}
	f.set(func() { f.bundles = nil }) // the service was restored from before
	if code, _, stderr := command(t, f.app, "", "trust", "init"); code != 1 || !strings.Contains(stderr, "trust send") {
		t.Errorf("over the keys of a fleet: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := command(t, f.app, "", "trust", "send", filepath.Join(dir, "trust.json")); code != 0 || len(f.bundles) != 1 {
		t.Errorf("handed back: exit code %d, %d bundles: %s", code, len(f.bundles), stderr)
	}
}

func TestKeysThatTheFleetRefusedAreNotLeftBehind(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() { f.refuseTrust = bus.Conflict(fs.ErrExist) })
	if code, _, stderr := command(t, f.app, "", "trust", "init", "--fleet", "example"); code != 1 || !strings.Contains(stderr, "hand the trust bundle to the fleet") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := f.app.trustDir(where)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 || where.SigningKey != "" {
		t.Fatalf("left are %v, %v, and the context signs with %q", left, err, where.SigningKey)
	}
	f.set(func() { f.refuseTrust = nil })
	if code, _, stderr := command(t, f.app, "", "trust", "init", "--fleet", "example"); code != 0 {
		t.Fatalf("again: exit code %d: %s", code, stderr)
	}
}

func TestAnEncryptedKeySignsWithItsPassphrase(t *testing.T) {
	f := helloFleet(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"right": "correct horse\n", "wrong": "battery\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, right := filepath.Join(dir, "bob.key"), filepath.Join(dir, "right")
	code, public, stderr := command(t, f.app, "", "trust", "key", key, "--new", "--encrypt", "--passphrase-file", right)
	if code != 0 || !strings.Contains(public, "BEGIN PUBLIC KEY") {
		t.Fatalf("exit code %d: %s%s", code, public, stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "bob.pub"), []byte(public), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"trust", "add", "bob", "--key", filepath.Join(dir, "bob.pub")}, {"context", "add", localName, "--signing-key", key}} {
		if code, _, stderr := command(t, f.app, "", args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
	}
	for says, more := range map[string][]string{"--passphrase-file": nil, "does not fit": {"--passphrase-file", filepath.Join(dir, "wrong")}} {
		if code, _, stderr := command(t, f.app, "", append(createHello, more...)...); code != 1 || !strings.Contains(stderr, says) || f.sent() != nil {
			t.Errorf("%v: exit code %d: %s", more, code, stderr)
		}
	}
	if code, _, stderr := command(t, f.app, "", append(createHello, "--passphrase-file", right)...); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	b, err := trust.Open(f.bundles[len(f.bundles)-1])
	if err != nil {
		t.Fatal(err)
	}
	names, complete, err := order.Signed(f.sent().Envelope, b)
	if diff := cmp.Diff([]string{"bob"}, names); diff != "" || !complete || err != nil {
		t.Errorf("%s complete %v, %v", diff, complete, err)
	}
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	if found := f.app.examineKeys(where); found[len(found)-1].State != stateOK {
		t.Errorf("doctor says %+v", found)
	}
}

func TestWhoIsLeftBehindByATrustBundle(t *testing.T) {
	agent := func(version int, silent time.Duration) events.AgentView {
		return events.AgentView{Facts: events.Facts{ID: "agent0001", Trust: version}, LastSeen: testNow.Add(-silent)}
	}
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		agent events.AgentView
		says  string // empty: it gets it by itself
	}{
		"one that has the present one":                     {agent(3, time.Minute), ""},
		"one that has an older one, and was seen":          {agent(1, 89*day), ""},
		"one that has the present one, and is long away":   {agent(3, 400*day), ""},
		"one that has an older one, away for beyond grace": {agent(2, 91*day), "approve it"},
		"one that says of none, away for beyond grace":     {agent(0, 91*day), "approve it"},
		"one that is ahead of a service that was set back": {agent(4, time.Minute), "send it the newer ones first"},
	} {
		t.Run(name, func(t *testing.T) {
			got := leftBehind([]events.AgentView{c.agent}, trust.Bundle{Version: 3}, testNow)
			if (len(got) == 0) != (c.says == "") || len(got) > 0 && !strings.Contains(got[0].Why, c.says) {
				t.Errorf("got %+v, want %q", got, c.says)
			}
		})
	}
}

func TestADraftThatIsNotWhatWasAskedForIsNotSigned(t *testing.T) {
	f := helloFleet(t)
	s := f.signer(t)
	first, err := freshKey()
	if err != nil {
		t.Fatal(err)
	}
	base := order.Order{Fleet: "example", Deployment: "hello", Revision: 1, Package: "hello", Version: "2.10-3", Manifest: f.packages[0].Digest, Program: "install",
		Run: events.RunAdministrative, Collection: "office", Expression: "true", Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunNever,
		Issued: testNow, NotAfter: testNow.Add(time.Hour)}
	for name, c := range map[string]struct {
		change func(*order.Order)
		view   func(*events.DraftView)
		says   string
	}{
		"another deployment":        {func(o *order.Order) { o.Deployment = "goodbye" }, nil, "nothing was signed"},
		"another fleet":             {func(o *order.Order) { o.Fleet = "other" }, nil, "nothing was signed"},
		"another order":             {nil, func(v *events.DraftView) { v.Order = events.DigestOf(nil) }, "nothing was signed"},
		"a time that is over":       {func(o *order.Order) { o.Issued, o.NotAfter = testNow.Add(-2*time.Hour), testNow.Add(-time.Hour) }, nil, "create it anew"},
		"another manifest":          {func(o *order.Order) { o.Manifest = events.DigestOf(nil) }, nil, "nothing was signed"},
		"another package":           {func(o *order.Order) { o.Package = "goodbye" }, nil, "what would run"},
		"a program there is not":    {func(o *order.Order) { o.Program = "other" }, nil, "nothing was signed"},
		"other rights":              {func(o *order.Order) { o.Run = events.RunUser }, nil, "nothing was signed"},
		"agents that are not bound": {nil, func(v *events.DraftView) { v.Include = []string{"agent0001"} }, "not those that were signed"},
		"nothing wrong":             {nil, nil, "--yes"},
	} {
		t.Run(name, func(t *testing.T) {
			o := base
			if c.change != nil {
				c.change(&o)
			}
			envelope, err := order.Sign(o, first)
			if err != nil {
				t.Fatal(err)
			}
			_, digest, err := order.Open(envelope)
			if err != nil {
				t.Fatal(err)
			}
			draft := events.DraftView{DeploymentOrder: events.DeploymentOrder{DeploymentNotice: events.DeploymentNotice{Deployment: "hello", Order: digest}, Envelope: envelope}}
			if c.view != nil {
				c.view(&draft)
			}
			f.set(func() { f.draft = &draft })
			if code, _, stderr := command(t, f.app, "", "deployment", "sign", "hello"); code != 1 || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d: %s; want %q", code, stderr, c.says)
			}
		})
	}
	if !s.signed(mustSign(t, base, s.key)) || s.signed(mustSign(t, base, first)) {
		t.Error("own signatures are not told from others'")
	}
}

func mustSign(t *testing.T, o order.Order, key sign.Signer) []byte {
	t.Helper()
	envelope, err := order.Sign(o, key)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestATokenSaysWhichAuthorityAndRootsToBelieve(t *testing.T) {
	f := newRealFleet(t, func(f *realFleet) {
		shown, err := tlsFlags{on: true}.certificate(f.at, f.at.administrator(), namesOf([]string{anyAddress}), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		f.options.TLS = shown.config
	})
	f.app.now = time.Now
	f.run(t, "trust", "init")
	file := filepath.Join(t.TempDir(), "one.token")
	f.run(t, "token", "create", "one", "--out", file, "--server", "tls://broker.example:4222,wss://broker.example:443")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	token, err := enrolment.ParseToken(string(text))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := caHash(filepath.Join(f.at.tls(), caName))
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := strings.TrimSpace(f.run(t, "trust", "show", "-o", "name"))
	if token.CA != ca || ca == "" || token.Root != fingerprint || len(token.Servers) != 2 {
		t.Errorf("the token names CA %s, root %s, servers %v; want %s, %s", token.CA, token.Root, token.Servers, ca, fingerprint)
	}
	if list := f.run(t, "token", "ls", "-o", "json"); strings.Contains(list, string(token.Seed)) || strings.Contains(list, token.JWT) {
		t.Error("the list tells the secret")
	}
}
