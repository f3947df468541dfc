package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestADirectoryThatOthersMayNotEnterHidesTheSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes: nothing to install")
	}
	closed := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(filepath.Join(closed, "open"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := hiddenBelow(filepath.Join(closed, "open", "local.sock")); got != closed {
		t.Errorf("hidden below %q", got)
	}
	if got := hiddenBelow("/agent.sock"); got != "" {
		t.Errorf("in the root directory it is hidden below %q", got)
	}
}

func TestAnAddressInUseIsToldFromOtherMistakes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = net.Listen("tcp", l.Addr().String())
	if !inUse(fmt.Errorf("listen: %w", err)) || inUse(errors.New("another")) {
		t.Errorf("%v", err)
	}
}

func TestTheSocketOfAnAgentIsFoundByItsStateDirectory(t *testing.T) {
	dir := t.TempDir()
	for says, c := range map[string]struct{ file, socket, stateDir, want string }{
		"beside its state":                    {filepath.Join(dir, "missing.yaml"), "", dir, filepath.Join(dir, "local.sock")},
		"where a socket is named, that one":   {filepath.Join(dir, "missing.yaml"), "/run/x.sock", dir, "/run/x.sock"},
		"else the machine's own where unread": {filepath.Join(dir, "missing.yaml"), "", "", defaultSocket(defaultStateDir())},
	} {
		if got := socketOf(c.file, c.socket, c.stateDir); got != c.want {
			t.Errorf("%s: %s", says, got)
		}
	}
}
