package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/jwt/v2"

	"chandler/events"
	"chandler/events/access"
)

// realFleet is a broker with every service and real identities, in a directory of its own, and the context of
// its first administrator.
type realFleet struct {
	app     *app
	at      place
	options serverOptions
	server  *server
}

const anyAddress = "127.0.0.1:0"

func newRealFleet(t *testing.T, change ...func(*realFleet)) *realFleet {
	t.Helper()
	dir := t.TempDir()
	f := &realFleet{at: place{filepath.Join(dir, "data")}, app: testApp(map[string]string{"XDG_CONFIG_HOME": filepath.Join(dir, "config")})}
	f.app.now = time.Now
	if err := os.MkdirAll(f.at.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if made, err := ensureIdentities(f.at, f.at.administrator()); err != nil || !made {
		t.Fatalf("a first start: %v, %v", made, err)
	}
	f.options = serverOptions{Data: f.at.data, Identity: f.at.identity(), Listen: anyAddress, HTTP: anyAddress, Metrics: anyAddress, Services: services(), Replicas: 1, Log: discard()}
	for _, c := range change {
		c(f)
	}
	f.start(t)
	t.Cleanup(func() { f.stop(t) })
	return f
}

func (f *realFleet) start(t *testing.T) {
	t.Helper()
	var err error
	if f.server, err = startServer(t.Context(), f.options); err != nil {
		t.Fatal(err)
	}
	ca := ""
	if f.options.TLS != nil {
		ca = filepath.Join(f.at.tls(), caName)
	}
	if _, err := f.app.writeContext(f.server.URL, ca, f.at, f.at.administrator()); err != nil {
		t.Fatal(err)
	}
}

func (f *realFleet) stop(t *testing.T) {
	t.Helper()
	if err := f.server.close(); err != nil {
		t.Error(err)
	}
}

// run is a command that must succeed.
func (f *realFleet) run(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := command(t, f.app, "", args...)
	if code != 0 {
		t.Fatalf("%v: exit code %d: %s%s", args, code, stdout, stderr)
	}
	return stdout
}

// refuse is a command that must fail and say so.
func (f *realFleet) refuse(t *testing.T, want string, args ...string) {
	t.Helper()
	if code, stdout, stderr := command(t, f.app, "", args...); code == 0 || !strings.Contains(stderr, want) {
		t.Errorf("%v: exit code %d, want %q: %s%s", args, code, want, stdout, stderr)
	}
}

// contents are all files below a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		below, _ := filepath.Rel(dir, name)
		all[filepath.ToSlash(below)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTheFirstStartMakesEveryIdentityForItsOwnerAloneAndTheNextNone(t *testing.T) {
	at := place{t.TempDir()}
	elsewhere := filepath.Join(t.TempDir(), "stick")
	if made, err := ensureIdentities(at, elsewhere); err != nil || !made {
		t.Fatalf("%v, %v", made, err)
	}
	want := []string{"identity/agent-signing.nk", "identity/enrolment.jwt", "identity/fleet.json", "identity/operator.jwt", "identity/provisioner.creds",
		"identity/services/content.creds", "identity/services/credentials.creds", "identity/services/execution.creds", "identity/services/scheduling.creds"}
	fleet, err := readFleet(at.identity())
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range access.Accounts() {
		want = append(want, "accounts/"+fleet.Accounts[account]+".jwt")
	}
	slices.Sort(want)
	before := contents(t, at.data)
	var got []string
	for name := range before {
		got = append(got, name)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	keys := contents(t, elsewhere)
	for _, name := range []string{"operator.nk", "system.creds", "admin.creds", "fleet.json", "accounts/agents.nk", "roles/agent.nk", "roles/service-content.nk", "roles/deployer.nk"} {
		if keys[name] == "" {
			t.Errorf("the administrator lacks %s", name)
		}
	}
	for _, dir := range []string{at.identity(), at.accounts(), elsewhere} {
		if found := examineModes(dir); len(found) > 0 {
			t.Errorf("%+v", found)
		}
	}
	if err := os.RemoveAll(elsewhere); err != nil { // it was moved away
		t.Fatal(err)
	}
	if made, err := ensureIdentities(at, elsewhere); err != nil || made {
		t.Fatalf("a second start: %v, %v", made, err)
	}
	if diff := cmp.Diff(before, contents(t, at.data)); diff != "" {
		t.Errorf("a second start changed something:\n%s", diff)
	}
}

func TestAnInterruptedFirstStartIsCompletedWithTheKeysThatItMade(t *testing.T) {
	at := place{t.TempDir()}
	unused := filepath.Join(at.data, "."+firstStart+"-1")
	if err := writePrivate(filepath.Join(unused, "identity", "fleet.json"), []byte("half")); err != nil {
		t.Fatal(err)
	}
	if err := prepareIdentities(at); err != nil {
		t.Fatal(err)
	}
	made := contents(t, filepath.Join(at.data, firstStart))
	// The power went while the second part was put to its place.
	if err := putFiles(filepath.Join(at.data, firstStart, partAdministrator), at.administrator()); err != nil {
		t.Fatal(err)
	}
	for name, data := range made {
		if strings.HasPrefix(name, "accounts/") {
			if err := writePrivate(filepath.Join(at.data, name), []byte(data)); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if _, err := ensureIdentities(at, at.administrator()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, contents(t, at.data)); diff != "" {
		t.Errorf("not what was made first, or something was left:\n%s", diff)
	}
}

func TestAFleetOfWhichAPartIsLostIsRefusedAndNeverMadeAnew(t *testing.T) {
	lose := func(name string) func(*testing.T, place) {
		return func(t *testing.T, at place) {
			if err := os.RemoveAll(filepath.Join(at.data, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		harm func(*testing.T, place)
		want string
	}{
		"a service's user":           {lose("identity/services/content.creds"), "content.creds is missing"},
		"the agents' signing key":    {lose("identity/agent-signing.nk"), "agent-signing.nk is missing"},
		"the enrolment identity":     {lose("identity/enrolment.jwt"), "enrolment.jwt is missing"},
		"the operator":               {lose("identity/operator.jwt"), "operator.jwt is missing"},
		"the accounts":               {lose("accounts"), "would forget who was revoked"},
		"what names the fleet":       {lose("identity/fleet.json"), "fleet.json"},
		"all identities":             {lose("identity"), "belongs to a fleet whose identities"},
		"a fleet.json of no meaning": {func(t *testing.T, at place) { overwrite(t, filepath.Join(at.identity(), fleetName), "{}") }, "does not name a fleet"},
		"all but what is stored": {func(t *testing.T, at place) {
			lose("identity")(t, at)
			lose("accounts")(t, at)
			lose("administrator")(t, at)
			overwrite(t, filepath.Join(at.broker(), "jetstream", "x"), "")
		}, "belongs to a fleet whose identities"},
	} {
		t.Run(name, func(t *testing.T) {
			at := place{t.TempDir()}
			if _, err := ensureIdentities(at, at.administrator()); err != nil {
				t.Fatal(err)
			}
			c.harm(t, at)
			before := contents(t, at.data)
			a := testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()})
			code, _, stderr := command(t, a, "", "up", "--data", at.data, "--listen", anyAddress, "--http", anyAddress, "--metrics", anyAddress)
			if code != 1 || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "another --data") {
				t.Errorf("exit code %d, want %q: %s", code, c.want, stderr)
			}
			after := contents(t, at.data)
			delete(after, "lock")
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("something was made nevertheless:\n%s", diff)
			}
		})
	}
}

func overwrite(t *testing.T, name, text string) {
	t.Helper()
	if err := writePrivate(name, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestAnAdministratorsDirectoryOfAnotherFleetIsNotTouched(t *testing.T) {
	one, two := place{t.TempDir()}, place{t.TempDir()}
	if _, err := ensureIdentities(one, one.administrator()); err != nil {
		t.Fatal(err)
	}
	before := contents(t, one.administrator())
	if _, err := ensureIdentities(two, one.administrator()); err == nil || !strings.Contains(err.Error(), "another --data and --administrator-dir") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, contents(t, one.administrator())); diff != "" {
		t.Error(diff)
	}
}

func TestASecretThatOthersMayReadIsRefusedWithAdvice(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing there")
	}
	at := place{t.TempDir()}
	if _, err := ensureIdentities(at, at.administrator()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"identity/services/content.creds", "identity/agent-signing.nk", "identity/provisioner.creds"} {
		file := filepath.Join(at.data, name)
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ensureIdentities(at, at.administrator()); err == nil || !strings.Contains(err.Error(), "chmod 600 "+file) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	creds := filepath.Join(at.administrator(), adminCreds)
	if err := os.Chmod(creds, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(connection{Name: "x", Server: defaultServer, Credentials: creds}, time.Second); err == nil || !strings.Contains(err.Error(), "chmod 600 "+creds) {
		t.Errorf("got %v", err)
	}
}

func TestAFleetWorksWhereItsAdministratorsDirectoryWasMovedAway(t *testing.T) {
	f := newRealFleet(t)
	f.stop(t)
	moved := filepath.Join(t.TempDir(), "safe")
	if err := os.Rename(f.at.administrator(), moved); err != nil {
		t.Fatal(err)
	}
	f.start(t)
	f.refuse(t, "--administrator DIR where the administrator's directory went", "agent", "ls")
	f.run(t, "context", "add", "local", "--administrator", moved)
	f.run(t, "agent", "ls")
	f.stop(t)
	f.start(t) // the context keeps where the directory is
	f.run(t, "agent", "ls")
	f.run(t, "user", "add", "ada", "--role", "viewer", "--out", filepath.Join(t.TempDir(), "ada.creds"))
}

func TestAFleetThatAnotherVersionMadeIsRenewedByTheOperatorsKeyAlone(t *testing.T) {
	at := place{t.TempDir()}
	if _, err := ensureIdentities(at, at.administrator()); err != nil {
		t.Fatal(err)
	}
	renew := func(administrator string, advised bool) {
		t.Helper()
		if advice, err := renewAccounts(at, administrator); err != nil || (advice != "") != advised {
			t.Fatalf("advice %q (%v)", advice, err)
		}
	}
	of := func(file string) *jwt.AccountClaims {
		t.Helper()
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := jwt.DecodeAccountClaims(string(data))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := contents(t, at.accounts())
	renew(at.administrator(), false)
	if diff := cmp.Diff(before, contents(t, at.accounts())); diff != "" {
		t.Fatalf("accounts of this version were changed: %s", diff)
	}
	fleet, err := readFleet(at.identity())
	if err != nil {
		t.Fatal(err)
	}
	operator, err := readSeed(filepath.Join(at.administrator(), operatorKeyName))
	if err != nil {
		t.Fatal(err)
	}
	people := filepath.Join(at.accounts(), fleet.Accounts[access.People]+".jwt")
	old := of(people)
	old.Imports = old.Imports[1:] // of a request that the other version did not know
	text, err := old.Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	if err := writePrivate(people, []byte(text)); err != nil {
		t.Fatal(err)
	}
	renew(t.TempDir(), true)
	if len(of(people).Imports) != len(old.Imports) {
		t.Error("an account was changed without the operator's key")
	}
	renew(at.administrator(), false)
	if len(of(people).Imports) != len(old.Imports)+1 {
		t.Error("the account is still that of the other version")
	}
	renew(t.TempDir(), false)
	other := place{t.TempDir()}
	if _, err := ensureIdentities(other, other.administrator()); err != nil {
		t.Fatal(err)
	}
	if _, err := renewAccounts(at, other.administrator()); err == nil {
		t.Error("another fleet's operator was asked to sign")
	}
}

func TestWithoutCredentialsNobodyIsLetIn(t *testing.T) {
	f := newRealFleet(t)
	_, err := dial(connection{Name: "stranger", Server: f.server.URL, Caller: "admin"}, 10*time.Second)
	if err == nil || !strings.Contains(err.Error(), "asks who you are") {
		t.Errorf("nobody: %v", err)
	}
	other := place{t.TempDir()}
	if _, err := ensureIdentities(other, other.administrator()); err != nil {
		t.Fatal(err)
	}
	_, err = dial(connection{Name: "stranger", Server: f.server.URL, Credentials: filepath.Join(other.administrator(), adminCreds)}, 10*time.Second)
	if err == nil || !strings.Contains(err.Error(), "belong to another fleet") {
		t.Errorf("another fleet's administrator: %v", err)
	}
}

func TestAServiceTakesNoOtherUserThanItsOwn(t *testing.T) {
	f := newRealFleet(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"another service's user":    {[]string{"serve", "execution", "--credentials", filepath.Join(f.at.identity(), "services", "content.creds")}, "needs one with role service-execution"},
		"one user for two services": {[]string{"serve", "execution", "content", "--credentials", "x"}, "each service is another"},
		"a user beside identities":  {[]string{"serve", "execution", "--credentials", "x", "--identity", "y"}, "leave --credentials out"},
		"identities without one":    {[]string{"serve", "execution", "--identity", t.TempDir()}, "fleet.json"},
	} {
		t.Run(name, func(t *testing.T) {
			f.refuse(t, c.want, append(c.args, "--server", f.server.URL, "--data", t.TempDir(), "--metrics-listen", anyAddress)...)
		})
	}
}

func TestServicesRunElsewhereByTheirIdentities(t *testing.T) {
	f := newRealFleet(t)
	for name, o := range map[string]serverOptions{
		"with a directory of identities": {Identity: f.at.identity(), Services: []string{"scheduling", "execution"}},
		"with no more than its own user": {Credentials: f.at.identity() + "/services/execution.creds", Services: []string{"execution"}},
	} {
		t.Run(name, func(t *testing.T) {
			o.Data, o.Server, o.Metrics, o.Replicas, o.Log = t.TempDir(), []string{f.server.URL}, anyAddress, 1, discard()
			s, err := startServer(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// admin is a connection of the first administrator.
func (f *realFleet) admin(t *testing.T) *client {
	t.Helper()
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(where, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.bus.Conn().Close)
	return c
}

func TestTheFirstAdministratorSpeaksUnderItsNameAndKey(t *testing.T) {
	c := newRealFleet(t).admin(t)
	if c.Caller != "admin" || c.role != access.Administrator {
		t.Errorf("got %s, %s", c.Caller, c.role)
	}
	set, err := ask(t.Context(), c, events.CollectionSet, events.Collection{Name: "all", Expression: "true"})
	if err != nil || set.Name != "all" {
		t.Errorf("got %+v, %v", set, err)
	}
}
