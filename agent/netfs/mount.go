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
