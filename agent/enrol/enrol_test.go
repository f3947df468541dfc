package enrol_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/enrolment"
)

func TestAMachineEnrolsAndKeepsItsIdentity(t *testing.T) {
	f := newFleet(t)
	f.conferred = events.Conferred{Tags: []string{"office"}, Site: "oslo", ClientKind: events.Legacy, DomainController: true}
	a := f.machine(t)
	if a.Enrolled() || a.State().Phase != enrol.NotEnrolled {
		t.Fatalf("before: %+v", a.State())
	}
	if err := a.Enrol(t.Context(), f.token, events.Facts{Hostname: "ws-1"}); err != nil {
		t.Fatal(err)
	}
	want := enrol.State{Agent: a.ID(), Phase: enrol.Enrolled, Expires: f.clock.now().Add(life), Fleet: "test", Trust: 1, Root: f.token.Root,
		Servers: f.token.Servers, Conferred: f.conferred}
	if diff := cmp.Diff(want, a.State()); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	closed(t, a.dir)

	f.broker.Stop() // from here on everything is known without asking
	again, err := f.open(t, a.dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, again.State()); diff != "" || !again.Valid() {
		t.Errorf("loaded again (-want +got):\n%s", diff)
	}
	inspected, err := enrol.Inspect(enrol.Options{Dir: a.dir, Clock: f.clock.now})
	if diff := cmp.Diff(want, inspected); diff != "" || err != nil {
		t.Errorf("inspected: %v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff(f.conferred, again.Conferred()); diff != "" {
		t.Error(diff)
	}
}

// closed checks that nobody else may read what a state directory holds.
func closed(t *testing.T, dir string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%s has mode %v, %v", dir, st.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", file.Name(), info.Mode(), err)
		}
	}
}

// untouched checks that nothing but the key is in a state directory.
func untouched(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != "agent.key" {
		t.Errorf("kept %v, %v", files, err)
	}
}

func TestWhatDoesNotFitTheTokenIsNotKept(t *testing.T) {
	_, strange, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	type alter = func(f *fleet, a events.EnrolAnswer) events.EnrolAnswer
	for name, c := range map[string]struct {
		alter alter
		says  string
	}{
		"a bundle of other roots": {func(f *fleet, a events.EnrolAnswer) events.EnrolAnswer {
			a.Bundles = [][]byte{signed(f.t, bundle(1, "rogue"), "rogue")}
			return a
		}, "another root than the token names"},
		"the right roots, which did not sign": {func(f *fleet, a events.EnrolAnswer) events.EnrolAnswer {
			a.Bundles = [][]byte{signed(f.t, bundle(1, "a"), "rogue")}
			return a
		}, "another root than the token names"},
		"no bundle": {func(_ *fleet, a events.EnrolAnswer) events.EnrolAnswer { a.Bundles = nil; return a }, "no trust bundle"},
		"an identity for another key": {func(f *fleet, a events.EnrolAnswer) events.EnrolAnswer {
			a.JWT, _ = f.mint(strange, events.AgentID([]byte(strange)))
			return a
		}, "another key"},
		"an identity of another name": {func(f *fleet, a events.EnrolAnswer) events.EnrolAnswer {
			a.JWT, _ = f.mint(f.key(), "*")
			return a
		}, "not of agent"},
		"an identity that cannot be read": {func(_ *fleet, a events.EnrolAnswer) events.EnrolAnswer { a.JWT = "a.b.c"; return a }, "cannot be read"},
		"an answer to another question":   {func(_ *fleet, a events.EnrolAnswer) events.EnrolAnswer { a.Nonce = "other"; return a }, "another question"},
		"a refusal of another question": {func(_ *fleet, a events.EnrolAnswer) events.EnrolAnswer {
			return events.EnrolAnswer{Refused: events.RefusedPending, Nonce: "other"}
		}, "another question"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			f.alter = func(s events.EnrolStatement, a events.EnrolAnswer) events.EnrolAnswer {
				f.set(func() { f.lastKey = s.Key })
				return c.alter(f, a)
			}
			a := f.machine(t)
			err := a.Enrol(t.Context(), f.token, events.Facts{})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("says %v, want %q", err, c.says)
			}
			untouched(t, a.dir)
			if a.Enrolled() || a.Trust().Version != 0 {
				t.Errorf("taken: %+v", a.State())
			}
		})
	}
}

