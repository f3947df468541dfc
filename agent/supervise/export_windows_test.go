package supervise

import "os/exec"

// What tests of the Windows code see.
type (
	Machine  = machine
	Creation = creation
)

// WindowsItself is the real Machine.
func WindowsItself() Machine { return windowsItself{} }

// ErrorKind sorts errors of StartOn as a supervisor does.
func ErrorKind(err error) string { return errorKind(err) }

// StartOn starts the program of a spec as a supervisor does.
func StartOn(m Machine, cmd *exec.Cmd, spec Spec) (kill func() error, err error) {
	t, err := newTree("")
	if err != nil {
		return nil, err
	}
	t.machine = m
	return t.kill, t.start(cmd, spec, cmd.Start)
}
