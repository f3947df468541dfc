package vault

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// checkPlace refuses a file that others could put another one in the place of, and says where it really is: the
// directories on the way, the links in them, and where they lead must be root's or this user's, and writable by nobody
// else.
func checkPlace(path string) (real string, err error) {
	if real, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	info, err := os.Lstat(real)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is no regular file")
	}
	for _, end := range []string{path, real} {
		if err := checkWay(end); err != nil {
			return "", err
		}
	}
	return real, nil
}

// checkWay looks at a path and all directories above it.
func checkWay(path string) error {
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		if err := checkOwned(at, info); err != nil {
			return err
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// stickyDirectory says whether only owners remove from a directory what is in it.
func stickyDirectory(info fs.FileInfo) bool {
	return info.IsDir() && info.Mode()&fs.ModeSticky != 0
}
