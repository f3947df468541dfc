// Package logon knows who is logged on to this machine, tells when that changes, and logs users off.
//
// Watcher has the logic; where sessions come from is a Driver's: on Linux logind by the system bus, or utmp on machines
// without logind; on Windows the terminal services; on macOS the user at the console, and nobody who came by ssh. Sessions
// of greeters, services and user managers are nobody's logon; root's are. Whoever is disconnected, locked or switched away
// is still logged on.
//
// Promises under failure. What cannot be found out is an error, never an empty list: nobody takes a machine for unused
// because a bus was down. In particular utmp, which knows nothing of many graphical sessions, is not asked where logind has
// been. The watcher polls besides being told, connects again by itself, and says once in the log that it cannot tell, and
// once that it can again. Every question to the system has a time limit.
package logon

import "time"

// Session is one logon of one user.
type Session struct {
	ID   string `json:"id"`   // as the operating system names it; another logon has another
	User string `json:"user"` // alice; on Windows EXAMPLE\alice
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"` // as far as logind tells; the user database knows
	// Number is the session's on Windows.
	Number  uint32    `json:"number,omitempty"`
	Type    string    `json:"type,omitempty"` // tty, x11, wayland, console, rdp; may be empty
	Seat    string    `json:"seat,omitempty"` // seat0: this machine's own screen and keyboard
	Display string    `json:"display,omitempty"`
	Leader  int       `json:"leader,omitempty"` // process id of the session's first process
	Remote  bool      `json:"remote,omitempty"`
	Active  bool      `json:"active,omitempty"` // in the foreground of its seat, or not on any
	Since   time.Time `json:"since,omitzero"`
}

// Graphical says whether programs can show windows in the session.
func (s Session) Graphical() bool {
	switch s.Type {
	case "x11", "wayland", "mir", "console", "rdp":
		return true
	}
	return false
}
