package supervise

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A run's cgroup holds the supervisor; a child of it, the program. No controller is enabled: the group is there to be
// killed, and to be outside the agent's unit.
const (
	groupPrefix  = "chandler-run-"
	programChild = "program"
)

// makeGroup makes a cgroup v2 for a run, "" when it cannot: outside any unit if we may, else below our own (delegated).
func makeGroup() string {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
			continue
		}
		top := filepath.Join(root, "chandler")
		os.Mkdir(top, 0o755)
		for _, parent := range []string{top, filepath.Join(root, ownGroup())} {
			group := filepath.Join(parent, groupPrefix+strings.ToLower(rand.Text()))
			if os.Mkdir(group, 0o755) == nil {
				return group
			}
		}
	}
	return ""
}

// ownGroup is this process's cgroup v2, relative to the root.
func ownGroup() string {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if path, found := strings.CutPrefix(line, "0::"); found {
			return strings.TrimSpace(path)
		}
	}
	return ""
}

// removeGroup removes a run's group, unless something is in it still.
func removeGroup(group string) {
	if group != "" {
		os.Remove(group)
	}
}

// programGroup makes the program's child of the supervisor's group, "" when it cannot.
func programGroup(parent string) string {
	if parent == "" {
		return ""
	}
	group := filepath.Join(parent, programChild)
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return ""
	}
	return group
}

// enterGroup lets a child begin in the group; the returned function is called after the start.
func enterGroup(attr *syscall.SysProcAttr, group string) (leave func(), err error) {
	if group == "" {
		return func() {}, nil
	}
	dir, err := os.Open(group)
	if err != nil {
		return nil, err
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	return func() { dir.Close() }, nil
}

// killGroup kills all in the group, below it too, and returns when it is empty. A group that has gone is no error.
func killGroup(group string) error {
	err := os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill %s: %w", group, err)
	}
	if err == nil {
		for deadline := time.Now().Add(killLimit); populated(group); time.Sleep(killPause) {
			if time.Now().After(deadline) {
				return fmt.Errorf("processes in %s survive being killed", group)
			}
		}
		return nil
	}
	return killUntilNone(func() ([]int, error) { return groupMembers(group) }) // before Linux 5.14
}

func populated(group string) bool {
	data, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
	return err == nil && strings.Contains(string(data), "populated 1")
}

// groupMembers lists the processes in the group and below.
func groupMembers(group string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return ignoreGone(err)
		}
		file, err := os.Open(path)
		if err != nil {
			return ignoreGone(err)
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if pid, err := strconv.Atoi(lines.Text()); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// closeGroup removes the group of this run and the program's in it, unless a daemon lives in them, and those of earlier
// runs whose daemons have ended since. The supervisor leaves its group first: it could not be removed with it inside.
func closeGroup(run string) {
	if run == "" {
		return
	}
	parent := filepath.Dir(run)
	if err := os.Remove(filepath.Join(run, programChild)); err == nil || errors.Is(err, fs.ErrNotExist) {
		os.WriteFile(filepath.Join(parent, "cgroup.procs"), []byte("0"), 0)
		os.Remove(run)
	}
	others, err := filepath.Glob(filepath.Join(parent, groupPrefix+"*", programChild))
	if err != nil {
		return
	}
	for _, other := range others {
		// A run under way has its supervisor in the upper group.
		if upper := filepath.Dir(other); !populated(upper) {
			os.Remove(other)
			os.Remove(upper)
		}
	}
}
