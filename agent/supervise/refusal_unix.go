//go:build unix

package supervise

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func executable(info fs.FileInfo) bool { return info.Mode().Perm()&0o111 != 0 }

func notAProgram(err error) bool { return errors.Is(err, unix.ENOEXEC) }

func badDirectory(err error) bool { return errors.Is(err, unix.ENOTDIR) }

func denied(err error) bool { return errors.Is(err, fs.ErrPermission) }

// exitStatus is the exit code, or -1 and the name of the signal.
func exitStatus(state *os.ProcessState) (code int, signal string) {
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() {
		return -1, unix.SignalName(status.Signal())
	}
	return state.ExitCode(), ""
}
