//go:build unix

package raised

import "chandler/agent/lease"

const (
	raisedTo     = "root"
	userDatabase = "its user database (NSS)"
)

// logon needs no secret: sudo is told by root whom it may obey.
func logon(l *lease.Lease) Logon {
	l.Clear()
	return nil
}
