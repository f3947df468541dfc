package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chandler/agent/fetch"
	"chandler/events"
)

// pin makes a state directory that of a machine whose token named a CA.
func pin(t *testing.T, state string, der []byte) {
	t.Helper()
	file := filepath.Join(state, "identity.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var id map[string]any
	if err := json.Unmarshal(data, &id); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	id["ca"] = hex.EncodeToString(sum[:])
	if data, err = json.Marshal(id); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{file: data, filepath.Join(state, "ca.pem"): pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestContentIsFetchedFromServersOfThePinnedCAAlone(t *testing.T) {
	const text = "a package"
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of handshakes that are refused
	server.StartTLS()
	defer server.Close()
	ref := fetch.Ref{URL: server.URL + "/blob", SHA256: events.DigestOf([]byte(text)), Size: int64(len(text))}
	for name, c := range map[string]struct {
		pinned bool
		says   string
	}{
		"of the pinned CA": {true, ""},
		"of one that is neither pinned nor known to the system": {false, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			file, state := configure(t, "")
			if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if c.pinned {
				pin(t, state, server.Certificate().Raw)
			}
			conf, err := readConfig(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			keeper, err := ownIdentity(t.Context(), conf, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			options, err := conf.options(keeper, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			stream, err := options.Sources["https"].Open(t.Context(), ref, 0)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("says %v, want %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			if got, err := io.ReadAll(stream); err != nil || string(got) != text {
				t.Errorf("got %q (%v)", got, err)
			}
		})
	}
}
