package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
)

// user makes a user and gives its credentials file.
func (f *realFleet) user(t *testing.T, name string, more ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".creds")
	f.run(t, append([]string{"user", "add", name, "--out", file}, more...)...)
	return file
}

// plain connects as any NATS client does, and gives what the broker says besides.
func (f *realFleet) plain(t *testing.T, file string) (*nats.Conn, chan error) {
	t.Helper()
	said := make(chan error, 16)
	user, err := readUser(file)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(f.server.URL, nats.UserCredentials(file), nats.CustomInboxPrefix("_INBOX."+user.name), nats.MaxReconnects(0),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { said <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, said
}

func wait(t *testing.T, what string, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("never: %s", what)
		return nil
	}
}

func TestEachRoleMayWhatItMayAndNoMore(t *testing.T) {
	f := newRealFleet(t)
	for name, c := range map[string]struct {
		role        string
		may, mayNot []func(*client) error
	}{
		"a viewer looks":               {"viewer", []func(*client) error{looks}, []func(*client) error{setsCollection, addsUser}},
		"a deployer deploys":           {"deployer", []func(*client) error{looks, setsCollection}, []func(*client) error{addsUser}},
		"an administrator makes users": {"administrator", []func(*client) error{looks, setsCollection, addsUser}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			file := f.user(t, c.role+"-1", "--role", c.role)
			began := time.Now()
			d, err := dial(connection{Name: "x", Server: f.server.URL, Credentials: file}, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			defer d.bus.Conn().Close()
			for i, do := range c.may {
				if err := do(d); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
			for i, do := range c.mayNot {
				if err := do(d); err == nil || !strings.Contains(err.Error(), "your role, "+c.role+", may not") {
					t.Errorf("%d: got %v", i, err)
				}
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %s: what is refused must fail at once", took)
			}
		})
	}
}

func patience(c *client) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), c.timeout)
}

func looks(c *client) error {
	ctx, cancel := patience(c)
	defer cancel()
	_, err := ask(ctx, c, events.DeploymentList, events.Nothing{})
	return err
}

func setsCollection(c *client) error {
	ctx, cancel := patience(c)
	defer cancel()
	_, err := ask(ctx, c, events.CollectionSet, events.Collection{Name: "all", Expression: "true"})
	return err
}

func addsUser(c *client) error {
	ctx, cancel := patience(c)
	defer cancel()
	_, key, err := newUserKey()
	if err != nil {
		return err
	}
	_, err = ask(ctx, c, events.UserAdd, events.UserNotice{User: "somebody", Role: "viewer", Key: key})
	return err
}

func TestAnyNATSClientTakesTheCredentialsOfAnIntegrator(t *testing.T) {
	f := newRealFleet(t)
	file := f.user(t, "wallboard", "--role", "integrator", "--events", "collection.changed", "--expires", "90d")
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	nc, said := f.plain(t, file)
	heard := make(chan *nats.Msg, 1)
	if _, err := nc.ChanSubscribe(events.CollectionChanged.Subject("*"), heard); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe(events.UserAdded.Subject("*"), func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, "the broker refuses other events", said); !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), events.UserAdded.Subject("*")) {
		t.Errorf("got %v", err)
	}
	f.run(t, "collection", "set", "all", "--where", "true")
	select {
	case m := <-heard:
		if e, err := bus.Decode(m); err != nil || e.Type() != events.CollectionChanged.Name {
			t.Errorf("got %v, %v", e, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it never heard of the collection")
	}
	if err := nc.Publish(events.CollectionChanged.Subject("all"), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, "the broker refuses a publication", said); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("got %v", err)
	}
}

func TestTheCommandThatIsToldIsOneThatTheBrokerAllows(t *testing.T) {
	f := newRealFleet(t)
	for _, role := range [][]string{{"viewer"}, {"deployer"}, {"administrator"}, {"integrator", "--events", "agent.enrolled"}} {
		file := filepath.Join(t.TempDir(), "it.creds")
		told := f.run(t, append([]string{"user", "add", role[0] + "-1", "--out", file, "--role"}, role...)...)
		_, subject, ok := strings.Cut(told, " sub '")
		subject, _, _ = strings.Cut(subject, "'")
		if !ok || !strings.Contains(told, "nats --server "+f.server.URL+" --creds "+file+" --inbox-prefix _INBOX."+role[0]+"-1 sub") {
			t.Errorf("%s: %s", role[0], told)
			continue
		}
		nc, said := f.plain(t, file)
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil { // what the broker refuses it says before it answers
			t.Fatal(err)
		}
		select {
		case err := <-said:
			t.Errorf("%s: %v", role[0], err)
		default:
		}
	}
}

