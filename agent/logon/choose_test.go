package logon

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestTheSessionInTheForegroundIsChosen(t *testing.T) {
	screen := Session{ID: "screen", User: "alice", Type: "wayland", Seat: "seat0", Active: true, Since: noon}
	console := Session{ID: "console", User: "alice", Type: "tty", Seat: "seat0", Active: true, Since: noon}
	switchedAway := Session{ID: "away", User: "bob", Type: "x11", Seat: "seat0", Since: noon.Add(time.Hour)}
	ssh := Session{ID: "ssh", User: "carol", Type: "tty", Remote: true, Active: true, Since: noon.Add(2 * time.Hour)}
	laterSSH := Session{ID: "later", User: "alice", Type: "tty", Remote: true, Active: true, Since: noon.Add(3 * time.Hour)}
	remoteDesktop := Session{ID: "3", User: `EXAMPLE\Dave`, Type: "rdp", Remote: true, Active: true, Since: noon}
	disconnected := Session{ID: "4", User: `EXAMPLE\erin`, Type: "rdp", Remote: true, Since: noon.Add(time.Hour)}
	for _, test := range []struct {
		name     string
		sessions []Session
		user     string
		want     string // "" for none
	}{
		{"nobody is logged on", nil, "", ""},
		{"the only one", []Session{ssh}, "", "ssh"},
		{"the active local seat before what is newer", []Session{laterSSH, switchedAway, console, ssh}, "", "console"},
		{"a graphical one before a tty, both in the foreground", []Session{console, screen}, "", "screen"},
		{"a graphical one before a tty, none in the foreground", []Session{ssh, switchedAway}, "", "away"},
		{"one in use before one that is disconnected", []Session{disconnected, remoteDesktop}, "", "3"},
		{"the newest of equals", []Session{ssh, laterSSH}, "", "later"},
		{"only the user's", []Session{screen, ssh}, "carol", "ssh"},
		{"the user's best", []Session{laterSSH, screen, ssh}, "alice", "screen"},
		{"a user who is not logged on", []Session{screen}, "mallory", ""},
		{"a part of a name is another user", []Session{screen}, "ali", ""},
		{"case counts", []Session{screen}, "Alice", ""},
		{"case does not count in a domain", []Session{screen, remoteDesktop}, `example\dave`, "3"},
		{"another domain is another user", []Session{remoteDesktop}, `OTHER\Dave`, ""},
		{"a domain's user is not the local one", []Session{remoteDesktop}, "Dave", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, found := Choose(test.sessions, test.user)
			if got.ID != test.want || found != (test.want != "") {
				t.Errorf("%q, %v; want %q", got.ID, found, test.want)
			}
		})
	}
}

func TestChoosingLeavesTheListAlone(t *testing.T) {
	sessions := []Session{{ID: "1", User: "alice"}, {ID: "2", User: "bob"}}
	Choose(sessions, "bob")
	if diff := cmp.Diff([]Session{{ID: "1", User: "alice"}, {ID: "2", User: "bob"}}, sessions); diff != "" {
		t.Error(diff)
	}
}

func TestUsersAreDistinctAndSorted(t *testing.T) {
	got := Users([]Session{{User: "carol"}, {User: "alice"}, {User: `EXAMPLE\bob`}, {User: "carol"}, {User: `example\BOB`}, {User: "Alice"}})
	if diff := cmp.Diff([]string{"Alice", `EXAMPLE\bob`, "alice", "carol"}, got); diff != "" {
		t.Error(diff)
	}
}
