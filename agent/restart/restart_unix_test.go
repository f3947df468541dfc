//go:build unix

package restart

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestARefusalHoldsTheSystemsWords never reaches the real programs: its PATH leads nowhere else.
func TestARefusalHoldsTheSystemsWords(t *testing.T) {
	name, args := command("why\x1b[2J now\nand here")
	if len(args) == 0 {
		t.Fatalf("%s has no arguments", name)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"refused: $*\" >&2\nexit 5\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	err := Machine(t.Context(), "why\x1b[2J now\nand here")
	if err == nil || !strings.Contains(err.Error(), "refused: ") || !strings.Contains(err.Error(), "exit status 5") {
		t.Fatalf("the error is %v", err)
	}
	if strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("control characters went through: %q", err)
	}
}

func TestARestartThatNobodyWaitsForIsNotAskedFor(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // never the real program
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Machine(ctx, "why"); err == nil {
		t.Fatal("it says that the machine restarts")
	}
}
