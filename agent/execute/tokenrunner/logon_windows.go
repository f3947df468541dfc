package tokenrunner

import (
	"context"

	"chandler/agent/account"
	"chandler/agent/execute/raised"
)

// logon is by a password of its own for every run.
func logon(made account.Account) raised.Logon {
	return func(ctx context.Context) (uint64, func(), error) { return account.LogOn(ctx, made) }
}
