package logon

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// place makes files, "name/" directories, "name=" sockets and "name@target" links.
func place(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		var err error
		path := filepath.Join(dir, strings.TrimRight(name, "/="))
		link, target, isLink := strings.Cut(path, "@")
		switch {
		case isLink:
			err = os.Symlink(target, link)
		case strings.HasSuffix(name, "/"):
			err = os.Mkdir(path, 0o700)
		case strings.HasSuffix(name, "="):
			var l net.Listener
			if l, err = net.Listen("unix", path); err == nil {
				t.Cleanup(func() { l.Close() })
			}
		default:
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// runtimeDirectory makes the user's directory below a short path, as sockets need it.
func runtimeDirectory(t *testing.T) (directories, own string) {
	t.Helper()
	directories, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directories) })
	own = filepath.Join(directories, strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	return directories, own
}

func TestTheDisplayOfASessionIsFound(t *testing.T) {
	x11 := Session{ID: "1", User: "alice", UID: uint32(os.Getuid()), Type: "x11", Display: ":0"}
	wayland := Session{ID: "1", User: "alice", UID: uint32(os.Getuid()), Type: "wayland"}
	for _, test := range []struct {
		name          string
		session       Session
		runtime, home []string
		want          []string // R and H stand for the directories
	}{
		{"X11 without an authority", x11, nil, nil, []string{"DISPLAY=:0", "XDG_SESSION_TYPE=x11"}},
		{"X11 of most display managers", x11, nil, []string{".Xauthority"}, []string{"DISPLAY=:0", "XDG_SESSION_TYPE=x11", "XAUTHORITY=H/.Xauthority"}},
		{"X11 of GDM", x11, []string{"gdm/", "gdm/Xauthority"}, []string{".Xauthority"}, []string{"DISPLAY=:0", "XDG_SESSION_TYPE=x11", "XAUTHORITY=R/gdm/Xauthority"}},
		{"X11 of SDDM", x11, []string{"xauth_Kx3"}, nil, []string{"DISPLAY=:0", "XDG_SESSION_TYPE=x11", "XAUTHORITY=R/xauth_Kx3"}},
		{"Wayland", wayland, []string{"wayland-0=", "wayland-0.lock"}, nil, []string{"WAYLAND_DISPLAY=R/wayland-0", "XDG_SESSION_TYPE=wayland"}},
		{"Wayland with its X server's authority", wayland, []string{"wayland-1=", ".mutter-Xwaylandauth.Q1"}, nil,
			[]string{"WAYLAND_DISPLAY=R/wayland-1", "XDG_SESSION_TYPE=wayland", "XAUTHORITY=R/.mutter-Xwaylandauth.Q1"}},
		{"a link is not followed", x11, []string{"xauth_1@/etc/passwd", "gdm@/etc"}, []string{".Xauthority@/etc/passwd"}, []string{"DISPLAY=:0", "XDG_SESSION_TYPE=x11"}},
		{"a file is no socket, a directory no file", wayland, []string{"wayland-0", "wayland-1=", "xauth_1/"}, []string{".Xauthority/"},
			[]string{"WAYLAND_DISPLAY=R/wayland-1", "XDG_SESSION_TYPE=wayland"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			directories, own := runtimeDirectory(t)
			home := t.TempDir()
			place(t, own, test.runtime...)
			place(t, home, test.home...)
			got, hidden := desktopIn(directories, test.session, home)
			for i := range got {
				got[i] = strings.NewReplacer("="+own, "=R", "="+home, "=H").Replace(got[i])
			}
			if diff := cmp.Diff(test.want, got); diff != "" || hidden != "" {
				t.Errorf("%s %s", hidden, diff)
			}
		})
	}
}

func TestADisplayThatIsNotFoundIsExplained(t *testing.T) {
	directories, _ := runtimeDirectory(t)
	wayland := Session{ID: "c7", User: "alice", UID: uint32(os.Getuid()), Type: "wayland"}
	if env, hidden := desktopIn(directories, wayland, t.TempDir()); len(env) > 0 || !strings.Contains(hidden, "c7") {
		t.Errorf("%v, %q", env, hidden)
	}
	for _, kind := range []string{"tty", "", "unspecified"} {
		if env, hidden := (Session{ID: "c8", User: "alice", Type: kind, Display: ":0"}).Desktop("/"); len(env) > 0 || !strings.Contains(hidden, "c8 of alice is not graphical") {
			t.Errorf("type %q: %v, %q", kind, env, hidden)
		}
	}
}

func TestWhatIsAnotherUsersIsNotTaken(t *testing.T) {
	directories, own := runtimeDirectory(t)
	place(t, own, "bus=", "wayland-0=", "xauth_1")
	home := t.TempDir()
	place(t, home, ".Xauthority")
	stranger := Session{ID: "1", User: "bob", UID: uint32(os.Getuid()) + 1, Type: "x11", Display: ":1"}
	theirs := filepath.Join(directories, strconv.Itoa(os.Getuid()+1))
	if err := os.Rename(own, theirs); err != nil {
		t.Fatal(err)
	}
	env, _ := desktopIn(directories, stranger, home)
	if diff := cmp.Diff([]string{"DISPLAY=:1", "XDG_SESSION_TYPE=x11"}, env); diff != "" {
		t.Error(diff)
	}
	if env := environmentIn(directories, t.TempDir(), stranger); len(env) > 0 {
		t.Errorf("environment %v", env)
	}
}

func TestTheEnvironmentOfASession(t *testing.T) {
	directories, own := runtimeDirectory(t)
	known := t.TempDir()
	session := Session{ID: "c2", UID: uint32(os.Getuid())}
	if diff := cmp.Diff([]string{"XDG_RUNTIME_DIR=" + own}, environmentIn(directories, known, session)); diff != "" {
		t.Errorf("without a bus, of a session that logind does not know: %s", diff)
	}
	place(t, own, "bus=")
	place(t, known, "c2")
	want := []string{"XDG_RUNTIME_DIR=" + own, "DBUS_SESSION_BUS_ADDRESS=unix:path=" + own + "/bus", "XDG_SESSION_ID=c2"}
	if diff := cmp.Diff(want, environmentIn(directories, known, session)); diff != "" {
		t.Error(diff)
	}
	session.ID = "../known"
	if diff := cmp.Diff(want[:2], environmentIn(directories, known, session)); diff != "" {
		t.Errorf("an id that is a path: %s", diff)
	}
}
