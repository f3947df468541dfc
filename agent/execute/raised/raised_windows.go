package raised

import (
	"context"

	"chandler/agent/account"
	"chandler/agent/lease"
	"chandler/events"
)

const (
	raisedTo     = "Administrators"
	userDatabase = "the local security authority"
)

// logon uses the secret once, whatever comes of it.
func logon(l *lease.Lease) Logon {
	return func(ctx context.Context) (uint64, func(), error) {
		defer l.Clear()
		token, done, err := account.LogOnWith(ctx, l.User, l.Secret)
		if err != nil {
			return 0, nil, impossible(events.AccountUnusable, l.User, err.Error(), err)
		}
		return token, done, nil
	}
}
