//go:build unix

package systemrunner

// newNetLogOn gives none: the supervisor mounts what the program refers to.
func newNetLogOn() netLogOn { return nil }
