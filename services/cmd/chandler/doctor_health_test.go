package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDoctorNamesWhatAServiceSaysOfItself(t *testing.T) {
	const lost = "the secrets of corp-reader cannot be opened with this keyset"
	for name, c := range map[string]struct{ answer, want string }{
		"accounts that cannot be opened": {`{"content":"ok","credentials":"` + lost + `"}`, lost},
		"everything is well":             {`{"content":"ok","credentials":"ok"}`, ""},
		"no answer of a service":         {`<html>`, "could not be read"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/healthz" {
					http.NotFound(w, r)
					return
				}
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte(c.answer))
			}))
			defer server.Close()
			a := &assembly{serverOptions: serverOptions{Data: t.TempDir(), Services: []string{"credentials"}}}
			a.listens("metrics", server.Listener.Addr().String())
			if err := a.noteListeners(); err != nil {
				t.Fatal(err)
			}
			found := examineHealth(t.Context(), place{a.Data})
			if (len(found) == 0) != (c.want == "") || len(found) > 1 || len(found) == 1 && !strings.Contains(found[0].Says, c.want) {
				t.Errorf("got %+v, want %q", found, c.want)
			}
		})
	}
}

// TestDoctorLeavesNoErrorWithWhoListensWithTLS asks one that listens, and then looks for it where it is gone.
func TestDoctorLeavesNoErrorWithWhoListensWithTLS(t *testing.T) {
	var log bytes.Buffer
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"content":"it is ill"}`)) }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(&log, nil), slog.LevelError)
	server.StartTLS()
	at := place{t.TempDir()}
	if err := writePrivate(filepath.Join(at.tls(), caName), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})); err != nil {
		t.Fatal(err)
	}
	a := &assembly{serverOptions: serverOptions{Data: at.data, Services: []string{"content"}}, listeners: []listener{{What: "metrics", Address: server.Listener.Addr().String(), TLS: true}}}
	if err := a.noteListeners(); err != nil {
		t.Fatal(err)
	}
	if found := examineHealth(t.Context(), at); len(found) != 1 || found[0].Says != "it is ill" {
		t.Errorf("got %+v", found)
	}
	server.Close()
	if log.Len() > 0 {
		t.Errorf("it logged %s", log.String())
	}
	if found := examineHealth(t.Context(), at); len(found) != 0 {
		t.Errorf("of one that is gone: %+v", found)
	}
}

// TestOnlyABrokerThatIsAwayIsToBeStarted dials real brokers, so that the errors are those that occur.
func TestOnlyABrokerThatIsAwayIsToBeStarted(t *testing.T) {
	f := newRealFleet(t, withTLS(t))
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change       func(*connection)
		about, wants string
		start        bool
	}{
		"nobody listens":         {func(c *connection) { c.Server = "nats://127.0.0.1:1" }, "broker", "does not answer", true},
		"no credentials":         {func(c *connection) { c.Credentials = "" }, "credentials", "--credentials FILE", false},
		"a user of elsewhere":    {func(c *connection) { c.Credentials = newStranger(t) }, "credentials", "chandler user add", false},
		"missing credentials":    {func(c *connection) { c.Credentials += ".gone" }, "context", "--credentials FILE", false},
		"an unknown authority":   {func(c *connection) { c.CA = "" }, "certificate", "--ca FILE", false},
		"a missing authority":    {func(c *connection) { c.CA += ".gone" }, "context", "put the file back", false},
		"credentials not a file": {func(c *connection) { c.Credentials = filepath.Dir(c.CA) }, "context", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			where := where
			c.change(&where)
			client, err := dial(where, 10*time.Second)
			if err == nil {
				client.bus.Conn().Close()
				t.Fatal("it is let in")
			}
			got := judgeDial(where, err)
			text := got.Says + ": " + got.Advice
			if got.State != stateProblem || got.About != c.about || !strings.Contains(text, c.wants) || strings.Contains(text, "chandler up`,") != c.start {
				t.Errorf("got %+v, want %s and %q", got, c.about, c.wants)
			}
		})
	}
	if got := judgeDial(where, errors.New("something else")); strings.Contains(got.Advice, "chandler up") {
		t.Errorf("got %+v", got)
	}
}

// newStranger gives credentials of another fleet.
func newStranger(t *testing.T) string {
	t.Helper()
	at := place{t.TempDir()}
	if _, err := ensureIdentities(at, at.administrator()); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(at.administrator(), "admin.creds")
}

func TestDoctorSaysWhoseTimeIsOver(t *testing.T) {
	f := newRealFleet(t)
	f.run(t, "trust", "init")
	f.user(t, "ada", "--role", "viewer", "--expires", "1d")
	f.run(t, "token", "create", "oslo", "--expires", "1d", "--out", filepath.Join(t.TempDir(), "oslo.token"))
	began := f.app.now
	f.app.now = func() time.Time { return began().Add(48 * time.Hour) }
	found := f.examine(t)
	for about, want := range map[string]string{"users": "have ended: ada (viewer)", "tokens": "1 token has ended: oslo"} {
		if got := strings.Join(says(found, about, stateOK), "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", about, got, want)
		}
	}
}
