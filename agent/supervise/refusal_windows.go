package supervise

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// Windows decides by the file's content, not by a permission bit.
func executable(fs.FileInfo) bool { return true }

func notAProgram(err error) bool {
	return errors.Is(err, windows.ERROR_BAD_EXE_FORMAT) || errors.Is(err, windows.ERROR_EXE_MACHINE_TYPE_MISMATCH)
}

func badDirectory(err error) bool { return errors.Is(err, windows.ERROR_DIRECTORY) }

// denied also is who starts a program that demands to be run by an administrator.
func denied(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, windows.ERROR_ELEVATION_REQUIRED)
}

// exitStatus gives the code as the signed 32-bit number that return-code tables use.
func exitStatus(state *os.ProcessState) (code int, signal string) {
	return int(int32(uint32(state.ExitCode()))), ""
}
