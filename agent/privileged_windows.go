package agent

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

func privileged() bool { return windows.GetCurrentProcessToken().IsElevated() }

// ours trusts the access control of the directory above.
func ours(fs.FileInfo) bool { return true }
