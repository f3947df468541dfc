//go:build unix

package agent

import (
	"fmt"
	"os"
	"syscall"
)

func makeRuns(root string, passable bool) error {
	mode := os.FileMode(0o700)
	if passable {
		mode = 0o711
	}
	if err := os.MkdirAll(root, mode); err != nil {
		return err
	}
	info, err := os.Lstat(root)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a directory of the agent's own", root)
	}
	if info.Mode().Perm() == mode {
		return nil
	}
	return os.Chmod(root, mode) // made under a stricter umask
}
