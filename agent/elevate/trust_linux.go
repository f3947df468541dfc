package elevate

import (
	"errors"

	"golang.org/x/sys/unix"
)

// moreWriters says whether an access control list lets others write. Where there is one, the group's bits of the mode are
// its mask, without which nobody whom it names can write.
func moreWriters(n node) (bool, error) {
	if n.link || n.mode&0o020 == 0 {
		return false, nil
	}
	_, err := unix.Lgetxattr(n.path, "system.posix_acl_access", nil)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	return err == nil, err
}
