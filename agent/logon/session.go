// Package logon knows who is logged on to this machine, tells when that changes, and logs users off.
package logon

import "time"

// Session is one logon of one user.
type Session struct {
	ID   string `json:"id"`   // as the operating system names it
	User string `json:"user"` // alice; on Windows EXAMPLE\alice
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"`
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
