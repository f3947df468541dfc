//go:build unix

package vault

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// checkOwned refuses what neither root nor this user owns, or others may write to.
func checkOwned(path string, info fs.FileInfo) error {
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: it must belong to root or to the service's own user", path, owner.Uid)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode().Type() != fs.ModeSymlink && !stickyDirectory(info) { // a link's mode says nothing
		return fmt.Errorf("%s can be written to by others (mode %04o): chmod go-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// endTogether ends what the program started with it.
func endTogether(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
