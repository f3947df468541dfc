package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// forbidDumps keeps the memory of this process from disks, and from other processes of its user. A program that it
// executes may be dumped again.
func forbidDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid dumps of memory: %w", err)
	}
	return nil
}

// forbidCores says the same once more. It comes after the start, since programs inherit it.
func forbidCores() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid dumps of memory: %w", err)
	}
	return nil
}

// ofProgram says whether a process, or one of its threads, is in the program's group or comes from this process. Both are
// asked, since there may be no group, and a session's own may take a process out of it.
func ofProgram(group string, pid int) bool {
	if group != "" && isWithin("/"+filepath.Join(filepath.Base(filepath.Dir(group)), programChild), groupOf(pid)) {
		return true
	}
	for range maxDescent {
		fields, err := processStat(pid)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(fields[1]) // its parent
		if err != nil || pid == os.Getpid() {
			return err == nil
		}
		if pid <= 1 {
			return false
		}
	}
	return false
}

// maxDescent bounds the ancestors of a process.
const maxDescent = 4096

// groupOf is the process's cgroup from that of a run on, "" if it is in none.
func groupOf(pid int) string {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if path, found := strings.CutPrefix(line, "0::"); found {
			if i := strings.Index(path, "/"+groupPrefix); i >= 0 {
				return strings.TrimSpace(path[i:])
			}
		}
	}
	return ""
}
