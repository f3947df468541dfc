//go:build !linux

package netfs

import (
	"errors"
	"os/exec"
	"runtime"
)

type mounted struct{}

func possible() error { return errors.New(runtime.GOOS + " has no mounts of one program alone") }

func mount(Options) (mounted, error) { return mounted{}, Possible() }

func (mounted) start(cmd *exec.Cmd) error { return cmd.Start() }

func (mounted) withdraw(string) {}

func (mounted) close() error { return nil }
