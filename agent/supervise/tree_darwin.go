package supervise

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

const zombieState = 5 // SZOMB of sys/proc.h

// macOS has neither cgroups nor subreapers: the process group and the table of parents is all there is.

func makeGroup() string          { return "" }
func removeGroup(string)         {}
func programGroup(string) string { return "" }
func killGroup(string) error     { return nil }
func closeGroup(string)          {}
func adoptOrphans() error        { return nil }
func reapOrphans(int)            {}

func enterGroup(*syscall.SysProcAttr, string) (leave func(), err error) { return func() {}, nil }

func processTable() ([]entry, error) {
	all, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	table := make([]entry, 0, len(all))
	for _, p := range all {
		table = append(table, entry{pid: int(p.Proc.P_pid), parent: int(p.Eproc.Ppid), zombie: p.Proc.P_stat == zombieState})
	}
	return table, nil
}

// processStart is the wall-clock time of the start.
func processStart(pid int) (string, error) {
	p, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return "", fmt.Errorf("look up process %d: %w", pid, err)
	}
	return fmt.Sprintf("%d.%06d", p.Proc.P_starttime.Sec, p.Proc.P_starttime.Usec), nil
}
