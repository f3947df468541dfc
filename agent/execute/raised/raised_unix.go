//go:build unix

package raised

import "chandler/agent/lease"

const (
	raisedTo     = "root"
	userDatabase = "its user database (NSS)"
)

// logonBy needs no secret: sudo is told by root whom it may obey.
func logonBy(l *lease.Lease) (Logon, func()) {
	l.Clear()
	return nil, nil
}
