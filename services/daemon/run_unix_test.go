//go:build unix

package daemon

import (
	"os"
	"syscall"
	"testing"
	"time"
)

func TestASignalEndsTheContext(t *testing.T) {
	ctx, stop := UntilSignal(t.Context())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the context did not end")
	}
}
