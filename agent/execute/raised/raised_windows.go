package raised

import (
	"context"
	"sync"
	"time"

	"chandler/agent/account"
	"chandler/agent/lease"
	"chandler/events"
)

const (
	raisedTo     = "Administrators"
	userDatabase = "the local security authority"
)

// logonBy uses the secret once, whatever comes of it, and never after its lease is over.
func logonBy(l *lease.Lease) (Logon, func()) {
	var using sync.Mutex
	forget := func() {
		using.Lock()
		defer using.Unlock()
		l.Clear()
	}
	over := time.AfterFunc(time.Until(l.Expires), forget) // for a program that is not started after all
	return func(ctx context.Context) (uint64, func(), error) {
		using.Lock()
		defer using.Unlock()
		defer over.Stop()
		defer l.Clear()
		if len(l.Secret) == 0 {
			return 0, nil, impossible(events.CredentialDenied, l.User, "the lease of account "+l.Account+" is over", nil)
		}
		token, done, err := account.LogOnWith(ctx, l.User, l.Secret)
		if err != nil {
			return 0, nil, impossible(events.AccountUnusable, l.User, err.Error(), err)
		}
		return token, done, nil
	}, forget
}
