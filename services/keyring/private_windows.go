package keyring

import "io/fs"

// othersMayRead: the mode bits of Windows say nothing about who may read; files in a user's profile are
// that user's by inheritance.
func othersMayRead(fs.FileInfo) bool { return false }
