package msilog

import "io/fs"

// names is not asked: only who may write to a file can give it another name there.
func names(fs.FileInfo) uint64 { return 1 }
