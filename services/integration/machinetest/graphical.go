package machinetest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"

	"github.com/godbus/dbus/v5"
)

// display of graphical sessions. Nothing is there to be seen: tests look at who would be shown what, and where.
const display = ":0"

// GraphicalLogin logs a user on as a display manager does, which tells logind of the display that its PAM session
// names. It lasts until Logout, or until the test ends or the machine restarts.
func (m *Machine) GraphicalLogin(user string) *Session {
	m.t.Helper()
	unit := m.newUnit(user)
	m.Exec("systemd-run", "--quiet", "--collect", "--unit="+unit, "--uid="+user,
		"--setenv=DISPLAY="+display, "--setenv=XDG_SESSION_TYPE=x11", "sleep", "infinity")
	leader, err := strconv.ParseUint(m.Exec("systemctl", "show", "--property=MainPID", "--value", unit), 10, 32)
	if err != nil {
		m.t.Fatal(err)
	}
	uid, err := strconv.ParseUint(m.Exec("id", "-u", user), 10, 32)
	if err != nil {
		m.t.Fatal(err)
	}
	id, held, err := createSession(filepath.Join("/proc", m.boots.leader(), "root/run/dbus/system_bus_socket"), uint32(uid), uint32(leader))
	if err != nil {
		m.t.Fatalf("%s: log %s on: %v", m.Name, user, err)
	}
	s := m.session(user, func() {
		held.Close()
		_ = m.command(context.Background(), "systemctl", "stop", unit).Run()
	})
	s.ID, s.Leader = id, int(leader)
	return s
}

// createSession does what pam_systemd does. The session is over when the file is closed and the leader has ended.
func createSession(bus string, uid, leader uint32) (id string, held *os.File, err error) {
	conn, err := dbus.Connect("unix:path=" + bus)
	if err != nil {
		return "", nil, err
	}
	defer conn.Close()
	type property struct {
		Name  string
		Value dbus.Variant
	}
	call := conn.Object("org.freedesktop.login1", "/org/freedesktop/login1").Call("org.freedesktop.login1.Manager.CreateSession", 0,
		uid, leader, "display-manager", "x11", "user", "", "", uint32(0), "", display, false, "", "", []property{})
	var (
		object        dbus.ObjectPath
		runtime, seat string
		fd            dbus.UnixFD
		owner, vt     uint32
		existing      bool
	)
	if err := call.Store(&id, &object, &runtime, &fd, &owner, &seat, &vt, &existing); err != nil {
		return "", nil, err
	}
	return id, os.NewFile(uintptr(fd), "session "+id), nil
}
