//go:build !linux

package lending

import "net"

// Only Linux has the mount that needs accounts while a program runs.

func supported() error { return errUnsupported }

func peer(*net.UnixConn) (uid, pid int, err error) { return -1, -1, errUnsupported }
