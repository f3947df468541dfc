package accounttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// privateEtc moves this thread, which again replaces by a new process, to mounts of its own. It returns "yes", or why that
// cannot be.
func privateEtc() string {
	runtime.LockOSThread()
	if os.Geteuid() != 0 {
		return "run the tests as root"
	}
	for _, tool := range []string{"sudo", "visudo", "chage", "useradd", "userdel", "getent", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "install the packages sudo, passwd and util-linux"
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return "allow mount namespaces: " + err.Error()
	}
	dir, err := os.MkdirTemp("", "accounttest-")
	if err != nil {
		return err.Error()
	}
	err = errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"),
		exec.Command("cp", "-a", "/etc/.", dir).Run(),
		unix.Mount(dir, "/etc", "", unix.MS_BIND, ""),
		unix.Unmount(dir, unix.MNT_DETACH),
		os.Remove(dir),
	)
	if err != nil {
		return "allow mounts: " + err.Error()
	}
	return "yes"
}

func again() {
	err := syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
