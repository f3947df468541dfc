package main

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// says are the findings about something in a state.
func says(found []finding, about, state string) (all []string) {
	for _, f := range found {
		if f.About == about && f.State == state {
			all = append(all, f.Says+": "+f.Advice)
		}
	}
	return all
}

func (f *realFleet) examine(t *testing.T) []finding {
	t.Helper()
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	f.app.timeout = 10 * time.Second
	return f.app.examine(t.Context(), where)
}

func TestDoctorNamesWhatANewFleetStillLacks(t *testing.T) {
	f := newRealFleet(t)
	f.run(t, "user", "add", "ada", "--role", "viewer", "--expires", "20d", "--out", filepath.Join(t.TempDir(), "ada.creds"))
	found := f.examine(t)
	for about, want := range map[string]string{"trust bundle": "chandler trust init", "administrator": f.at.administrator(), "user": "ada (viewer) ends"} {
		if got := says(found, about, stateWarning); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %v, want %q", about, got, want)
		}
	}
	if i := slices.IndexFunc(found, func(f finding) bool { return f.State == stateProblem }); i >= 0 {
		t.Errorf("a new fleet has a problem: %+v", found[i])
	}
	for _, fine := range []string{"broker", "listeners", "topology", "service content", "readers", "dead letters"} {
		if says(found, fine, stateOK) == nil {
			t.Errorf("%s is not said to be well: %+v", fine, found)
		}
	}
}

func TestDoctorNamesEveryListenerThatTakesClearTextFromOtherMachines(t *testing.T) {
	const everywhere = "0.0.0.0:0"
	f := newRealFleet(t, func(f *realFleet) {
		f.options.Listen, f.options.HTTP, f.options.Metrics = everywhere, everywhere, everywhere
	})
	found := f.examine(t)
	for _, what := range []string{"broker", "content", "metrics"} {
		if got := says(found, "listener "+what, stateWarning); len(got) != 1 || !strings.Contains(got[0], "start with --tls") {
			t.Errorf("%s: %v", what, got)
		}
	}
	// Elsewhere what the broker says of itself is all there is.
	f.run(t, "context", "add", "local", "--data", "")
	if got := says(f.examine(t), "listener broker", stateWarning); len(got) != 1 || !strings.Contains(got[0], "on 0.0.0.0:") {
		t.Errorf("without the data directory: %v", got)
	}
	f.stop(t)
	if found := examineListeners(f.at); len(found) != 0 {
		t.Errorf("stopped: %+v", found)
	}
	f.start(t)
	f.run(t, "doctor", "--data", f.at.data)
}

func TestDoctorForgetsTheListenersOfAProcessThatWasKilled(t *testing.T) {
	at := place{t.TempDir()}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &assembly{serverOptions: serverOptions{Data: at.data, Services: []string{"content"}}}
	a.listens("content", l.Addr().String())
	if err := a.noteListeners(); err != nil {
		t.Fatal(err)
	}
	if found := examineListeners(at); len(found) != 1 || found[0].About != "listener content" {
		t.Errorf("while it listens: %+v", found)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if found := examineListeners(at); len(found) != 1 || found[0].State != stateOK {
		t.Errorf("afterwards: %+v", found)
	}
}

func TestDoctorNamesEveryFileThatOthersMayRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing there")
	}
	f := newRealFleet(t, withTLS(t))
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	if found := slices.Concat(f.app.examineFiles(where), f.app.examineServer(t.Context(), where)); len(says(found, "file", stateProblem)) > 0 {
		t.Fatalf("nothing is wrong, and it says %+v", found)
	}
	store, err := f.app.contexts()
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]os.FileMode{
		f.at.data: 0o755, filepath.Join(f.at.identity(), agentKeyName): 0o644, filepath.Join(f.at.tls(), "server.key"): 0o640,
		filepath.Join(f.at.administrator(), "roles", "agent.nk"): 0o604, store.file("local"): 0o644, filepath.Join(f.at.data, "keys"): 0o755,
	}
	for name, mode := range open {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	got := says(slices.Concat(f.app.examineFiles(where), f.app.examineServer(t.Context(), where)), "file", stateProblem)
	for name := range open {
		if !slices.ContainsFunc(got, func(s string) bool {
			return strings.Contains(s, name+" can be read by others") && strings.HasSuffix(s, " "+name)
		}) {
			t.Errorf("%s is not named: %v", name, got)
		}
	}
	if len(got) != len(open) {
		t.Errorf("%d are named, %d are open: %v", len(got), len(open), got)
	}
}

func TestDoctorWarnsBeforeCertificatesAndCredentialsEnd(t *testing.T) {
	f := newRealFleet(t, withTLS(t))
	f.run(t, "context", "add", "ada", "--server", f.server.URL, "--ca", filepath.Join(f.at.tls(), caName),
		"--credentials", f.user(t, "ada", "--role", "viewer", "--expires", "60d"))
	f.app.context = "ada"
	began := f.app.now
	for name, c := range map[string]struct {
		later     time.Duration
		what      string
		soon, out bool
	}{
		"credentials that are good for long":  {0, "credentials", false, false},
		"credentials near their end":          {40 * 24 * time.Hour, "credentials", true, false},
		"credentials after their end":         {61 * 24 * time.Hour, "credentials", false, true},
		"a certificate that is good for long": {0, "certificate", false, false},
		"a certificate near its end":          {serverLife - 24*time.Hour, "certificate", true, false},
		"an authority near its end":           {authorityLife - 24*time.Hour, "certificate authority", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			f.app.now = func() time.Time { return time.Now().Add(c.later) }
			defer func() { f.app.now = began }()
			found := f.examine(t)
			if soon, out := says(found, c.what, stateWarning), says(found, c.what, stateProblem); len(soon) > 0 != c.soon || len(out) > 0 != c.out {
				t.Errorf("soon %v, out %v", soon, out)
			}
		})
	}
}

func TestDoctorSaysWhatAViewerMayNotSee(t *testing.T) {
	f := newRealFleet(t)
	f.run(t, "context", "add", "ada", "--server", f.server.URL, "--credentials", f.user(t, "ada", "--role", "viewer"))
	f.app.context = "ada"
	found := f.examine(t)
	if got := says(found, "topology", stateSkipped); len(got) != 1 || !strings.Contains(got[0], "your role, viewer, may not") {
		t.Errorf("got %v of %+v", got, found)
	}
	if says(found, "service content", stateOK) == nil || len(says(found, "examination", stateProblem)) > 0 {
		t.Errorf("what it may see is not looked at: %+v", found)
	}
}

func TestDoctorLooksAtAServerWhoseIdentitiesAreElsewhere(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	overwrite(t, filepath.Join(data, "keys", "keyset.json"), "{}")
	if found := testApp(nil).examineServer(t.Context(), connection{Data: data}); len(found) != 0 {
		t.Errorf("got %+v", found)
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add(`INFO {"host":"0.0.0.0","port":4222,"tls_required":true}`)
	f.Add("INFO {}")
	f.Add("+OK")
	f.Fuzz(func(t *testing.T, line string) {
		address, err := parseInfo(line)
		if _, _, splits := net.SplitHostPort(address); err == nil && splits != nil && !strings.ContainsAny(address, "[]") {
			t.Errorf("%q gives %q", line, address)
		}
	})
}
