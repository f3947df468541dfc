package machinetest

import (
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// dialIn connects from the network namespace of a process.
func dialIn(pid, network, address string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread, which is in the other network by then, ends with the goroutine.
		runtime.LockOSThread()
		var ns *os.File
		if ns, err = os.Open(filepath.Join("/proc", pid, "ns/net")); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		conn, err = net.DialTimeout(network, address, dialTimeout)
	}()
	<-done
	return conn, err
}
