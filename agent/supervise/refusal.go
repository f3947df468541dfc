package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// refuse finds what the operating system would refuse with an error that does not tell the directory from the program.
func refuse(spec Spec) (kind string, err error) {
	info, err := os.Stat(spec.Dir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "chdir", Path: spec.Dir, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return BadDirectory, fmt.Errorf("working directory: %w", err)
	}
	info, err = os.Stat(spec.Argv[0])
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return NotFound, err
	case err != nil:
		return errorKind(err), err
	case !info.Mode().IsRegular():
		return NotExecutable, fmt.Errorf("%s is not a file", spec.Argv[0])
	case !executable(info):
		return NotExecutable, fmt.Errorf("%s has no execute permission", spec.Argv[0])
	}
	return "", nil
}

// errorKind sorts an error of starting a program whose file and directory were there a moment ago.
func errorKind(err error) string {
	if _, ok := errors.AsType[*logonError](err); ok {
		return NoLogon
	}
	switch {
	case notAProgram(err):
		return NotExecutable
	case badDirectory(err):
		return BadDirectory
	case errors.Is(err, fs.ErrNotExist): // a script's interpreter, a binary's loader
		return NotFound
	case denied(err):
		return Denied
	}
	return Other
}

// logonError is about who a program was to run as, whatever the operating system calls it.
type logonError struct{ err error }

func (l *logonError) Error() string { return l.err.Error() }
func (l *logonError) Unwrap() error { return l.err }
