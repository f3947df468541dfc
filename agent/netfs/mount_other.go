//go:build !linux

package netfs

import (
	"fmt"
	"os/exec"
	"runtime"
)

type mounted struct{}

func mount(Options) (mounted, error) {
	return mounted{}, fmt.Errorf("%w: %s has no mounts of one program alone", ErrImpossible, runtime.GOOS)
}

func (mounted) start(cmd *exec.Cmd) error { return cmd.Start() }

func (mounted) close() error { return nil }
