//go:build unix

package keyring

import "io/fs"

// othersMayRead says whether group or others may read the file.
func othersMayRead(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
