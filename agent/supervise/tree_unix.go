//go:build unix

package supervise

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	programUmask = 0o022 // not the agent's, which may be stricter than what installers expect
	killLimit    = 10 * time.Second
	killPause    = 10 * time.Millisecond
)

// tree is every process that came from the program.
type tree struct {
	group string // of the program; "" when there is none
	pid   int    // of the program, which leads a session and process group
}

// newTree prepares the supervisor, which is in the group parent if that is not empty, to own a program's processes.
func newTree(parent string) (*tree, error) {
	t := &tree{group: programGroup(parent)}
	syscall.Umask(programUmask)
	if err := keepFiles(); err != nil {
		return nil, err
	}
	if t.group == "" {
		return t, adoptOrphans()
	}
	return t, nil
}

// keepFiles keeps the program from inheriting what this process inherited, of whoever started the agent.
func keepFiles() error {
	files, err := os.ReadDir("/dev/fd")
	if err != nil {
		return fmt.Errorf("list inherited files: %w", err)
	}
	for _, file := range files {
		if fd, err := strconv.Atoi(file.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

func (t *tree) groupName() string { return t.group }

// start prepares cmd and calls begin, which starts it.
func (t *tree) start(cmd *exec.Cmd, spec Spec, begin func() error) error {
	if spec.CommandLine != "" {
		return errors.New("a command line is for Windows only")
	}
	if spec.Logon != nil {
		return errors.New("a logon is for Windows only")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c := spec.Credential; c != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
	}
	leave, err := enterGroup(cmd.SysProcAttr, t.group)
	if err != nil {
		return err
	}
	defer leave()
	if err := begin(); err != nil {
		return err
	}
	t.pid = cmd.Process.Pid
	if t.group == "" {
		go reapOrphans(t.pid)
	}
	return nil
}

// kill returns when nothing of the tree is alive.
func (t *tree) kill() error {
	if t.group != "" {
		return killGroup(t.group)
	}
	unix.Kill(-t.pid, unix.SIGKILL)
	self := os.Getpid()
	return killUntilNone(func() ([]int, error) { return descendants(self) })
}

// killRecorded kills, without a supervisor, the group or, after a check that the process id was not given to another, the
// program with its descendants. Nothing left to kill is no error.
func killRecorded(group string, program process) error {
	if group != "" {
		return killGroup(group)
	}
	if identity, err := processStart(program.PID); err != nil || identity != program.Start {
		return nil
	}
	below, err := descendants(program.PID)
	unix.Kill(-program.PID, unix.SIGKILL)
	for _, pid := range below {
		unix.Kill(pid, unix.SIGKILL)
	}
	return err
}

// launch starts the supervisor in a session of its own, and in the group if there is one.
func launch(group string, _ *Logon, command func() *exec.Cmd) (*exec.Cmd, error) {
	cmd := command()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	leave, err := enterGroup(cmd.SysProcAttr, group)
	if err != nil {
		return nil, err
	}
	defer leave()
	return cmd, cmd.Start()
}

// killUntilNone repeats, because a process may fork between being listed and being killed.
func killUntilNone(list func() ([]int, error)) error {
	for deadline := time.Now().Add(killLimit); ; time.Sleep(killPause) {
		pids, err := list()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes survive being killed", len(pids))
		}
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// entry is one line of the process table.
type entry struct {
	pid, parent int
	zombie      bool
}

// descendants lists the live processes below root. Zombies are followed, not listed.
func descendants(root int) ([]int, error) {
	table, err := processTable()
	if err != nil {
		return nil, err
	}
	children := map[int][]entry{}
	for _, e := range table {
		children[e.parent] = append(children[e.parent], e)
	}
	live := map[int]bool{}
	seen := map[int]bool{root: true}
	for next := []int{root}; len(next) > 0; {
		pid := next[0]
		next = next[1:]
		for _, child := range children[pid] {
			if seen[child.pid] {
				continue
			}
			seen[child.pid] = true
			next = append(next, child.pid)
			if !child.zombie {
				live[child.pid] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(live)), nil
}
