package machinetest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// logonTimeout is how long a logon, or what a test waits for in a machine, may take.
const logonTimeout = 30 * time.Second

// AddUser makes an ordinary user with a home directory and no password, in these groups besides the user's
// own; groups that are not there are made.
func (m *Machine) AddUser(name string, groups ...string) {
	m.t.Helper()
	for _, group := range groups {
		m.Exec("groupadd", "--force", group)
	}
	m.Exec("useradd", "--create-home", "--shell", "/bin/bash", "--groups", strings.Join(groups, ","), name)
}

// Session is one logon of one user, as the machine's logind knows it.
type Session struct {
	ID     string
	User   string
	Leader int // process id of its first process, seen in the machine

	m   *Machine
	end func() // may be called again
}

// Login logs a user on at a terminal. It lasts until Logout, or until the test ends or the machine restarts.
func (m *Machine) Login(user string) *Session {
	m.t.Helper()
	return m.logon(user, "script -qfc 'exec login -f "+user+"' /dev/null")
}

// logon runs a line of sh that logs the user on, with nobody at the keyboard, until the session is there.
func (m *Machine) logon(user, line string) *Session {
	m.t.Helper()
	unit := m.newUnit(user)
	known := m.sessions(user)
	m.Exec("systemd-run", "--quiet", "--collect", "--unit="+unit, "sh", "-c", "sleep infinity | "+line)
	s := m.session(user, func() { _ = m.command(context.Background(), "systemctl", "stop", unit).Run() }) // which hangs up the terminal
	m.await(user+" logs on", func() error {
		for _, id := range m.sessions(user) {
			if !slices.Contains(known, id) && m.properties(id)["State"] == "active" {
				s.ID = id
				return nil
			}
		}
		return fmt.Errorf("%s", m.Exec("loginctl", "list-sessions"))
	})
	s.Leader = m.leaderOf(s.ID)
	return s
}

func (m *Machine) session(user string, end func()) *Session {
	m.t.Cleanup(end)
	return &Session{User: user, m: m, end: end}
}

// newUnit names a unit of systemd that nobody else has.
func (m *Machine) newUnit(user string) string {
	m.logons++
	return fmt.Sprintf("logon-%d-of-%s", m.logons, user)
}

// sessions lists the ids of a user's sessions.
func (m *Machine) sessions(user string) (ids []string) {
	m.t.Helper()
	for line := range strings.Lines(m.Exec("loginctl", "list-sessions", "--no-legend")) {
		if fields := strings.Fields(line); len(fields) >= 3 && fields[2] == user {
			ids = append(ids, fields[0])
		}
	}
	return ids
}

// properties are what logind says of a session; nothing if it is gone.
func (m *Machine) properties(session string) map[string]string {
	properties := map[string]string{}
	out, err := m.Command("loginctl", "show-session", session).Output()
	if err != nil {
		return properties
	}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		properties[name] = value
	}
	return properties
}

// leaderOf is the first process of a session.
func (m *Machine) leaderOf(session string) int {
	m.t.Helper()
	pid, err := strconv.Atoi(m.properties(session)["Leader"])
	if err != nil {
		m.t.Fatalf("%s: leader of session %s: %v", m.Name, session, err)
	}
	return pid
}

// Ended says whether logind has forgotten the session.
func (s *Session) Ended() bool { return len(s.m.properties(s.ID)) == 0 }

// Logout ends the session as its user does, and waits until logind has forgotten it.
func (s *Session) Logout() {
	s.m.t.Helper()
	s.end()
	s.AwaitEnd()
}

// AwaitEnd waits until logind has forgotten the session.
func (s *Session) AwaitEnd() {
	s.m.t.Helper()
	s.m.await("session "+s.ID+" of "+s.User+" ends", func() error {
		if !s.Ended() {
			return fmt.Errorf("%v", s.m.properties(s.ID))
		}
		return nil
	})
}

// Kill9 kills the main process of a service and gives its process id. Whoever is to start it again does.
func (m *Machine) Kill9(unit string) int {
	m.t.Helper()
	text := m.Exec("systemctl", "show", "--property=MainPID", "--value", unit)
	pid, err := strconv.Atoi(text)
	if err != nil || pid == 0 {
		m.t.Fatalf("%s: main process of %s is %q", m.Name, unit, text)
	}
	m.Exec("kill", "-KILL", text)
	m.await(unit+" is another process", func() error {
		if got := m.Exec("systemctl", "show", "--property=MainPID", "--value", unit); got == text || got == "0" {
			return fmt.Errorf("main process %s", got)
		}
		return nil
	})
	return pid
}

// await tries until there is no error.
func (m *Machine) await(what string, try func() error) {
	m.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(logonTimeout); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: %s: not within %s: %v", m.Name, what, logonTimeout, err)
		}
	}
}
