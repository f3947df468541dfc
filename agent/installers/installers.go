// Package installers knows the locks of the installers that exclude each other on a machine, so that a program waits
// for its turn instead of failing because another installer, an administrator's or an automatic update's, is at work.
//
// It only looks: between a look and a start somebody else may take the lock, and then the installer itself says so.
package installers

import "fmt"

// Names of the locks that LockHolder knows; every other is free.
const (
	Dpkg    = "dpkg"
	Rpm     = "rpm"
	Msiexec = "msiexec"
)

// LockHolder says in words who holds the lock of an installer, "" if nobody does. Where it cannot be looked at, the
// error says why.
func LockHolder(installer string) (string, error) {
	holder, err := lockHolder(installer)
	if err != nil {
		return "", fmt.Errorf("look at the lock of %s: %w", installer, err)
	}
	return holder, nil
}
