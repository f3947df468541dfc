package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/enrolment"
)

// logged is what was written to a log.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// says are the lines that contain all words.
func (l *logged) says(words ...string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for line := range strings.Lines(l.text.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// await waits for such a line.
func (l *logged) await(t *testing.T, words ...string) {
	t.Helper()
	for deadline := time.After(readyTime); len(l.says(words...)) == 0; {
		select {
		case <-deadline:
			t.Fatalf("the log never says %q", words)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestAMachineThatEnrolsWithAPinnedCAIsNoErrorOfTheBroker(t *testing.T) {
	var log logged
	f := newRealFleet(t, withTLS(t), func(f *realFleet) {
		f.options.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	f.run(t, "trust", "init")
	file := filepath.Join(t.TempDir(), "one.token")
	f.run(t, "token", "create", "one", "--out", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	token, err := enrolment.ParseToken(string(text))
	if err != nil || token.CA == "" {
		t.Fatalf("the token pins CA %q (%v)", token.CA, err)
	}
	keeper, err := enrol.New(enrol.Options{Dir: filepath.Join(t.TempDir(), "agent"), Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	if err := keeper.Enrol(t.Context(), token, events.Facts{OS: "linux", Arch: "amd64", Addresses: []string{}, Tags: []string{}}); err != nil {
		t.Fatal(err)
	}
	log.await(t, "level=DEBUG", "TLS handshake error")
	if errs := log.says("level=ERROR"); len(errs) > 0 {
		t.Errorf("an enrolment is told as an error: %s", errs)
	}
	// A client that does not believe the certificate is told: it may be every agent.
	if _, err := nats.Connect(f.server.URL, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12})); err == nil {
		t.Fatal("a stranger's certificate was believed")
	}
	log.await(t, "level=ERROR", "TLS handshake error", "bad certificate")
}

func TestOnlyAClientThatHungUpInAHandshakeIsNoError(t *testing.T) {
	const handshake = "192.0.2.1:5 - cid:7 - TLS handshake error: %v%s"
	gone := &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}
	for name, c := range map[string]struct {
		format string
		err    any
		want   bool
	}{
		"it hung up":                       {handshake, io.EOF, true},
		"the connection was reset":         {handshake, gone, true},
		"so did one beneath another error": {handshake, fmt.Errorf("read: %w", gone), true},
		"it refused the certificate":       {handshake, &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, false},
		"nothing fits":                     {handshake, errors.New("tls: no cipher suite supported by both client and server"), false},
		"it is no error":                   {handshake, "EOF", false},
		"another error of the broker":      {"store: %v%s", io.EOF, false},
		"a client that says so of itself":  {"192.0.2.1:5 - cid:7 - x - TLS handshake error: %v%s - maximum payload exceeded: %v", io.EOF, false},
		"a handshake with another broker":  {"192.0.2.1:5 - rid:7 - TLS route handshake error: %v%s", io.EOF, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := hungUp(c.format, []any{c.err, ""}); got != c.want {
				t.Errorf("taken for a client that hung up: %v, want %v", got, c.want)
			}
		})
	}
	if hungUp(handshake, nil) {
		t.Error("without an error there is none that hung up")
	}
}
