package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"chandler/agent/local"
)

func TestAUserAsksTheAgentOfTheMachine(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no socket of this system says who asks")
	}
	dir, err := os.MkdirTemp("", "agent") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	s, err := local.Listen(local.Options{Path: socket, Log: slog.New(slog.DiscardHandler),
		List: func(local.Caller) []local.Item {
			return []local.Item{{Deployment: "hello-all", Package: "hello", Version: "2.10"}}
		},
		Start: func(_ context.Context, _ local.Caller, name string) (string, error) {
			if name != "hello-all" {
				return "", &local.Refused{Why: "nothing is available here by that name"}
			}
			return "it starts", nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	defer func() { cancel(); <-ended }()
	for _, c := range []struct {
		args  []string
		says  string
		fails bool
	}{
		{[]string{"available"}, "hello-all  hello 2.10", false},
		{[]string{"available", "-o", "json"}, `"deployment": "hello-all"`, false},
		{[]string{"install", "hello-all"}, "hello-all: it starts", false},
		{[]string{"install", "goodbye"}, "nothing is available", true},
		{[]string{"install", "hello-all", "--prefix", dir}, "takes no NAME", true},
	} {
		var out bytes.Buffer
		root := command()
		root.SetArgs(append(c.args, "--socket", socket))
		root.SetOut(&out)
		err := root.ExecuteContext(t.Context())
		said := out.String()
		if err != nil {
			said += err.Error()
		}
		if (err != nil) != c.fails || !strings.Contains(said, c.says) {
			t.Errorf("%q: %v\n%s", c.args, err, said)
		}
	}
}

func TestUsersFindTheMachinesOwnAgentWhereverItsStateIsReadable(t *testing.T) {
	if got := (config{StateDir: "/tmp/other"}).socket(); runtime.GOOS != "windows" && got != "/tmp/other/local.sock" {
		t.Errorf("another agent listens at %s", got)
	}
	if got := (config{StateDir: defaultStateDir()}).socket(); runtime.GOOS == "linux" && got != "/run/chandler/agent.sock" {
		t.Errorf("the machine's own listens at %s", got)
	}
	if got := (config{StateDir: "/tmp/other", LocalSocket: "/tmp/s"}).socket(); got != "/tmp/s" {
		t.Errorf("the configured one is %s", got)
	}
}
