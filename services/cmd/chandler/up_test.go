package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newPlace makes a data directory with the identities of a fleet of its own.
func newPlace(t *testing.T) place {
	t.Helper()
	at := place{t.TempDir()}
	if _, err := ensureIdentities(at, at.administrator()); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestAnotherFleetsContextStaysAndTheNewOneIsNamedAfterItsFleet(t *testing.T) {
	a := testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()})
	one, two := newPlace(t), newPlace(t)
	write := func(url string, at place) writtenContext {
		t.Helper()
		w, err := a.writeContext(url, "", at, at.administrator())
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	if w := write("nats://127.0.0.1:1", one); w.Name != "local" || len(w.notes) != 0 {
		t.Fatalf("got %+v", w)
	}
	second := write("nats://127.0.0.1:2", two)
	if !strings.HasPrefix(second.Name, "local-f") || len(second.notes) != 2 || !strings.Contains(second.notes[0], "another fleet") {
		t.Fatalf("got %+v", second)
	}
	if again := write("nats://127.0.0.1:3", two); again.Name != second.Name || len(again.notes) != 1 {
		t.Fatalf("a second start: %+v", again)
	}
	if w := write("nats://127.0.0.1:4", one); w.Name != "local" || !strings.Contains(strings.Join(w.notes, ""), second.Name) {
		t.Fatalf("the first fleet again: %+v", w)
	}
	a.context = "local"
	if w := write("nats://127.0.0.1:5", two); w.Name != "local" || !strings.Contains(w.notes[0], "nats://127.0.0.1:4") || !strings.Contains(w.notes[0], "fleet f") {
		t.Fatalf("a context that is named is replaced, and that is said: %+v", w)
	}
}

func TestAContextThatNobodyCanUseAnyMoreIsReplaced(t *testing.T) {
	a := testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()})
	gone := newPlace(t)
	if _, err := a.writeContext("nats://127.0.0.1:1", "", gone, gone.administrator()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(gone.data); err != nil {
		t.Fatal(err)
	}
	at := newPlace(t)
	if w, err := a.writeContext("nats://127.0.0.1:2", "", at, at.administrator()); err != nil || w.Name != "local" || !strings.Contains(w.notes[0], "nats://127.0.0.1:1") {
		t.Fatalf("got %+v, %v", w, err)
	}
}

func TestANewStartKeepsWhatWasChangedInItsContext(t *testing.T) {
	a := testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()})
	at := newPlace(t)
	store, err := a.contexts()
	if err != nil {
		t.Fatal(err)
	}
	w, err := a.writeContext("tls://127.0.0.1:1", "/ca.pem", at, at.administrator())
	if err != nil {
		t.Fatal(err)
	}
	changed := w.connection
	changed.TrustDir, changed.SigningKey = "/trust", "ssh-agent:ada"
	changed.Administrator = filepath.Join(t.TempDir(), "safe")
	changed.Credentials = filepath.Join(changed.Administrator, adminCreds)
	if err := errors.Join(store.save(changed), os.Rename(at.administrator(), changed.Administrator)); err != nil {
		t.Fatal(err)
	}
	want := changed
	want.Server = "tls://127.0.0.1:2"
	w, err = a.writeContext(want.Server, "", at, at.administrator())
	if diff := cmp.Diff(want, w.connection); err != nil || diff != "" || len(w.notes) != 0 {
		t.Errorf("%v, %v, %s", err, w.notes, diff)
	}
	if err := os.RemoveAll(changed.Administrator); err != nil {
		t.Fatal(err)
	}
	w, err = a.writeContext("nats://127.0.0.1:3", "", at, at.administrator())
	if err != nil || w.CA != "" || w.Credentials != want.Credentials || !strings.Contains(strings.Join(w.notes, ""), "--administrator NEW-PLACE") {
		t.Errorf("in clear text, without credentials: %+v, %v", w, err)
	}
}

func TestAnAddressThatCannotBeListenedOnIsToldAtOnce(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for address, want := range map[string]string{
		"192.0.2.10:0":          "this machine has no address 192.0.2.10",
		taken.Addr().String():   "another program",
		"127.0.0.1":             "not host:port",
		"127.0.0.1:notaservice": "notaservice",
	} {
		if _, err := startBroker(t.Context(), brokerOptions{Dir: t.TempDir(), Listen: address, Log: discard()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", address, err, want)
		}
	}
	if err := checkListen("broker", "127.0.0.1:0"); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	a := testApp(map[string]string{"XDG_CONFIG_HOME": filepath.Join(dir, "config")})
	if code, _, stderr := command(t, a, "", "up", "--data", filepath.Join(dir, "data"), "--listen", taken.Addr().String()); code == 0 || !strings.Contains(stderr, "another program") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if there, err := exists(place{filepath.Join(dir, "data")}.identity()); there || err != nil {
		t.Errorf("a fleet was made, and nobody was told where its keys are (%v)", err)
	}
}

func TestEveryAddressIsTriedBeforeAnythingIsMade(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"--listen", "--http", "--metrics"} {
		data := filepath.Join(t.TempDir(), "data")
		args := []string{"up", "--data", data, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", flag, taken.Addr().String()}
		a := testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()})
		if code, _, stderr := command(t, a, "", args...); code == 0 || !strings.Contains(stderr, "chandler: "+flag+": ") || !strings.Contains(stderr, "another program") {
			t.Errorf("%s: exit code %d: %s", flag, code, stderr)
		}
		if there, err := exists(place{data}.identity()); there || err != nil {
			t.Errorf("%s: a fleet was made (%v)", flag, err)
		}
	}
}

func TestAStartThatIsInterruptedEndsCleanly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()})
	var out, stderr strings.Builder
	args := []string{"up", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}
	if code := a.run(ctx, streams{strings.NewReader(""), &out, &stderr}, args); code != 0 || !strings.Contains(stderr.String(), "stopped before it was up") {
		t.Fatalf("exit code %d: %s%s", code, out.String(), stderr.String())
	}
}

func TestAgentsElsewhereAreGivenAnAddressTheyCanReach(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:4222", "[::]:4222", ":4222"} {
		if got := agentURL("nats://127.0.0.1:4222", listen); !strings.HasSuffix(got, ":4222") || loopbackURL(got) {
			t.Errorf("%s: got %s", listen, got)
		}
	}
	if got := agentURL("nats://127.0.0.1:4222", "127.0.0.1:4222"); got != "nats://127.0.0.1:4222" {
		t.Errorf("got %s", got)
	}
}

func TestHintsNameTheProgramAsItWasStarted(t *testing.T) {
	for executable, want := range map[string]bool{
		"/usr/bin/chandler":                                   false,
		"/tmp/go-build1234/b001/exe/chandler":                 true,
		"/home/kari/.cache/go-build/ab/abcd-d/chandler":       true,
		"/tmp/go-build1234/b001/chandler.test":                false,
		"/home/kari/projects/chandler/services/cmd/chandler/": false,
	} {
		if got := runFromSource(executable); got != want {
			t.Errorf("%s: got %v", executable, got)
		}
	}
}