func TestARefusalSaysWhy(t *testing.T) {
	f := newFleet(t)
	f.refuse = &events.EnrolAnswer{Refused: events.RefusedSpent, Why: "used\x1b[2J 5 times", Later: events.Duration(7)}
	a := f.machine(t)
	err := a.Enrol(t.Context(), f.token, events.Facts{})
	var refused *enrol.RefusedError
	if !errors.As(err, &refused) || refused.Refused != events.RefusedSpent || refused.Later != 7 {
		t.Fatalf("says %v", err)
	}
	if strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), "token_spent") {
		t.Errorf("says %q", err)
	}
	untouched(t, a.dir)
}

func TestWithoutAnEnrolmentServiceTheErrorSaysSo(t *testing.T) {
	f := newFleet(t)
	f.service.Conn().Close()
	eventually(t, "the service is gone", func() bool { return f.broker.Broker().NumClients() == 0 })
	a := f.machine(t)
	if err := a.Enrol(t.Context(), f.token, events.Facts{}); err == nil || !strings.Contains(err.Error(), "no credentials service") {
		t.Errorf("says %v", err)
	}
	f.broker.Stop()
	if err := a.Enrol(t.Context(), f.token, events.Facts{}); err == nil || !strings.Contains(err.Error(), "connect to") {
		t.Errorf("says %v", err)
	}
	untouched(t, a.dir)
}

func TestTheCAOfTheTokenIsTheOnlyOne(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	for name, c := range map[string]struct {
		broker func(*server.Options)
		says   string // empty: it is taken
	}{
		"a certificate of the CA":                           {ours.serves(t, "127.0.0.1", ours), ""},
		"a certificate of another CA":                       {other.serves(t, "127.0.0.1", other), "does not come from the CA"},
		"one of another CA that shows the right one beside": {other.serves(t, "127.0.0.1", ours), "unknown authority"},
		"one of the CA for another address":                 {ours.serves(t, "192.0.2.1", ours), "192.0.2.1"},
		"one of the CA that does not show the CA":           {ours.serves(t, "127.0.0.1"), "does not come from the CA"},
		"no TLS at all":                                     {func(*server.Options) {}, "secure connection not available"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, c.broker)
			f.token.CA = ours.hash()
			a := f.machine(t)
			err := a.Enrol(t.Context(), f.token, events.Facts{})
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("says %v, want %q", err, c.says)
				}
				untouched(t, a.dir)
				if n := f.count(events.AgentEnrol.Verb); n != 0 {
					t.Errorf("%d statements were sent to a broker that is not believed", n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			closed(t, a.dir)
			a.run()
			eventually(t, "the agent is connected", a.conn.IsConnected)
			if _, err := a.conn.TLSConnectionState(); err != nil {
				t.Error(err)
			}
			if err := a.Return(t.Context()); err != nil {
				t.Errorf("return over TLS: %v", err)
			}
		})
	}
}

func TestThePinnedCAHoldsForContentToo(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	f := newFleet(t, ours.serves(t, "127.0.0.1", ours))
	f.token.CA = ours.hash()
	pinned := f.enrolled(t)
	for name, c := range map[string]struct {
		server func(*server.Options)
		taken  bool
	}{
		"a certificate of the pinned CA": {ours.serves(t, "127.0.0.1"), true},
		"one of another CA":              {other.serves(t, "127.0.0.1", other), false},
		"one for another address":        {ours.serves(t, "192.0.2.1"), false},
	} {
		var o server.Options
		c.server(&o)
		web := httptest.NewUnstartedServer(http.NotFoundHandler())
		web.TLS, web.Config.ErrorLog = o.TLSConfig, slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		web.StartTLS()
		config, err := pinned.TLS()
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		answer, err := client.Get(web.URL)
		if (err == nil) != c.taken {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			answer.Body.Close()
		}
		client.CloseIdleConnections()
		web.Close()
	}
	if config, err := newFleet(t).enrolled(t).TLS(); config != nil || err != nil {
		t.Errorf("without a pinned CA: %v (%v)", config, err)
	}
}

