package logon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

const patience = 20 * time.Second

// bus is a private message bus whose daemon can be restarted.
type bus struct {
	dir string
	cmd *exec.Cmd
}

func newBus(t *testing.T) *bus {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatal("dbus-daemon is missing: apt-get install dbus")
		}
		t.Skip("needs dbus-daemon: apt-get install dbus")
	}
	dir, err := os.MkdirTemp("", "bus") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bus{dir: dir}
	config := fmt.Sprintf(`<busconfig><type>session</type><listen>%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>`, b.address())
	if err := os.WriteFile(filepath.Join(dir, "bus.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	t.Cleanup(func() { b.stop(t) })
	return b
}

func (b *bus) address() string { return "unix:path=" + filepath.Join(b.dir, "bus") }

// start returns when the bus accepts.
func (b *bus) start(t *testing.T) {
	t.Helper()
	b.cmd = exec.Command("dbus-daemon", "--config-file="+filepath.Join(b.dir, "bus.conf"), "--nofork", "--nopidfile", "--print-address")
	out, err := b.cmd.StdoutPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("the bus does not start: %v", err)
	}
}

func (b *bus) stop(t *testing.T) {
	t.Helper()
	if b.cmd == nil {
		return
	}
	b.cmd.Process.Kill()
	b.cmd.Wait()
	b.cmd = nil
	if err := os.Remove(filepath.Join(b.dir, "bus")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// login is a logind that says what the test wants.
type login struct {
	conn *dbus.Conn

	mu         sync.Mutex
	sessions   []listed
	properties map[dbus.ObjectPath]map[string]dbus.Variant
	terminated []string
}

func (b *bus) login(t *testing.T) *login {
	t.Helper()
	conn, err := dbus.Connect(b.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	l := &login{conn: conn, properties: map[dbus.ObjectPath]map[string]dbus.Variant{}}
	if err := errors.Join(conn.Export(manager{l}, login1Path, login1+".Manager"),
		conn.ExportSubtree(session{l}, login1Path+"/session", "org.freedesktop.DBus.Properties")); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(login1, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return l
}

func (l *login) add(one listed, properties map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one.Path = login1Path + "/session/" + dbus.ObjectPath("_3"+one.ID)
	l.sessions = append(l.sessions, one)
	if properties != nil {
		l.properties[one.Path] = map[string]dbus.Variant{}
		for name, value := range properties {
			l.properties[one.Path][name] = dbus.MakeVariant(value)
		}
	}
}

type manager struct{ *login }

func (m manager) ListSessions() ([]listed, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sessions), nil
}

func (m manager) TerminateSession(id string) *dbus.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.sessions {
		if one.ID == id && one.User == "held" {
			return dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"Access denied"})
		}
		if one.ID == id {
			m.terminated = append(m.terminated, id)
			return nil
		}
	}
	return dbus.NewError(login1+".NoSuchSession", []any{"No session '" + id + "' known"})
}

type session struct{ *login }

func (s session) GetAll(message dbus.Message, _ string) (map[string]dbus.Variant, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path, _ := message.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	if properties, found := s.properties[path]; found {
		return properties, nil
	}
	return nil, dbus.NewError("org.freedesktop.DBus.Error.UnknownObject", []any{"no such object"})
}

func logonOf(class, state, kind string) map[string]any {
	return map[string]any{"Class": class, "State": state, "Type": kind, "Active": state == "active", "Remote": false, "Display": "", "Leader": uint32(77), "Timestamp": uint64(0)}
}

