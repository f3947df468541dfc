package logon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	hangupGrace = 5 * time.Second // for programs that save what they have when their terminal goes
	hangupPause = 50 * time.Millisecond
)

// LogOff hangs up the terminal of the session: SIGHUP to every process of it, then SIGKILL. A session without a terminal
// of its own, or one whose first process is neither the user's nor the one recorded, is not touched.
func (u *utmp) LogOff(ctx context.Context, session Session) error {
	line := strings.TrimPrefix(session.ID[:strings.LastIndexByte(session.ID, ':')], utmpPrefix)
	var device unix.Stat_t
	if err := unix.Lstat(filepath.Join(u.devices, line), &device); err != nil || device.Mode&unix.S_IFMT != unix.S_IFCHR {
		return fmt.Errorf("without logind only sessions at a terminal can be ended, and %s is none", line)
	}
	leader, err := leaderOf(device.Rdev)
	if err != nil || leader == 0 {
		return err // nobody is there any more
	}
	if owner, err := ownerOf(leader); err != nil || owner != session.UID && leader != session.Leader {
		return fmt.Errorf("terminal %s is used by process %d of uid %d, which is not the session's", line, leader, owner)
	}
	return hangUp(ctx, leader, device.Rdev)
}

// hangUp ends every process of the session that has the terminal.
func hangUp(ctx context.Context, leader int, device uint64) error {
	signal, until := unix.SIGHUP, time.Now().Add(hangupGrace)
	for {
		members, err := processes(func(p processOnTerminal) bool { return p.session == leader && p.device == device })
		if err != nil || len(members) == 0 {
			return err
		}
		for _, pid := range members {
			if err := send(pid, leader, device, signal); err != nil {
				return err
			}
		}
		signal = 0 // programs are told once
		if time.Now().After(until) {
			signal = unix.SIGKILL
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(hangupPause):
		}
	}
}

// send looks again once it holds the process, which cannot become another from then on. A signal 0 only looks.
func send(pid, leader int, device uint64, signal unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hold process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if p, err := terminalOf(pid); err != nil || p.session != leader || p.device != device {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end process %d: %w", pid, err)
	}
	return nil
}

// leaderOf is the leader of the session that has the terminal; 0 if none has.
func leaderOf(device uint64) (int, error) {
	found, err := processes(func(p processOnTerminal) bool { return p.pid == p.session && p.device == device })
	if err != nil || len(found) == 0 {
		return 0, err
	}
	return found[0], nil
}

func ownerOf(pid int) (uint32, error) {
	var info unix.Stat_t
	err := unix.Stat(filepath.Join("/proc", strconv.Itoa(pid)), &info)
	return info.Uid, err
}

// processOnTerminal is what the process table says of one.
type processOnTerminal struct {
	pid, session int
	device       uint64 // of the controlling terminal; 0: none
}

func processes(match func(processOnTerminal) bool) (pids []int, err error) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name.Name())
		if err != nil {
			continue
		}
		if p, err := terminalOf(pid); err == nil && match(p) { // an error: it has ended
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// terminalOf leaves out zombies, which nothing can end.
func terminalOf(pid int) (processOnTerminal, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return processOnTerminal{}, err
	}
	// The second field is the program's name in brackets, in which it may write what it likes.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 5 || fields[0] == "Z" || fields[0] == "X" {
		return processOnTerminal{}, fmt.Errorf("process %d has ended", pid)
	}
	session, err := strconv.Atoi(fields[3])
	if err != nil {
		return processOnTerminal{}, err
	}
	// proc(5): the major number is in bits 15 to 8, the minor one in 31 to 20 and 7 to 0.
	number, err := strconv.ParseInt(fields[4], 10, 64)
	if err != nil {
		return processOnTerminal{}, err
	}
	n := uint32(number)
	return processOnTerminal{pid: pid, session: session, device: unix.Mkdev(n>>8&0xfff, n&0xff|n>>20<<8)}, nil
}
