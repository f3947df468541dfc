package lending

import (
	"net"

	"golang.org/x/sys/unix"
)

func supported() error { return nil }

// peer is who connected, as the kernel noted it then.
func peer(conn *net.UnixConn) (uid, pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, -1, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return -1, -1, err
	}
	if failed != nil {
		return -1, -1, failed
	}
	return int(cred.Uid), int(cred.Pid), nil
}
