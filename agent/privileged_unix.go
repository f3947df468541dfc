//go:build unix

package agent

import (
	"io/fs"
	"os"
	"syscall"
)

func privileged() bool { return os.Geteuid() == 0 }

// ours says whether a file is the agent's own user's.
func ours(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
