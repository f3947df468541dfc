//go:build unix

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func dial(ctx context.Context, path string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", path)
}

// listen makes the socket, and its directory where it is not there: one that others may pass through, not write to.
func listen(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("socket %q is not absolute", path)
	}
	if err := makeDirectory(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if old, err := os.Lstat(path); err == nil && old.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is not a socket", path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if conn, err := dial(ctx, path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another agent answers on %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil { // every user of the machine may ask
		listener.Close()
		return nil, err
	}
	return listener, nil
}

func makeDirectory(dir string) error {
	switch err := os.Mkdir(dir, 0o755); {
	case err == nil:
		if err := os.Chmod(dir, 0o755); err != nil { // the agent's umask lets nobody in
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() { // a link would lead wherever its owner wants
		return fmt.Errorf("%s is not a directory", dir)
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || st.Mode().Perm()&0o022 != 0 || int(owner.Uid) != os.Geteuid() && owner.Uid != 0 {
		return fmt.Errorf("others may write to %s: whoever does could take the agent's place", dir)
	}
	return nil
}

// peer is who connected, as the kernel noted it then.
func peer(conn net.Conn) (Caller, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return Caller{}, errors.New("not a socket of this machine")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var uid uint32
	var failed error
	if err := raw.Control(func(fd uintptr) { uid, failed = peerUID(int(fd)) }); err != nil {
		return Caller{}, err
	}
	if failed != nil {
		return Caller{}, failed
	}
	id := strconv.FormatUint(uint64(uid), 10)
	c := Caller{Name: id, Root: uid == 0, id: id}
	if known, err := user.LookupId(id); err == nil {
		c.Name = known.Username
	}
	return c, nil
}
