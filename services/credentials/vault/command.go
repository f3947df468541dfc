package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// commandGrace is how long the pipes of a command are waited for that was ended.
const commandGrace = 2 * time.Second

// command is a program that wraps and unwraps. It cannot be given associated data, so the purpose is within what it
// is given.
type command struct{ path string }

func newCommand(path string) (*command, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the program after command: must be given from the root, without arguments")
	}
	return &command{filepath.Clean(path)}, nil
}

func (c *command) Name() string { return "command:" + c.path }

func (c *command) Wrap(ctx context.Context, plain, purpose []byte) ([]byte, error) {
	whole := make([]byte, 0, len(purpose)+1+len(plain))
	whole = append(append(append(whole, purpose...), 0), plain...)
	defer clear(whole)
	return c.run(ctx, "wrap", whole, maxWrapped)
}

func (c *command) Unwrap(ctx context.Context, wrapped, purpose []byte) ([]byte, error) {
	whole, err := c.run(ctx, "unwrap", wrapped, len(purpose)+1+maxKeyset)
	if err != nil {
		return nil, err
	}
	defer clear(whole)
	plain, ok := bytes.CutPrefix(whole, append(bytes.Clone(purpose), 0))
	if !ok {
		return nil, fmt.Errorf("what %s gave back is nothing that it was given to wrap", c.path)
	}
	return bytes.Clone(plain), nil
}

// run calls the program. What it says on standard error is left out: it may quote what it was given.
func (c *command) run(ctx context.Context, what string, in []byte, limit int) ([]byte, error) {
	program, err := checkPlace(c.path)
	if err != nil {
		return nil, fmt.Errorf("key-encryption command %s: %w", c.path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, wrapTime)
	defer cancel()
	out := bounded{data: make([]byte, 0, limit), limit: limit}
	cmd := exec.CommandContext(ctx, program, what) // the very file that was looked at
	cmd.Args[0] = c.path
	cmd.Dir, cmd.Env = filepath.Dir(c.path), []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Stdin, cmd.Stdout, cmd.WaitDelay = bytes.NewReader(in), &out, commandGrace
	endTogether(cmd)
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("it did not answer in time: %w", context.Cause(ctx))
	case out.full:
		err = fmt.Errorf("it answered more than %d bytes", limit)
	case err == nil && len(out.data) == 0:
		err = errors.New("it answered nothing")
	}
	if err != nil {
		clear(out.data)
		return nil, fmt.Errorf("%s %s: %w", c.path, what, err)
	}
	return out.data, nil
}
