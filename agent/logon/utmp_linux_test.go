package logon

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"chandler/agent/account"
)

// line is a record of utmp as the C library writes it.
func line(size int, kind uint16, pid int32, terminal, user, host string, since int64) []byte {
	data := make([]byte, size)
	binary.NativeEndian.PutUint16(data, kind)
	binary.NativeEndian.PutUint32(data[4:], uint32(pid))
	copy(data[8:40], terminal)
	copy(data[44:76], user)
	copy(data[76:332], host)
	if size == 400 {
		binary.NativeEndian.PutUint64(data[344:], uint64(since))
	} else {
		binary.NativeEndian.PutUint32(data[340:], uint32(since))
	}
	return data
}

func TestUtmpRecordsAreRead(t *testing.T) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	long := strings.Repeat("u", 32) // fills its field, without a NUL
	for _, size := range []int{384, 400} {
		var data []byte
		for _, one := range [][]byte{
			line(size, 2, 0, "~", "reboot", "6.1.0", since.Unix()),
			line(size, 6, 700, "tty1", "LOGIN", "", since.Unix()),
			line(size, userProcess, 800, "tty2", "alice", "", since.Unix()),
			line(size, userProcess, 900, "pts/0", long, "10.0.0.1", since.Unix()),
			line(size, 8, 901, "pts/1", "bob", "", since.Unix()),
		} {
			data = append(data, one...)
		}
		got, err := parseUtmp(data, size)
		if err != nil {
			t.Fatal(err)
		}
		want := []record{{pid: 800, line: "tty2", user: "alice", since: since}, {pid: 900, line: "pts/0", user: long, host: "10.0.0.1", since: since}}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(record{})); diff != "" {
			t.Errorf("records of %d bytes: %s", size, diff)
		}
	}
}

func TestUtmpThatIsNotUnderstoodIsAnError(t *testing.T) {
	for name, data := range map[string][]byte{
		"half a record":                make([]byte, 384+100),
		"a logon without a user":       line(384, userProcess, 800, "tty2", "", "", 0),
		"a logon without a process":    line(384, userProcess, 0, "tty2", "alice", "", 0),
		"a negative process":           line(384, userProcess, -1, "tty2", "alice", "", 0),
		"a terminal outside of /dev":   line(384, userProcess, 800, "../etc/x", "alice", "", 0),
		"a terminal by absolute path":  line(384, userProcess, 800, "/etc/x", "alice", "", 0),
		"a name that is not UTF-8":     line(384, userProcess, 800, "tty2", "\xff", "", 0),
		"more than a machine can have": make([]byte, maxUtmp+384),
	} {
		if records, err := parseUtmp(data, 384); err == nil {
			t.Errorf("%s: %v", name, records)
		}
	}
}

func FuzzUtmp(f *testing.F) {
	f.Add(line(384, userProcess, 800, "tty2", "alice", "host", 1), false)
	f.Add(line(400, userProcess, 800, "pts/0", "alice", "", 1), true)
	f.Fuzz(func(t *testing.T, data []byte, wide bool) {
		size := 384
		if wide {
			size = 400
		}
		records, err := parseUtmp(data, size)
		if err == nil && len(records) > len(data)/size {
			t.Errorf("%d records in %d bytes", len(records), len(data))
		}
		for _, r := range records {
			if s := r.session("tty1"); !isUtmp(s) || s.User == "" || !filepath.IsLocal(r.line) {
				t.Errorf("session %+v", s)
			}
		}
	})
}

