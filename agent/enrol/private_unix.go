//go:build unix

package enrol

// closeToOthers has nothing to do: the mode did it.
func closeToOthers(string) error { return nil }
