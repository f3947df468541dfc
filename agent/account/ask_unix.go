//go:build unix

package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// errNoProgram says that this machine lacks a program.
var errNoProgram = errors.New("not on this machine")

// program finds one where only the system's administrators can have put it; the agent's PATH is not asked.
func program(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/run/current-system/sw/bin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %s: %w", name, errNoProgram)
}

// ask runs a program of the system, found by program, in an environment of its own and gives what it wrote and its exit
// code. An error means that it did not run, did not end, or wrote more than maxAnswer.
func ask(ctx context.Context, name string, args ...string) (answer []byte, code int, complaint string, err error) {
	path, err := program(name)
	if err != nil {
		return nil, 0, "", err
	}
	out, bad := limited{limit: maxAnswer}, limited{limit: maxAnswer}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, "/"
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &bad, time.Second
	err = cmd.Run()
	complaint = string(bytes.TrimSpace(bad.Bytes()))
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, 0, "", fmt.Errorf("%s gave no answer in time: %w", path, ctx.Err())
	case out.full || bad.full:
		return nil, 0, "", fmt.Errorf("%s wrote more than %d bytes", path, maxAnswer)
	case errors.As(err, &exit) && exit.Exited():
		return out.Bytes(), exit.ExitCode(), complaint, nil
	case err != nil:
		return nil, 0, "", fmt.Errorf("ask %s: %w", path, err)
	}
	return out.Bytes(), 0, complaint, nil
}

// limited keeps the first bytes, and swallows the rest so that the program can end.
type limited struct {
	bytes.Buffer
	limit int
	full  bool
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.limit-l.Len() {
		l.full = true
		return len(p), nil
	}
	return l.Buffer.Write(p)
}
