package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// adoptOrphans makes this process the parent of every descendant whose own parent dies, so that none gets out of sight.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of orphans: %w", err)
	}
	return nil
}

// reapOrphans keeps adopted processes from staying as zombies. The program itself is left to its own Wait.
func reapOrphans(program int) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	self := os.Getpid()
	for range died {
		table, err := processTable()
		if err != nil {
			continue
		}
		for _, e := range table {
			if e.parent == self && e.zombie && e.pid != program {
				unix.Wait4(e.pid, nil, unix.WNOHANG, nil)
			}
		}
	}
}

func processTable() ([]entry, error) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var table []entry
	for _, name := range names {
		pid, err := strconv.Atoi(name.Name())
		if err != nil {
			continue
		}
		fields, err := processStat(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, fmt.Errorf("parent of process %d: %w", pid, err)
		}
		table = append(table, entry{pid: pid, parent: parent, zombie: fields[0] == "Z" || fields[0] == "X"})
	}
	return table, nil
}

// processStart is the boot and the clock tick of the start.
func processStart(pid int) (string, error) {
	fields, err := processStat(pid)
	if err != nil {
		return "", err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(boot)) + "/" + fields[19], nil
}

func processStat(pid int) ([]string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil, err
	}
	return statFields(string(data))
}

// statFields are those of /proc/PID/stat from the third, the state, on. The second is the program's name, in which the
// program may write what it likes, brackets included.
func statFields(stat string) ([]string, error) {
	_, rest, found := strings.Cut(stat[strings.LastIndexByte(stat, ')')+1:], " ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return nil, fmt.Errorf("unexpected process status %q", stat)
	}
	return fields, nil
}
