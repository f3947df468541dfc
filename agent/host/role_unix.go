//go:build unix

package host

// domainController is for whoever makes the machine one to say (a token confers it).
func domainController() bool { return false }
