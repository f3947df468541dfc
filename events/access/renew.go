package access

import (
	"fmt"
	"reflect"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// Renewed gives those of a fleet's accounts that do not say what this version of them says (what the roles may,
// and what passes between accounts), made anew and signed by the operator, so that a newer program's requests
// are let through. Keys and revocations stay, so that every account must be one that the operator signed: whoever
// may write where they lie gets no signature for keys of his own. accounts are all of the fleet's, as the broker
// knows them. With the operator's public key alone it only looks: the accounts are given without JWTs.
func Renewed(accounts map[Account]string, operator nkeys.KeyPair) (map[Account]string, error) {
	issuer, err := operator.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("operator key: %w", err)
	}
	_, public := operator.Seed()
	k := Keys{Accounts: map[Account]nkeys.KeyPair{}, Roles: map[Role]nkeys.KeyPair{}}
	there := map[Account]*jwt.AccountClaims{}
	var fleet string
	for a, text := range accounts {
		c, err := jwt.DecodeAccountClaims(text)
		if err != nil {
			return nil, fmt.Errorf("read account %s: %w", a, err)
		}
		if c.Issuer != issuer {
			return nil, fmt.Errorf("account %s was signed by operator %s, not %s", a, c.Issuer, issuer)
		}
		there[a], fleet = c, tag(c.Tags, fleetTag)
		if err := k.learn(a, c); err != nil {
			return nil, err
		}
	}
	renewed := map[Account]string{}
	for a, old := range there {
		c, err := k.accountClaims(fleet, a)
		if err != nil {
			return nil, err
		}
		c.Revocations = old.Revocations
		same, err := saysTheSame(c, old)
		switch {
		case err != nil:
			return nil, fmt.Errorf("account %s: %w", a, err)
		case same:
		case public != nil:
			renewed[a] = ""
		default:
			if renewed[a], err = encode(c, operator); err != nil {
				return nil, fmt.Errorf("account %s: %w", a, err)
			}
		}
	}
	return renewed, nil
}

// learn takes the public keys of an account and its roles from what is signed.
func (k Keys) learn(a Account, c *jwt.AccountClaims) (err error) {
	if k.Accounts[a], err = nkeys.FromPublicKey(c.Subject); err != nil {
		return fmt.Errorf("key of account %s: %w", a, err)
	}
	for key, scope := range c.SigningKeys {
		if s, ok := scope.(*jwt.UserScope); ok {
			if k.Roles[Role(s.Role)], err = nkeys.FromPublicKey(key); err != nil {
				return fmt.Errorf("signing key of role %s: %w", s.Role, err)
			}
		}
	}
	return nil
}

// saysTheSame compares what is new with what was signed, in the form that signing gives it.
func saysTheSame(c, signed *jwt.AccountClaims) (bool, error) {
	anybody, err := nkeys.CreateOperator()
	if err != nil {
		return false, err
	}
	text, err := encode(c, anybody)
	if err != nil {
		return false, err
	}
	compared, err := jwt.DecodeAccountClaims(text)
	if err != nil {
		return false, err
	}
	return reflect.DeepEqual(compared.Account, signed.Account), nil
}
