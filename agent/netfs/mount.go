package netfs

import (
	"fmt"
	"os/exec"
)

// FS is a mount that only the programs which it starts can see.
type FS struct{ mounted }

// Start starts a command that sees the mount. Neither the command nor its working directory may lie below the mount
// point.
func (f *FS) Start(cmd *exec.Cmd) error { return f.start(cmd) }

// Withdraw ends a lease that a loan named, and does not wait for hosts: nothing is read by it any more, in files that are
// open neither, nor from what the kernel keeps of them. The next use of its resource asks for the account anew.
func (f *FS) Withdraw(lease string) { f.withdraw(lease) }

// Close ends the mount, also while somebody uses it, and overwrites the secrets. It may be called again.
func (f *FS) Close() error { return f.close() }

// Possible says what this process lacks to mount; nil: nothing. The error wraps ErrImpossible.
func Possible() error {
	if err := possible(); err != nil {
		return fmt.Errorf("%w: %w", ErrImpossible, err)
	}
	return nil
}

// Mount mounts in a mount namespace of its own. An error that wraps ErrImpossible says what this machine lacks.
func Mount(o Options) (*FS, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	m, err := mount(o)
	if err != nil {
		return nil, err
	}
	return &FS{m}, nil
}
