//go:build unix

package elevate

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"chandler/agent/supervise"
)

const (
	askLimit  = 30 * time.Second
	maxAnswer = 64 << 10 // bytes
)

// ask runs a program of the system and gives what it said. It runs as root, or with the environment and the identity of
// a spec; without a terminal, which some would ask for a password.
func ask(ctx context.Context, as *supervise.Spec, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	said := &beginning{left: maxAnswer}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + programPath, "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if as != nil {
		cmd.Env = append(as.Env[:len(as.Env):len(as.Env)], "LC_ALL=C")
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.Credential.UID, Gid: as.Credential.GID, Groups: as.Credential.Groups}
	}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = said, said, time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return strings.ToValidUTF8(strings.TrimSpace(said.String()), "?"), err
}

// refused says that a program answered, and with no.
func refused(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Exited()
}

// beginning keeps the first bytes and swallows the rest.
type beginning struct {
	bytes.Buffer
	left int
}

func (b *beginning) Write(p []byte) (int, error) {
	kept := min(len(p), b.left)
	b.left -= kept
	b.Buffer.Write(p[:kept])
	return len(p), nil
}
