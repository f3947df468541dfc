package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"chandler/events"
	"chandler/events/access"
)

// shutOut is a user or agent that credentials calls revoked and whose identity would still be good.
type shutOut struct{ who, key, again string }

// examineRevocations looks whether the broker was told of everybody who is revoked. Only an administrator's
// directory lets one ask it.
func (a *app) examineRevocations(ctx context.Context, c *client) ([]finding, error) {
	if c.Credentials == "" { // the broker asks nobody who they are
		return nil, nil
	}
	out, err := a.shutOut(ctx, c)
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return []finding{ok("revocations", "none that the broker must know of")}, nil
	}
	found, err := a.stillLetIn(ctx, c.connection, out)
	switch {
	case errors.Is(err, errNoOperator):
		return []finding{skipped("revocations", "look where it is: chandler context add "+c.Name+" --administrator DIR", "whether the broker keeps out who is revoked was not looked at: %v", err)}, nil
	case err != nil:
		return []finding{warning("revocations", "mend that, and look again", "whether the broker keeps out who is revoked is not known: %v", err)}, nil
	case len(found) == 0:
		return []finding{ok("revocations", "the broker keeps out everybody who is revoked")}, nil
	}
	return found, nil
}

// shutOut lists them by the account that they belong to. Whose credentials have ended is out by that.
func (a *app) shutOut(ctx context.Context, c *client) (map[access.Account][]shutOut, error) {
	out := map[access.Account][]shutOut{}
	users, err := ask(ctx, c, events.UserList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	for _, u := range users.Users {
		if u.Revoked && (u.Expires.IsZero() || u.Expires.After(a.now())) {
			account := access.Role(u.Role).Account()
			out[account] = append(out[account], shutOut{fmt.Sprintf("user %s (%s)", u.User, u.Role), u.Key, "chandler user revoke " + u.User})
		}
	}
	agents, err := enrolments(ctx, c, events.EnrolmentRevoked)
	if err != nil {
		return nil, err
	}
	for _, e := range agents {
		if e.Expires.After(a.now()) {
			out[access.Agents] = append(out[access.Agents], shutOut{fmt.Sprintf("agent %s (%s)", e.Agent, e.Hostname), e.Key, "chandler agent revoke " + e.Agent})
		}
	}
	return out, nil
}

// stillLetIn names those whose keys are not among the revocations that the broker holds.
func (a *app) stillLetIn(ctx context.Context, where connection, out map[access.Account][]shutOut) (found []finding, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	var system *client
	for _, account := range slices.Sorted(maps.Keys(out)) {
		claims, err := openAccountClaims(where, account)
		if err != nil {
			return nil, err
		}
		claims.operator.Wipe() // nothing is signed
		if system == nil {
			as := where
			as.Credentials = filepath.Join(where.Administrator, systemCreds)
			if system, err = dial(as, a.timeout); err != nil {
				return nil, err
			}
			defer system.bus.Conn().Close()
		}
		claims.client = system
		_, known, err := claims.lookUp(ctx)
		if err != nil {
			return nil, fmt.Errorf("look at account %s: %w", account, err)
		}
		for _, o := range out[account] {
			if _, told := known.Revocations[o.key]; !told {
				found = append(found, problem("revocation", "run it again: `"+o.again+"`", "%s is revoked, and the broker still lets it in: it was not told", o.who))
			}
		}
	}
	return found, nil
}
