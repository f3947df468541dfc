package detect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Output is what a program that ended by itself left behind.
type Output struct {
	Code           int    // exit code
	Stdout, Stderr string // at most 64 KiB each, the rest is dropped
}

// Run runs a program in a directory ("" for the agent's) without input and
// returns what it printed. The error says why there is no outcome: not found
// (exec.ErrNotFound), not started, ended by a signal, or ctx done, upon which the
// program and its children are killed.
type Run func(ctx context.Context, dir string, argv ...string) (Output, error)

const (
	maxOutput = 64 << 10
	// How long a child that outlives the program may keep the output open.
	outputDelay = 2 * time.Second
)

// Exec is the Run of the real system. Programs get the agent's own environment
// without CHANDLER_… and NATS_… (these configure the agent and may hold what a
// program must not see), then env, "NAME=value" each, then LC_ALL=C, because
// some outcomes can only be told by their text.
func Exec(env []string) Run {
	env = slices.Clone(env)
	return func(ctx context.Context, dir string, argv ...string) (Output, error) {
		var stdout, stderr capped
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir = dir
		cmd.Env = append(append(inherited(os.Environ()), env...), "LC_ALL=C")
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.WaitDelay = outputDelay
		group := groupOf(cmd)
		defer group.close()
		cmd.Cancel = group.kill
		if err := cmd.Start(); err != nil {
			return Output{}, fmt.Errorf("start %s: %w", argv[0], err)
		}
		if err := group.started(); err != nil {
			// It runs outside of the group: its children would outlive a time-out.
			return Output{}, errors.Join(fmt.Errorf("start %s: %w", argv[0], err), cmd.Process.Kill(), cmd.Wait())
		}
		err := cmd.Wait()
		out := Output{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
		var exit *exec.ExitError
		switch {
		case err == nil, errors.As(err, &exit) && exit.Exited() && ctx.Err() == nil:
			return out, nil
		case ctx.Err() != nil:
			return Output{}, fmt.Errorf("run %s: %w", argv[0], ctx.Err())
		case errors.Is(err, exec.ErrWaitDelay):
			return Output{}, fmt.Errorf("run %s: it ended, but a child keeps its output open", argv[0])
		}
		return Output{}, fmt.Errorf("run %s: %w", argv[0], err)
	}
}

// inherited returns the agent's environment without its own settings.
func inherited(environ []string) []string {
	return slices.DeleteFunc(environ, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		return strings.HasPrefix(name, "CHANDLER_") || strings.HasPrefix(name, "NATS_")
	})
}

// capped keeps the first maxOutput bytes and takes the rest, so that a program
// that prints without end neither fills memory nor hangs before its time-out.
type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	c.Buffer.Write(p[:min(len(p), maxOutput-c.Len())])
	return len(p), nil
}

// excerpt is the beginning of a program's output on one printable line, for
// explanations. It is empty if the output is nothing but white space.
func excerpt(s string) string {
	const limit = 200 // characters
	var line []rune
	for _, r := range strings.Join(strings.Fields(s), " ") {
		if len(line) == limit {
			return string(line) + " …"
		}
		if !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}
		line = append(line, r)
	}
	return string(line)
}

// noOutcome explains an error of Run about a tool.
func noOutcome(tool string, err error) Result {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return unknown("%s is not on this machine", tool)
	case errors.Is(err, context.DeadlineExceeded):
		return unknown("%s did not end within its time limit", tool)
	}
	return unknown("%s gave no answer: %v", tool, err)
}
