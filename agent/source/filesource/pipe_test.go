//go:build unix

package filesource

import (
	"path/filepath"
	"syscall"
	"testing"
)

func pipe(t *testing.T, dir string) string {
	path := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	return addressOf(path)
}
