//go:build !windows

package smbsource

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// openOwn opens a plain file that belongs to the user the process is, and that nobody else could have put there.
func openOwn(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || int(owner.Uid) != os.Geteuid() {
		file.Close()
		return nil, fmt.Errorf("%s: %w", name, errors.New("not a file of the user who reads it"))
	}
	return file, nil
}
