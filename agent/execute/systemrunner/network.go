package systemrunner

import (
	"context"
	"errors"
	"fmt"

	"chandler/agent/account"
	"chandler/agent/execute"
	"chandler/agent/identity"
	"chandler/agent/lease"
	"chandler/agent/supervise"
	"chandler/events"
)

// netLogOn gives a handle of a token that is its process's own on this machine and the user's on the network, and
// what closes it. Nobody is asked whether the secret is right. The secret is not kept, and the caller clears it.
type netLogOn func(user, domain string, secret []byte) (token uint64, done func(), err error)

// what is said of an account that the program was to be on the network.
const netUse = "to be used by the program on the network"

// join gives the program an account on the network, if it is to have one. On the machine it stays the system.
func (r *Runner) join(ctx context.Context, req execute.Request, isSystem bool, prepared *execute.Prepared) error {
	if r.logOn == nil || req.NetLogin == nil {
		return nil
	}
	if !isSystem {
		return netImpossible(events.NetworkMountImpossible, prepared.Executor, fmt.Sprintf("the agent runs as %s: only where it runs as %s can a program be another account on the network", prepared.Executor, systemName), nil)
	}
	l, err := req.NetLogin(ctx)
	if err != nil {
		return unheard(ctx, err)
	}
	if l == nil {
		return nil
	}
	defer l.Clear()
	if refused := usable(l); refused != nil {
		return refused
	}
	domain, user := account.SplitUser(l.User)
	token, done, err := r.logOn(user, domain, l.Secret)
	if err != nil {
		return netImpossible(events.NetworkMountImpossible, l.Account, fmt.Sprintf("this machine gives no logon for user %s on the network: %v", l.User, err), err)
	}
	prepared.Logon, prepared.Release = &supervise.Logon{Token: token}, done
	return nil
}

// usable refuses what must not be, or cannot be, a program on the network, whatever the credential service said.
func usable(l *lease.Lease) error {
	switch {
	case l.Kind != events.NetworkAccess:
		return netImpossible(events.AccountRefused, l.Account, fmt.Sprintf("account %s is of kind %s; on the network a program of the system is one of kind %s", l.Account, l.Kind, events.NetworkAccess), nil)
	case l.Method != "" && l.Method != events.ByPassword:
		return netImpossible(events.NetworkMountImpossible, l.Account, fmt.Sprintf("account %s proves itself by %s: a logon of a program needs a password", l.Account, l.Method), nil)
	case l.User == "" || len(l.Secret) == 0: // the network would know it as nobody
		return netImpossible(events.CredentialDenied, l.Account, fmt.Sprintf("the lease of account %s holds no user or no secret", l.Account), nil)
	}
	return nil
}

// unheard tells a refusal of the credential service from its silence.
func unheard(ctx context.Context, err error) error {
	var denied *lease.Denied
	var impossible *execute.Impossible
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &impossible):
		return err
	case errors.As(err, &denied):
		return netImpossible(denied.Reason, string(identity.NetworkAccess), denied.Why, err)
	}
	return netImpossible(events.CredentialUnavailable, string(identity.NetworkAccess), fmt.Sprintf("the credential service gave no lease: %v", err), err)
}

func netImpossible(reason events.Reason, who, answer string, err error) error {
	return &execute.Impossible{Reason: reason, Identity: who, Resource: netUse, Answer: answer, Err: err}
}
