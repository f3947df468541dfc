package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"chandler/events/access"
)

// errNoOperator is why accounts cannot be changed from here.
var errNoOperator = errors.New("the operator's key is not here")

// revokeKeys tells the broker that it lets users of an account in no more, by their public keys, and waits
// until it says that it does not: it ends their connections at once, and remembers. That takes the
// administrator's directory; without it the error says what is left undone. It can be repeated.
func (a *app) revokeKeys(ctx context.Context, where connection, account access.Account, keys ...string) error {
	undone := func(err error) error {
		return fmt.Errorf("the broker still lets them in until their credentials expire: %w; do it again where the administrator's directory is (`%s context add %s --administrator DIR` names it)", err, a.self, where.Name)
	}
	claims, err := openAccountClaims(where, account)
	if errors.Is(err, errNoOperator) {
		return undone(err)
	}
	if err != nil {
		return err
	}
	defer claims.operator.Wipe()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	where.Credentials = filepath.Join(where.Administrator, systemCreds)
	if claims.client, err = dial(where, a.timeout); err != nil {
		return undone(err)
	}
	defer claims.client.bus.Conn().Close()
	if err := claims.revoke(ctx, a, keys); err != nil {
		return undone(fmt.Errorf("change account %s: %w", account, err))
	}
	return nil
}

// accountClaims is one account as the broker knows it, and the key that changes it.
type accountClaims struct {
	account  string // public key
	issuer   string // public key of the operator
	operator nkeys.KeyPair
	client   *client // of the system account
}

func openAccountClaims(where connection, account access.Account) (*accountClaims, error) {
	if where.Administrator == "" {
		return nil, fmt.Errorf("%w: context %s names no administrator's directory", errNoOperator, where.Name)
	}
	if !present(where.Administrator) {
		return nil, fmt.Errorf("%w: %s is not there", errNoOperator, where.Administrator)
	}
	fleet, err := readFleet(where.Administrator)
	if err != nil {
		return nil, err
	}
	if where.Fleet != "" && where.Fleet != fleet.Fleet {
		return nil, fmt.Errorf("%s is of fleet %s, and context %s of fleet %s", where.Administrator, fleet.Fleet, where.Name, where.Fleet)
	}
	operator, err := readSeed(filepath.Join(where.Administrator, operatorKeyName))
	if err != nil {
		return nil, err
	}
	if public, err := operator.PublicKey(); err != nil || public != fleet.Operator {
		return nil, fmt.Errorf("%s in %s is not the operator of fleet %s", operatorKeyName, where.Administrator, fleet.Fleet)
	}
	return &accountClaims{account: fleet.Accounts[account], issuer: fleet.Operator, operator: operator}, nil
}

// revocationTries bounds how often a change is made again that another administrator's overwrote.
const revocationTries = 3

func (u *accountClaims) revoke(ctx context.Context, a *app, keys []string) error {
	for range revocationTries {
		token, _, err := u.lookUp(ctx)
		if err != nil {
			return err
		}
		changed, err := access.Revoke(token, u.operator, a.now(), keys...)
		if err != nil {
			return err
		}
		if err := u.update(ctx, changed); err != nil {
			return err
		}
		_, now, err := u.lookUp(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(keys, func(key string) bool { _, gone := now.Revocations[key]; return !gone }) {
			return nil
		}
	}
	return errors.New("somebody else changes it at the same time")
}

// lookUp asks the broker for the account. What it answers is signed again, so that it must be what an
// operator signed before: a broker that was taken over does not get a signature for rights of its own.
func (u *accountClaims) lookUp(ctx context.Context) (token string, claims *jwt.AccountClaims, err error) {
	answer, err := u.request(ctx, "$SYS.REQ.ACCOUNT."+u.account+".CLAIMS.LOOKUP", nil)
	if err != nil {
		return "", nil, err
	}
	if claims, err = jwt.DecodeAccountClaims(string(answer)); err != nil {
		return "", nil, fmt.Errorf("read what the broker knows of it: %w", err)
	}
	if claims.Subject != u.account || claims.Issuer != u.issuer {
		return "", nil, fmt.Errorf("the broker answers with account %s of operator %s: that is not this fleet's", claims.Subject, claims.Issuer)
	}
	return string(answer), claims, nil
}

// update hands a changed account over.
func (u *accountClaims) update(ctx context.Context, token string) error {
	answer, err := u.request(ctx, "$SYS.REQ.CLAIMS.UPDATE", []byte(token))
	if err != nil {
		return err
	}
	var says struct {
		Data  struct{ Code int }
		Error struct{ Description string }
	}
	if err := json.Unmarshal(answer, &says); err != nil {
		return fmt.Errorf("read the broker's answer: %w", err)
	}
	if says.Error.Description != "" || says.Data.Code != 200 {
		return fmt.Errorf("the broker refuses it: %s", cellOr(says.Error.Description, "it says no more"))
	}
	return nil
}

func (u *accountClaims) request(ctx context.Context, subject string, body []byte) ([]byte, error) {
	ctx, stop := u.client.refusals.watch(ctx, subject)
	defer stop()
	answer, err := u.client.bus.Conn().RequestWithContext(ctx, subject, body)
	if refused, ok := errors.AsType[*notAllowed](context.Cause(ctx)); ok && err != nil {
		return nil, refused.in(u.client)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the broker: %w", err)
	}
	return answer.Data, nil
}
