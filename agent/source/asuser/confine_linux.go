package asuser

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// startConfined starts from a thread that can gain no rights by executing a program, which its children inherit. The
// thread cannot go back, so it ends with its goroutine.
func startConfined(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	return <-started
}

// confineSelf leaves no core, and nobody but root looks into this process.
func confineSelf() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
