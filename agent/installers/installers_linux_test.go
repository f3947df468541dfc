package installers

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// lockVariable makes this test's program lock that file until its standard input ends.
const lockVariable = "CHANDLER_TEST_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(lockVariable); path != "" {
		if err := hold(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func hold(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FcntlFlock(file.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return err
	}
	fmt.Println("locked")
	_, err = os.Stdin.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func TestWhoHoldsALockIsNamed(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "var/lib/dpkg/lock-frontend")
	if holder, err := holderBelow(root, Dpkg); holder != "" || err != nil {
		t.Fatalf("where there is no dpkg: %q, %v", holder, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if holder, err := holderBelow(root, Dpkg); holder != "" || err != nil {
		t.Fatalf("a lock that nobody holds: %q, %v", holder, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), lockVariable+"="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	holder, err := holderBelow(root, Dpkg)
	if err != nil || !strings.Contains(holder, fmt.Sprintf("process %d (", cmd.Process.Pid)) || !strings.Contains(holder, path) {
		t.Errorf("the holder is %q, %v; want process %d and %s", holder, err, cmd.Process.Pid, path)
	}
	if holder, err := holderBelow(root, Rpm); holder != "" || err != nil {
		t.Errorf("another installer's lock: %q, %v", holder, err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if holder, err := holderBelow(root, Dpkg); holder != "" || err != nil {
		t.Errorf("after its holder has ended: %q, %v", holder, err)
	}
}

func TestALockThatCannotBeLookedAtIsAnError(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", filepath.Join(root, "var/lib/loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", filepath.Join(root, "var/lib/dpkg")); err != nil {
		t.Fatal(err)
	}
	if holder, err := holderBelow(root, Dpkg); err == nil {
		t.Errorf("got %q and no error", holder)
	}
	if holder, err := LockHolder("an installer that nobody knows"); holder != "" || err != nil {
		t.Errorf("got %q, %v", holder, err)
	}
}
