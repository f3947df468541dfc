package host

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

func systemVolume() string {
	dir, err := windows.GetSystemDirectory()
	if err != nil {
		return `C:\`
	}
	return filepath.VolumeName(dir) + `\`
}
