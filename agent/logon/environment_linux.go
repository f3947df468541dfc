package logon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

const maxRuntimeFiles = 1000 // names that are looked at

const (
	runtimeDirectories = "/run/user"
	knownSessions      = "/run/systemd/sessions" // to logind
)

func environment(s Session) []string { return environmentIn(runtimeDirectories, knownSessions, s) }

func environmentIn(directories, known string, s Session) (env []string) {
	runtime := runtimeOf(directories, s)
	if isOwn(runtime, s.UID, unix.S_IFDIR) {
		env = append(env, "XDG_RUNTIME_DIR="+runtime)
		if bus := filepath.Join(runtime, "bus"); isOwn(bus, s.UID, unix.S_IFSOCK) {
			env = append(env, "DBUS_SESSION_BUS_ADDRESS=unix:path="+bus)
		}
	}
	if _, err := os.Lstat(filepath.Join(known, s.ID)); err == nil && filepath.Base(s.ID) == s.ID {
		env = append(env, "XDG_SESSION_ID="+s.ID)
	}
	return env
}

func runtimeOf(directories string, s Session) string {
	return filepath.Join(directories, strconv.FormatUint(uint64(s.UID), 10))
}

func desktop(s Session, home string) ([]string, string) {
	return desktopIn(runtimeDirectories, s, home)
}

func desktopIn(directories string, s Session, home string) (env []string, hidden string) {
	runtime := runtimeOf(directories, s)
	names := ownNames(runtime, s.UID)
	if s.Display != "" {
		env = append(env, "DISPLAY="+s.Display)
	}
	for _, name := range names {
		if path := filepath.Join(runtime, name); matches("wayland-[0-9]", name) && isOwn(path, s.UID, unix.S_IFSOCK) {
			env = append(env, "WAYLAND_DISPLAY="+path) // absolute, so that root's programs find it too
			break
		}
	}
	if len(env) == 0 {
		return nil, fmt.Sprintf("the display of session %s of %s is not found", s.ID, s.User)
	}
	env = append(env, "XDG_SESSION_TYPE="+s.Type)
	if path := authority(runtime, names, s.UID, home); path != "" {
		env = append(env, "XAUTHORITY="+path)
	}
	return env, ""
}

// authority is where display managers put the file that opens an X server to the user: GDM, SDDM, Mutter, and all others.
func authority(runtime string, names []string, uid uint32, home string) string {
	var candidates []string
	if isOwn(filepath.Join(runtime, "gdm"), uid, unix.S_IFDIR) {
		candidates = append(candidates, filepath.Join(runtime, "gdm", "Xauthority"))
	}
	for _, name := range names {
		if matches("xauth_*", name) || matches(".mutter-Xwaylandauth.*", name) {
			candidates = append(candidates, filepath.Join(runtime, name))
		}
	}
	if filepath.IsAbs(home) {
		candidates = append(candidates, filepath.Join(home, ".Xauthority"))
	}
	for _, path := range candidates {
		if isOwn(path, uid, unix.S_IFREG) {
			return path
		}
	}
	return ""
}

// ownNames lists the directory, sorted, if it is the user's own and no link.
func ownNames(dir string, uid uint32) []string {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	open := os.NewFile(uintptr(fd), dir)
	defer open.Close()
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil || info.Uid != uid {
		return nil
	}
	names, _ := open.Readdirnames(maxRuntimeFiles) // an error: fewer are found
	slices.Sort(names)
	return names
}

// isOwn follows no link. Nothing is opened: it is the program that will, with its own rights.
func isOwn(path string, uid, kind uint32) bool {
	var info unix.Stat_t
	return unix.Lstat(path, &info) == nil && info.Uid == uid && info.Mode&unix.S_IFMT == kind
}

func matches(pattern, name string) bool {
	match, err := filepath.Match(pattern, name)
	return err == nil && match
}
