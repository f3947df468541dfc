//go:build unix

package tokenrunner

import (
	"chandler/agent/account"
	"chandler/agent/execute/raised"
)

// logon is nothing that sudo needs.
func logon(account.Account) raised.Logon { return nil }
