package logon

import (
	"cmp"
	"slices"
	"strings"
)

// Choose finds the session in which a program of that user runs; user "" is any. The session in the foreground of this
// machine's own screen comes first, then graphical ones, then those in use rather than left open, then the newest.
func Choose(sessions []Session, user string) (Session, bool) {
	ours := slices.DeleteFunc(slices.Clone(sessions), func(s Session) bool { return user != "" && !sameUser(s.User, user) })
	if len(ours) == 0 {
		return Session{}, false
	}
	return slices.MinFunc(ours, func(a, b Session) int {
		return cmp.Or(
			falseFirst(!a.foreground(), !b.foreground()),
			falseFirst(!a.Graphical(), !b.Graphical()),
			falseFirst(!a.Active, !b.Active),
			b.Since.Compare(a.Since),
			cmp.Compare(a.ID, b.ID),
		)
	}), true
}

// Users are the distinct names, sorted. One that differs by case only, where case does not count, is the same.
func Users(sessions []Session) []string {
	var users []string
	for _, s := range sessions {
		if !slices.ContainsFunc(users, func(known string) bool { return sameUser(known, s.User) }) {
			users = append(users, s.User)
		}
	}
	slices.Sort(users)
	return users
}

// foreground says that somebody who sits before the machine has the session before his eyes.
func (s Session) foreground() bool { return s.Active && !s.Remote && s.Seat != "" }

// sameUser compares exactly, but names of a Windows domain as the domain does: without case.
func sameUser(a, b string) bool {
	return a == b || strings.Contains(a, `\`) && strings.EqualFold(a, b)
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
