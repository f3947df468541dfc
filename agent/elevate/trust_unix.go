//go:build unix

package elevate

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"chandler/agent/account"
)

const (
	maxLinks        = 40  // in one path, as the kernel
	maxInterpreters = 5   // a script may be run by a script, as the kernel
	maxFirstLine    = 256 // bytes of a script that the kernel looks at
	othersWrite     = 0o022
	sticky          = syscall.S_ISVTX
)

// untrusted says why somebody other than root could change what root is to run.
type untrusted struct{ path, why string }

func (u *untrusted) Error() string { return u.path + " " + u.why }

// node is one file, directory or symbolic link on the way to another.
type node struct {
	path      string
	uid, gid  uint32
	mode      uint32
	directory bool
	link      bool
	mounted   bool // in a directory in which everybody may make one
	last      bool // what the path leads to, and not only on the way
}

// rootsAlone refuses a path if anybody but root could change what it leads to: every directory and symbolic link on the
// way, and the end, must be root's and not be writable by others. A sticky directory further up, such as /tmp, is no way
// in, since there nobody removes or renames what is root's. It gives the path without links.
func rootsAlone(path string) (string, error) {
	return walk(path, isRoots)
}

// rootsOrSticky is rootsAlone but for the end, which may be a sticky directory: one for temporary files.
func rootsOrSticky(path string) error {
	_, err := walk(path, func(n node) error {
		n.last = false
		return isRoots(n)
	})
	return err
}

func isRoots(n node) error {
	writers, err := moreWriters(n)
	switch {
	case err != nil:
		return err
	case n.mounted:
		return &untrusted{n.path, "is a file system of its own in a directory where everybody may have one, and so may tell any owner and mode: it must be root's alone"}
	case n.uid != 0:
		return &untrusted{n.path, fmt.Sprintf("belongs to uid %d (mode %04o): it must be root's alone", n.uid, n.mode&0o7777)}
	case n.link: // its mode says nothing
		return nil
	case n.mode&othersWrite != 0 && n.directory && !n.last && n.mode&sticky != 0:
		return nil
	case writers:
		return &untrusted{n.path, fmt.Sprintf("can be written by those whom its access control list names (mode %04o): it must be root's alone", n.mode&0o7777)}
	case n.mode&othersWrite != 0:
		return &untrusted{n.path, fmt.Sprintf("can be written by others than its owner (root, gid %d, mode %04o): it must be root's alone", n.gid, n.mode&0o7777)}
	}
	return nil
}

// notWritableBy refuses a path that the account itself could change: enough for directories that are only searched, in
// which a machine may let a group of administrators write.
func notWritableBy(who account.Account, path string) error {
	_, err := walk(path, func(n node) error {
		writers, err := moreWriters(n)
		if err != nil {
			return err
		}
		writable := !n.link && (n.mode&0o002 != 0 || writers || n.mode&0o020 != 0 && (n.gid == who.GID || slices.Contains(who.Groups, n.gid)))
		if n.uid == who.UID || n.mounted || writable && !(n.uid == 0 && n.directory && !n.last && n.mode&sticky != 0) {
			return &untrusted{n.path, fmt.Sprintf("can be written by %s (uid %d, gid %d, mode %04o)", who.Name, n.uid, n.gid, n.mode&0o7777)}
		}
		return nil
	})
	return err
}

// walk shows judge everything on the way from / to the end of path, links followed, and gives the path without links.
func walk(path string, judge func(node) error) (string, error) {
	at, links := "/", 0
	left := strings.Split(path, "/")
	if err := look(at, false, judge); err != nil {
		return "", err
	}
	for len(left) > 0 {
		name := left[0]
		left = left[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil {
			return "", err
		}
		if err := look(next, false, judge); err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return at, look(at, true, judge)
}

func look(path string, last bool, judge func(node) error) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return fmt.Errorf("owner of %s is unknown", path)
	}
	mounted, err := mountedByAnybody(path, stat)
	if err != nil {
		return err
	}
	return judge(node{path: path, uid: stat.Uid, gid: stat.Gid, mode: uint32(stat.Mode), directory: info.IsDir(),
		link: info.Mode()&fs.ModeSymlink != 0, mounted: mounted, last: last})
}

// mountedByAnybody says that another file system begins here, in a directory where everybody may have a directory to mount
// on: by FUSE without being root, with whatever owners and modes.
func mountedByAnybody(path string, stat *syscall.Stat_t) (bool, error) {
	info, err := os.Lstat(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	parent, known := info.Sys().(*syscall.Stat_t)
	return !known || parent.Dev != stat.Dev && parent.Mode&othersWrite != 0, nil
}

// rootsCommand refuses a command, or an interpreter of it, that anybody but root could change, or put other files beside.
func rootsCommand(command string) error {
	for range maxInterpreters {
		resolved, err := rootsAlone(command)
		if err != nil {
			return err
		}
		if _, err := rootsAlone(filepath.Dir(resolved)); err != nil {
			return err
		}
		if command, err = interpreter(resolved); err != nil || command == "" {
			return err
		}
	}
	return errors.New("too many interpreters")
}

// interpreter of a script; "" for anything else.
func interpreter(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	line, err := bufio.NewReaderSize(file, maxFirstLine).ReadSlice('\n')
	if len(line) == 0 && err != nil {
		return "", nil // an empty file
	}
	return parseInterpreter(string(line))
}

func parseInterpreter(line string) (string, error) {
	rest, script := strings.CutPrefix(line, "#!")
	if !script {
		return "", nil
	}
	fields := strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == 0 })
	if len(fields) == 0 || !filepath.IsAbs(fields[0]) {
		return "", errors.New("the interpreter in its first line is not an absolute path")
	}
	return fields[0], nil
}
