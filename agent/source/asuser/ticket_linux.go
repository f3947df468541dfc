package asuser

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxProcesses   = 10_000
	maxEnvironment = 128 << 10
	maxName        = 1 << 10
)

func findTicket(session string) string { return findTicketIn("/proc", os.Getuid(), session) }

// findTicketIn prefers what processes of the session say, and of that the file that was written last.
func findTicketIn(proc string, uid int, session string) (name string) {
	dir, err := os.Open(proc)
	if err != nil {
		return ""
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxProcesses) // an error: fewer are found
	best, written := false, time.Time{}
	for _, pid := range names {
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		env := environmentOf(filepath.Join(proc, pid, "environ"), uid)
		ticket := strings.TrimPrefix(env[ticketVariable], "FILE:")
		if len(ticket) > maxName || !filepath.IsAbs(ticket) {
			continue
		}
		info, err := os.Lstat(ticket)
		if err != nil || !isOwn(info, uid) || !info.Mode().IsRegular() {
			continue
		}
		same := session != "" && env["XDG_SESSION_ID"] == session
		if name == "" || same && !best || same == best && info.ModTime().After(written) {
			name, best, written = ticket, same, info.ModTime()
		}
	}
	return name
}

// environmentOf is empty for a process that is not the user's.
func environmentOf(path string, uid int) map[string]string {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !isOwn(info, uid) {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(file, maxEnvironment))
	if err != nil {
		return nil
	}
	env := map[string]string{}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		if name, value, ok := strings.Cut(entry, "="); ok && (name == ticketVariable || name == "XDG_SESSION_ID") {
			env[name] = value
		}
	}
	return env
}

func isOwn(info os.FileInfo, uid int) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == uid
}