func TestLogindsSessionsOfUsersAreListed(t *testing.T) {
	b := newBus(t)
	l := b.login(t)
	graphical := logonOf("user", "active", "x11")
	graphical["Display"], graphical["Timestamp"] = ":0", uint64(1_772_366_400_000_001)
	remote := logonOf("user", "online", "tty")
	remote["Remote"] = true
	l.add(listed{ID: "1", UID: 1000, User: "alice", Seat: "seat0"}, graphical)
	l.add(listed{ID: "2", UID: 1001, User: "bob"}, remote)
	l.add(listed{ID: "3", UID: 0, User: "root", Seat: "seat0"}, logonOf("user-early", "online", "tty"))
	l.add(listed{ID: "4", UID: 110, User: "gdm", Seat: "seat0"}, logonOf("greeter", "active", "wayland"))
	l.add(listed{ID: "5", UID: 1000, User: "alice"}, logonOf("manager", "active", "unspecified"))
	l.add(listed{ID: "6", UID: 33, User: "www"}, logonOf("background", "active", "unspecified"))
	l.add(listed{ID: "7", UID: 1000, User: "alice"}, logonOf("lock-screen", "active", "x11"))
	l.add(listed{ID: "8", UID: 1002, User: "carol"}, logonOf("user", "closing", "tty"))
	l.add(listed{ID: "9", UID: 1003, User: "dave"}, logonOf("user-incomplete", "online", "tty"))
	l.add(listed{ID: "10", UID: 1004, User: "erin"}, nil) // ends while they are listed
	l.add(listed{ID: "11", UID: 1005, User: "frank"}, map[string]any{"Class": "user", "Leader": "not a number", "Timestamp": int32(3)})
	driver := &logind{address: b.address()}
	got, err := driver.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Session{
		{ID: "1", User: "alice", UID: 1000, Type: "x11", Seat: "seat0", Display: ":0", Leader: 77, Active: true, Since: time.UnixMicro(1_772_366_400_000_001).UTC()},
		{ID: "2", User: "bob", UID: 1001, Type: "tty", Leader: 77, Remote: true},
		{ID: "3", User: "root", Type: "tty", Seat: "seat0", Leader: 77},
		{ID: "11", User: "frank", UID: 1005},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLogindEndsASession(t *testing.T) {
	b := newBus(t)
	l := b.login(t)
	l.add(listed{ID: "1", UID: 1000, User: "alice"}, nil)
	l.add(listed{ID: "2", UID: 1001, User: "held"}, nil)
	driver := &logind{address: b.address()}
	if err := driver.LogOff(t.Context(), Session{ID: "1"}); err != nil {
		t.Error(err)
	}
	if err := driver.LogOff(t.Context(), Session{ID: "3"}); err != nil {
		t.Errorf("one that has ended: %v", err)
	}
	if err := driver.LogOff(t.Context(), Session{ID: "2"}); err == nil || !strings.Contains(err.Error(), "Access denied") {
		t.Errorf("one that is refused: %v", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if diff := cmp.Diff([]string{"1"}, l.terminated); diff != "" {
		t.Error(diff)
	}
}

func TestALogindThatIsNotThereIsToldFromOneThatDoesNotAnswer(t *testing.T) {
	b := newBus(t)
	if _, err := (&logind{address: b.address()}).List(t.Context()); !errors.Is(err, errNoLogind) {
		t.Errorf("a bus without logind: %v", err)
	}
	if _, err := (&logind{address: "unix:path=" + filepath.Join(b.dir, "none")}).List(t.Context()); !errors.Is(err, errNoLogind) {
		t.Errorf("no bus: %v", err)
	}
	silent, err := net.Listen("unix", filepath.Join(b.dir, "silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := (&logind{address: "unix:path=" + filepath.Join(b.dir, "silent")}).List(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errNoLogind) {
		t.Errorf("a bus that says nothing: %v", err)
	}
}

func TestTheWatcherFollowsLogindAcrossARestartOfTheBus(t *testing.T) {
	b := newBus(t)
	driver := &system{logind: &logind{address: b.address()}, utmp: &utmp{file: filepath.Join(b.dir, "utmp")}, trace: b.dir}
	var log bytes.Buffer
	w := New(Options{Driver: driver, Every: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	awaitSessions(t, w, "error")
	first := b.login(t)
	awaitSessions(t, w, "")
	first.add(listed{ID: "1", UID: 1000, User: "alice"}, logonOf("user", "active", "tty"))
	awaitSessions(t, w, "1")
	b.stop(t)
	awaitSessions(t, w, "error")
	b.start(t)
	second := b.login(t)
	second.add(listed{ID: "2", UID: 1000, User: "alice"}, logonOf("user", "active", "tty"))
	awaitSessions(t, w, "2")
}

// awaitSessions waits until these ids are what the watcher gives.
func awaitSessions(t *testing.T, w *Watcher, want string) {
	t.Helper()
	limit := time.After(patience)
	for {
		changed := w.Changed()
		sessions, err := w.Sessions()
		var ids []string
		for _, s := range sessions {
			ids = append(ids, s.ID)
		}
		got := strings.Join(ids, " ")
		if err != nil && !errors.Is(err, errUnknownYet) {
			got = "error"
		}
		if got == want && !errors.Is(err, errUnknownYet) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("the watcher gives %q, %v; want %q", got, err, want)
		}
	}
}

func TestLogindTellsOfChangesAndOfItsOwnRestart(t *testing.T) {
	b := newBus(t)
	l := b.login(t)
	driver := &logind{address: b.address()}
	told := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- driver.Watch(ctx, func() { told <- struct{}{} }) }()
	next := func(what string) {
		t.Helper()
		select {
		case <-told:
		case err := <-ended:
			t.Fatalf("not told that %s: the watch has ended: %v", what, err)
		case <-time.After(patience):
			t.Fatalf("not told that %s", what)
		}
	}
	next("it listens")
	path := login1Path + "/session/_31"
	for _, signal := range []struct {
		path dbus.ObjectPath
		name string
		body []any
	}{
		{login1Path, login1 + ".Manager.SessionNew", []any{"1", path}},
		{path, "org.freedesktop.DBus.Properties.PropertiesChanged", []any{login1 + ".Session", map[string]dbus.Variant{"Active": dbus.MakeVariant(true)}, []string{}}},
		{login1Path, login1 + ".Manager.SessionRemoved", []any{"1", path}},
	} {
		if err := l.conn.Emit(signal.path, signal.name, signal.body...); err != nil {
			t.Fatal(err)
		}
		next(signal.name)
	}
	if _, err := l.conn.ReleaseName(login1); err != nil {
		t.Fatal(err)
	}
	next("logind has gone")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended by its context: %v", err)
	}
}

func TestOthersOnTheBusAreNotListenedTo(t *testing.T) {
	b := newBus(t)
	b.login(t)
	driver := &logind{address: b.address()}
	told := make(chan struct{}, 100)
	go driver.Watch(t.Context(), func() { told <- struct{}{} })
	<-told
	forger, err := dbus.Connect(b.address())
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	if err := forger.Emit(login1Path, login1+".Manager.SessionNew", "1", login1Path); err != nil {
		t.Fatal(err)
	}
	if _, err := driver.List(t.Context()); err != nil { // whatever was sent before has arrived
		t.Fatal(err)
	}
	if len(told) != 0 {
		t.Error("a stranger's signal was taken for logind's")
	}
}