func TestAUtmpRecordIsASession(t *testing.T) {
	for _, test := range []struct {
		name string
		r    record
		want Session
	}{
		{"the terminal on the screen", record{line: "tty1"}, Session{Type: "tty", Seat: "seat0", Active: true}},
		{"a terminal that is switched away", record{line: "tty2"}, Session{Type: "tty", Seat: "seat0"}},
		{"a serial line", record{line: "ttyS0"}, Session{Type: "tty", Active: true}},
		{"ssh", record{line: "pts/0", host: "10.0.0.1"}, Session{Type: "tty", Remote: true, Active: true}},
		{"a window of a graphical session", record{line: "pts/0", host: ":0"}, Session{Type: "tty", Active: true}},
		{"a graphical session", record{line: ":0", host: ":0"}, Session{Type: "x11", Display: ":0", Seat: "seat0", Active: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.r.user, test.r.pid = "alice", 7
			test.want.ID, test.want.User, test.want.Leader = "utmp:"+test.r.line+":7", "alice", 7
			if diff := cmp.Diff(test.want, test.r.session("tty1")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOnlyLogonsWhoseProcessLivesAreListed(t *testing.T) {
	own, err := account.LookupUID(t.Context(), uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	pid, now := int32(os.Getpid()), time.Now().Unix()
	var data []byte
	for _, one := range [][]byte{
		line(recordSize(), userProcess, pid, "pts/77", own.Name, "10.0.0.1", now),
		line(recordSize(), userProcess, int32(ended.Process.Pid), "pts/78", own.Name, "", now),
		line(recordSize(), userProcess, pid, "pts/79", own.Name, "", now-3600), // the number of a process is another's now
	} {
		data = append(data, one...)
	}
	u := &utmp{file: filepath.Join(t.TempDir(), "utmp"), devices: "/dev"}
	if err := os.WriteFile(u.file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from what was looked up before
		got, err := u.List(t.Context())
		if err != nil || len(got) != 1 || got[0].ID != "utmp:pts/77:"+strconv.Itoa(int(pid)) || got[0].UID != own.UID {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestUtmpIsAskedOnlyWhereNoLogindHasBeen(t *testing.T) {
	dir := t.TempDir()
	own, err := account.LookupUID(t.Context(), uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	s := &system{
		logind: &logind{address: "unix:path=" + filepath.Join(dir, "bus")},
		utmp:   &utmp{file: filepath.Join(dir, "utmp"), devices: "/dev"}, trace: filepath.Join(dir, "seats"),
	}
	if _, err := s.List(t.Context()); !errors.Is(err, errNoLogind) || !strings.Contains(err.Error(), s.utmp.file) {
		t.Errorf("neither is there: %v", err)
	}
	record := line(recordSize(), userProcess, int32(os.Getpid()), "pts/77", own.Name, "", time.Now().Unix())
	if err := os.WriteFile(s.utmp.file, record, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.List(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("only utmp is there: %v, %v", got, err)
	}
	if err := os.Mkdir(s.trace, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := s.List(t.Context()); !errors.Is(err, errNoLogind) {
		t.Errorf("logind is only down: %v, %v", got, err)
	}
}

// atTerminal starts a shell at a terminal of its own, as login does, and gives its terminal's name and process.
func atTerminal(t *testing.T, script string) (terminal string, shell *exec.Cmd) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal = "pts/" + strconv.Itoa(number)
	slave, err := os.OpenFile("/dev/"+terminal, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	// What this process ignores, started by nohup for instance, a child would ignore too; what it handles, it would not.
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, unix.SIGHUP)
	t.Cleanup(func() { signal.Stop(heard) })
	shell = exec.Command("/bin/sh", "-c", script)
	shell.Stdin, shell.Stdout, shell.Stderr = slave, slave, slave
	shell.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shell.Process.Kill() })
	if answer, err := master.Read(make([]byte, 1)); answer != 1 { // the script says that it runs
		t.Fatal(err)
	}
	return terminal, shell
}

func TestASessionAtATerminalIsHungUp(t *testing.T) {
	terminal, shell := atTerminal(t, `sleep 300 & echo ready; wait`)
	session := Session{ID: "utmp:" + terminal + ":1", User: "alice", UID: uint32(os.Getuid()), Leader: shell.Process.Pid}
	left := make(chan error, 1)
	go func() { left <- shell.Wait() }()
	if err := (&system{utmp: &utmp{devices: "/dev"}}).LogOff(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	if err := <-left; err == nil || !strings.Contains(err.Error(), "hangup") {
		t.Errorf("the shell ended with %v", err)
	}
	if err := (&utmp{devices: "/dev"}).LogOff(t.Context(), session); err != nil {
		t.Errorf("a session that has ended: %v", err)
	}
}

func TestOnlyASessionThatIsSurelyTheUsersIsEnded(t *testing.T) {
	terminal, shell := atTerminal(t, `trap '' HUP; echo ready; sleep 300`)
	u, dir := &utmp{devices: "/dev"}, t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "console"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	another := uint32(os.Getuid() + 1)
	for _, test := range []struct {
		name    string
		utmp    *utmp
		session Session
	}{
		{"a terminal that another user has", u, Session{ID: "utmp:" + terminal + ":1", UID: another, Leader: 1}},
		{"a display", u, Session{ID: "utmp::0:1"}},
		{"a file that is no terminal", &utmp{devices: dir}, Session{ID: "utmp:console:1"}},
		{"a device that is no character device", u, Session{ID: "utmp:shm:1"}},
	} {
		if err := test.utmp.LogOff(t.Context(), test.session); err == nil {
			t.Errorf("%s: ended", test.name)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*hangupPause)
	defer cancel()
	// One that ignores the hangup is given time.
	if err := u.LogOff(ctx, Session{ID: "utmp:" + terminal + ":1", UID: another, Leader: shell.Process.Pid}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the recorded process's own session: %v", err)
	}
	if err := unix.Kill(shell.Process.Pid, 0); err != nil {
		t.Errorf("the shell: %v", err)
	}
}