func TestWhatMakesNoUserIsToldBeforeAnythingIsMade(t *testing.T) {
	f := newRealFleet(t)
	there := filepath.Join(t.TempDir(), "there.creds")
	overwrite(t, there, "")
	out := filepath.Join(t.TempDir(), "new.creds")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"everybody's name":                  {[]string{"*", "--role", "viewer"}, "user:"},
		"a role that is none":               {[]string{"ada", "--role", "king"}, "there are administrator"},
		"an agent's role":                   {[]string{"ada", "--role", "agent"}, "there are administrator"},
		"an integrator that hears nothing":  {[]string{"ada", "--role", "integrator"}, "name at least one"},
		"an event that is none":             {[]string{"ada", "--role", "integrator", "--events", "job.exploded"}, "no event type"},
		"events for a viewer":               {[]string{"ada", "--role", "viewer", "--events", "job.failed"}, "for integrators"},
		"a service under another name":      {[]string{"ada", "--role", "service-content"}, "its only name is content"},
		"a person with the name of service": {[]string{"content", "--role", "viewer"}, "service's name"},
		"credentials that have expired":     {[]string{"ada", "--role", "viewer", "--expires", "0d"}, "of no use"},
	} {
		t.Run(name, func(t *testing.T) {
			f.refuse(t, c.want, append([]string{"user", "add", "--out", out}, c.args...)...)
			if here, err := exists(out); here || err != nil {
				t.Error("a file was made")
			}
		})
	}
	f.refuse(t, "is there already", "user", "add", "ada", "--role", "viewer", "--out", there)
	if err := f.app.registerUsers(t.Context(), f.admin(t).connection, f.at); err != nil {
		t.Fatal(err)
	}
	f.refuse(t, "that is you", "user", "revoke", "admin")
	if got := f.run(t, "user", "ls", "-o", "name"); strings.Contains(got, "ada") {
		t.Errorf("somebody was made: %s", got)
	}
}

func TestARevokedUserIsOutAtOnceAndStaysOut(t *testing.T) {
	f := newRealFleet(t)
	kari, ada := f.user(t, "kari", "--role", "deployer"), f.user(t, "ada", "--role", "deployer")
	nc, _ := f.plain(t, kari)
	other, _ := f.plain(t, ada)
	closed := nc.StatusChanged(nats.CLOSED)
	f.run(t, "user", "revoke", "kari")
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Fatal("the connection goes on")
	}
	var listed struct{ Users []events.UserNotice }
	if err := json.Unmarshal([]byte(`{"users":`+f.run(t, "user", "ls", "-o", "json")+`}`), &listed); err != nil {
		t.Fatal(err)
	}
	for _, u := range listed.Users {
		if u.Revoked != (u.User == "kari") {
			t.Errorf("listed as %+v", u)
		}
	}
	if !other.IsConnected() {
		t.Error("another user was thrown out too")
	}
	f.run(t, "user", "revoke", "kari") // again
	f.stop(t)
	f.start(t)
	if again, err := nats.Connect(f.server.URL, nats.UserCredentials(kari)); err == nil {
		again.Close()
		t.Error("after a restart of the broker it is let in")
	} else if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("got %v", err)
	}
	if again, err := nats.Connect(f.server.URL, nats.UserCredentials(ada)); err != nil {
		t.Errorf("another user is not let in any more: %v", err)
	} else {
		again.Close()
	}
}

func TestWithoutTheOperatorsKeyARevocationSaysWhatIsLeftUndone(t *testing.T) {
	f := newRealFleet(t)
	nc, _ := f.plain(t, f.user(t, "kari", "--role", "viewer"))
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	second := f.user(t, "second", "--role", "administrator")
	f.run(t, "context", "add", "second", "--server", where.Server, "--credentials", second)
	f.refuse(t, "still lets them in until their credentials expire", "--context", "second", "user", "revoke", "kari")
	if !nc.IsConnected() {
		t.Error("it was thrown out nevertheless")
	}
	if got := f.run(t, "user", "ls"); !strings.Contains(got, "revoked") {
		t.Errorf("it is not noted: %s", got)
	}
	f.run(t, "user", "revoke", "kari")
	if _, err := nc.RTT(); err == nil {
		t.Error("it is still let in")
	}
}

func TestAViewerIsToldThatItIsTheRole(t *testing.T) {
	f := newRealFleet(t)
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	f.run(t, "context", "add", "second", "--server", where.Server, "--credentials", f.user(t, "vera", "--role", "viewer"))
	file := filepath.Join(t.TempDir(), "setup.sh")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		createHello, {"deployment", "sign", "hello"}, {"deployment", "resign", "hello"}, {"user", "revoke", "vera"},
		{"package", "publish", file, "--run", "user", "--version", "1"},
	} {
		code, _, stderr := command(t, f.app, "", append([]string{"--context", "second"}, args...)...)
		if code == 0 || stderr != "chandler: your role, viewer, may not\n" {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
}

func TestAccountsAreNotSignedForABrokerThatAnswersWithAnother(t *testing.T) {
	f := newRealFleet(t)
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	claims, err := openAccountClaims(where, access.People)
	if err != nil {
		t.Fatal(err)
	}
	where.Credentials = filepath.Join(where.Administrator, systemCreds)
	if claims.client, err = dial(where, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	defer claims.client.bus.Conn().Close()
	if _, _, err := claims.lookUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	claims.issuer = "ODIFFERENT"
	if _, _, err := claims.lookUp(t.Context()); err == nil || !strings.Contains(err.Error(), "not this fleet's") {
		t.Errorf("got %v", err)
	}
}

func FuzzRefusedSubject(f *testing.F) {
	f.Add(`Permissions Violation for Publish to "chandler.rpc.scheduling.deployment_create.UA.ada"`)
	f.Add(`Permissions Violation for Subscription to "a.>" using queue "q"`)
	f.Add(`Permissions Violation`)
	f.Fuzz(func(t *testing.T, said string) {
		subject, ok := refusedSubject(fmt.Errorf("%w: %s", nats.ErrPermissionViolation, said))
		if ok != (subject != "") || !strings.Contains(said, subject) {
			t.Errorf("%q gives %q, %v", said, subject, ok)
		}
		if _, ok := refusedSubject(errors.New(said)); ok {
			t.Error("another error is taken for a refusal")
		}
	})
}
