//go:build unix

package filesource

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"chandler/agent/account"
	"chandler/agent/source"
)

func newSystem() system { return unixItself{} }

type unixItself struct{}

func (unixItself) Local(path string) (string, error) { return path, nil }

func (unixItself) Share(string, string) (string, error) {
	return "", errors.New("file://host is for Windows: write smb://")
}

// Open looks before it opens: opening alone does something to some devices.
func (unixItself) Open(name string) (*os.File, error) {
	stat, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !stat.Mode().IsRegular() && !stat.IsDir() {
		return nil, errNeither
	}
	for {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := unix.SetNonblock(fd, false); err != nil {
			unix.Close(fd)
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

func (unixItself) Pose(uint64) error { return account.ErrNoLogon }
func (unixItself) Revert() error     { return account.ErrNoLogon }

// codeOf is what Windows calls an error, in the words of this system.
func codeOf(err error) (source.Code, string) {
	number, ok := errors.AsType[syscall.Errno](err)
	switch {
	case !ok:
		return source.BadNetworkPath, err.Error()
	case number == unix.EACCES || number == unix.EPERM:
		return source.AccessDenied, number.Error()
	case number == unix.ENOENT || number == unix.ENAMETOOLONG:
		return source.FileNotFound, number.Error()
	case number == unix.ENOTDIR:
		return source.PathNotFound, number.Error()
	case number == unix.ELOOP || number == unix.ENXIO:
		return notSupported, number.Error()
	}
	return source.BadNetworkPath, number.Error()
}
