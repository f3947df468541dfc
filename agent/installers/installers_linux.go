package installers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func lockHolder(installer string) (string, error) { return holderBelow("/", installer) }

// locks are the files that package managers lock, by the name of the installer. Not all are on every system.
var locks = map[string][]string{
	Dpkg: {"var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock"},
	Rpm:  {"usr/lib/sysimage/rpm/.rpm.lock", "var/lib/rpm/.rpm.lock"},
}

func holderBelow(root, installer string) (string, error) {
	for _, name := range locks[installer] {
		path := filepath.Join(root, name)
		pid, err := lockedBy(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if pid != 0 {
			return fmt.Sprintf("%s holds the lock %s", process(pid), path), nil
		}
	}
	return "", nil
}

// lockedBy is the process that would keep others from locking the whole file; 0: none. Nothing is locked for that.
func lockedBy(path string) (pid int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET}
	if err := unix.FcntlFlock(file.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, &fs.PathError{Op: "look at lock", Path: path, Err: err}
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return max(1, int(lock.Pid)), nil // of another namespace: no number
}

// process is a process in words.
func process(pid int) string {
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil || pid == 1 {
		return "another process"
	}
	return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(strings.ToValidUTF8(string(name), "?")))
}
