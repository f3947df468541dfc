package access

import (
	"fmt"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// UnderOperator puts a fleet's accounts under another operator, for a fleet whose operator's key is lost: their keys,
// what their roles may, and who was revoked stay, and so does every user. Each account must be signed by the former
// operator (a public key), or by the new one already. It gives the new operator's JWT and the accounts'.
func UnderOperator(accounts map[Account]string, former string, operator nkeys.KeyPair) (operatorJWT string, out map[Account]string, err error) {
	public, err := operator.PublicKey()
	if err != nil {
		return "", nil, fmt.Errorf("operator key: %w", err)
	}
	k := Keys{Operator: operator, Accounts: map[Account]nkeys.KeyPair{}, Roles: map[Role]nkeys.KeyPair{}}
	out = map[Account]string{}
	var fleet string
	for a, text := range accounts {
		c, err := jwt.DecodeAccountClaims(text)
		if err != nil {
			return "", nil, fmt.Errorf("read account %s: %w", a, err)
		}
		if c.Issuer != former && c.Issuer != public {
			return "", nil, fmt.Errorf("account %s was signed by operator %s, not %s", a, c.Issuer, former)
		}
		fleet = tag(c.Tags, fleetTag)
		if err := k.learn(a, c); err != nil {
			return "", nil, err
		}
		if out[a], err = encode(c, operator); err != nil {
			return "", nil, fmt.Errorf("account %s: %w", a, err)
		}
	}
	operatorJWT, err = k.OperatorJWT(fleet)
	return operatorJWT, out, err
}
