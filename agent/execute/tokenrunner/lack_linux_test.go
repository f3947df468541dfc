package tokenrunner

import (
	"testing"

	"golang.org/x/sys/unix"
)

// lack hides a program from this process, which has mounts of its own.
func lack(t *testing.T, program string) {
	t.Helper()
	if err := unix.Mount("/dev/null", program, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(program, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
