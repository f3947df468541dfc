package logon

import "fmt"

// Environment is what everything in the session has in its environment, as name=value: the user's directory for the time of
// the logon and session bus, as far as they are there, and the session's id. Empty but on Linux.
func (s Session) Environment() []string { return environment(s) }

// Desktop is the environment, as name=value, by which a program finds the display of the session; home is that of the
// session's user. Where programs are not shown in the session, hidden says why; it is "" where they are, though perhaps
// without any environment, as on Windows.
//
// What the session's own programs have in their environment is not read: that takes rights over other processes which the
// agent does without. So DISPLAY is what logind was told, and the others are found where the usual display managers put
// them, among files that are the user's own. Not found: the X server that Wayland sessions offer besides (logind is not
// told its number), and authority files in other places (XAUTHORITY set by hand).
func (s Session) Desktop(home string) (env []string, hidden string) {
	if !s.Graphical() {
		kind := s.Type
		if kind == "" {
			kind = "of unknown type"
		}
		return nil, fmt.Sprintf("session %s of %s is not graphical (%s)", s.ID, s.User, kind)
	}
	return desktop(s, home)
}