func TestAnEditedCAIsNoticed(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	f := newFleet(t, ours.serves(t, "127.0.0.1", ours))
	f.token.CA = ours.hash()
	a := f.enrolled(t)
	o := newFleet(t, other.serves(t, "127.0.0.1", other))
	o.token.CA = other.hash()
	data, err := os.ReadFile(filepath.Join(o.enrolled(t).dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "ca.pem"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.NATSOptions(); err == nil || !strings.Contains(err.Error(), "not the CA that the token named") {
		t.Errorf("says %v", err)
	}
}

func TestAStateDirectoryThatWasAlteredIsNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		alter func(f *fleet, data []byte) []byte
		says  string
	}{
		"a bundle of other roots": {"trust.json", func(f *fleet, _ []byte) []byte {
			return envelopes(f.t, signed(f.t, bundle(9, "rogue"), "rogue"))
		}, "altered"},
		"a newer bundle that no root signed": {"trust.json", func(f *fleet, _ []byte) []byte {
			return envelopes(f.t, f.bundles[0], signed(f.t, bundle(2, "a"), "rogue"))
		}, "altered"},
		"a list without bundles": {"trust.json", func(f *fleet, _ []byte) []byte { return envelopes(f.t) }, "altered"},
		"half a file":            {"trust.json", func(_ *fleet, data []byte) []byte { return data[:len(data)/2] }, "altered"},
		"another root": {"identity.json", func(f *fleet, data []byte) []byte {
			return []byte(strings.Replace(string(data), f.token.Root, bundle(1, "rogue").Roots.Fingerprint(), 1))
		}, "altered"},
		"no root":          {"identity.json", func(*fleet, []byte) []byte { return []byte(`{"format":1,"servers":["nats://a"]}`) }, "damaged"},
		"half an identity": {"identity.json", func(_ *fleet, data []byte) []byte { return data[:20] }, "identity.json"},
		"half a key":       {"agent.key", func(_ *fleet, data []byte) []byte { return data[:30] }, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			a := f.enrolled(t)
			path := filepath.Join(a.dir, c.file)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, c.alter(f, data), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := f.open(t, a.dir, 0); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("says %v, want %q", err, c.says)
			}
			if err := enrol.Forget(a.dir); err != nil {
				t.Fatal(err)
			}
			if again, err := f.open(t, a.dir, 0); err != nil || again.Enrolled() || again.ID() == a.ID() {
				t.Errorf("not forgotten: %v", err)
			}
		})
	}
}

func envelopes(t *testing.T, all ...[]byte) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]any{"envelopes": all})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestACopiedStateDirectoryMustEnrolAnew(t *testing.T) {
	f := newFleet(t)
	a := f.enrolled(t)
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(a.dir)); err != nil {
		t.Fatal(err)
	}
	k, err := enrol.New(enrol.Options{Dir: copied})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.BindMachine("machine 2"); !errors.Is(err, enrol.ErrCopied) || !strings.Contains(err.Error(), "enrol --anew") {
		t.Errorf("says %v", err)
	}
	if err := k.BindMachine(""); err != nil {
		t.Errorf("a system that does not tell its id: %v", err)
	}
	if err := a.BindMachine("machine 1"); err != nil {
		t.Errorf("the machine itself: %v", err)
	}
}

func TestATokenOfAnotherFleetChangesNothing(t *testing.T) {
	f := newFleet(t)
	a := f.enrolled(t)
	before := a.State()
	token := f.token
	token.Root = bundle(1, "other").Roots.Fingerprint()
	if err := a.Enrol(t.Context(), token, events.Facts{}); err == nil || !strings.Contains(err.Error(), "other root keys") {
		t.Errorf("says %v", err)
	}
	if diff := cmp.Diff(before, a.State()); diff != "" {
		t.Error(diff)
	}
}

func TestTheEnrolmentUserIsAskedForNoProof(t *testing.T) {
	f := newFleet(t)
	a := f.machine(t)
	options, err := a.NATSOptions()
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := nats.Connect(f.broker.URL(), options...); err == nil {
		conn.Close()
		t.Error("a machine without an identity connected")
	}
}
