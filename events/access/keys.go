package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"chandler/events"
)

const (
	fleetTag   = "fleet:"
	accountTag = "account:"
	roleTag    = "role:"
	// leastBroker is the oldest broker that keeps the accounts apart: it refuses clients that name an
	// acknowledgement of JetStream as the subject of an answer.
	leastBroker = "2.15.2"
)

// Keys are all keys of a fleet's identities. They stay with the administrator, but for the agents' signing
// key, which the credential service holds.
type Keys struct {
	Operator nkeys.KeyPair
	Accounts map[Account]nkeys.KeyPair
	Roles    map[Role]nkeys.KeyPair // each signs users of its role and no others: the account says so
}

// NewKeys makes the keys of a new fleet.
func NewKeys() (Keys, error) {
	k := Keys{Accounts: map[Account]nkeys.KeyPair{}, Roles: map[Role]nkeys.KeyPair{}}
	var err error
	if k.Operator, err = nkeys.CreateOperator(); err != nil {
		return Keys{}, fmt.Errorf("make operator key: %w", err)
	}
	for _, a := range Accounts() {
		if k.Accounts[a], err = nkeys.CreateAccount(); err != nil {
			return Keys{}, fmt.Errorf("make key of account %s: %w", a, err)
		}
	}
	for _, r := range Roles() {
		if k.Roles[r], err = nkeys.CreateAccount(); err != nil {
			return Keys{}, fmt.Errorf("make key of role %s: %w", r, err)
		}
	}
	return k, nil
}

// OperatorJWT is what the broker trusts: it names the system account.
func (k Keys) OperatorJWT(fleet string) (string, error) {
	if err := events.ValidToken(fleet); err != nil {
		return "", fmt.Errorf("fleet: %w", err)
	}
	public, err := k.Operator.PublicKey()
	if err != nil {
		return "", fmt.Errorf("operator key: %w", err)
	}
	system, err := k.account(System)
	if err != nil {
		return "", err
	}
	c := jwt.NewOperatorClaims(public)
	c.Name, c.SystemAccount, c.AssertServerVersion = fleet, system, leastBroker
	return encode(c, k.Operator)
}

// AccountJWTs are the accounts as the broker is to know them: limits, imports and exports, and the roles'
// signing keys with what their users may do.
func (k Keys) AccountJWTs(fleet string) (map[Account]string, error) {
	if err := events.ValidToken(fleet); err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	out := map[Account]string{}
	for _, a := range Accounts() {
		c, err := k.accountClaims(fleet, a)
		if err != nil {
			return nil, err
		}
		if out[a], err = encode(c, k.Operator); err != nil {
			return nil, fmt.Errorf("account %s: %w", a, err)
		}
	}
	return out, nil
}

func (k Keys) account(a Account) (string, error) {
	pair, ok := k.Accounts[a]
	if !ok {
		return "", fmt.Errorf("the key of account %s is missing", a)
	}
	return pair.PublicKey()
}

func (k Keys) accountClaims(fleet string, a Account) (*jwt.AccountClaims, error) {
	public, err := k.account(a)
	if err != nil {
		return nil, err
	}
	c := jwt.NewAccountClaims(public)
	c.Name = fleet + "-" + string(a)
	c.Tags.Add(fleetTag+fleet, accountTag+string(a))
	c.Limits.LeafNodeConn = 0
	if slices.Contains(LeafAccounts(), a) {
		c.Limits.LeafNodeConn = jwt.NoLimit // who holds no leaf node's credentials makes no such connection
	}
	c.Limits.DisallowBearer = a != Enrolment
	c.Exports = exports(a)
	if c.Imports, err = k.imports(a); err != nil {
		return nil, err
	}
	if a == Fleet {
		c.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit, MaxAckPending: jwt.NoLimit,
			MemoryMaxStreamBytes: jwt.NoLimit, DiskMaxStreamBytes: jwt.NoLimit}
	}
	for _, r := range Roles() {
		if r.Account() != a {
			continue
		}
		pair, ok := k.Roles[r]
		if !ok {
			return nil, fmt.Errorf("the signing key of role %s is missing", r)
		}
		scope := jwt.NewUserScope()
		if scope.Key, err = pair.PublicKey(); err != nil {
			return nil, fmt.Errorf("signing key of role %s: %w", r, err)
		}
		scope.Role, scope.Template = string(r), template(r)
		c.SigningKeys.AddScopedSigner(scope)
	}
	return c, nil
}

// claims is what can be checked and written as a JWT.
type claims interface {
	Validate(*jwt.ValidationResults)
	Encode(nkeys.KeyPair) (string, error)
}

func encode(c claims, signer nkeys.KeyPair) (string, error) {
	results := jwt.CreateValidationResults()
	c.Validate(results)
	if results.IsBlocking(false) { // whether it has expired is judged by the clock of whoever mints
		return "", errors.Join(results.Errors()...)
	}
	return c.Encode(signer)
}

// Describe reads which account of which fleet a JWT is about.
func Describe(accountJWT string) (fleet string, account Account, err error) {
	c, err := jwt.DecodeAccountClaims(accountJWT)
	if err != nil {
		return "", "", fmt.Errorf("read account: %w", err)
	}
	fleet, account = tag(c.Tags, fleetTag), Account(tag(c.Tags, accountTag))
	if events.ValidToken(fleet) != nil || !slices.Contains(Accounts(), account) {
		return "", "", fmt.Errorf("account %s is none of a fleet", c.Subject)
	}
	return fleet, account, nil
}

func tag(tags jwt.TagList, prefix string) string {
	for _, t := range tags {
		if value, ok := strings.CutPrefix(t, prefix); ok {
			return value
		}
	}
	return ""
}

// clocksDiffer is how far the clock of whoever revokes may be behind that of whoever issues JWTs: the broker
// compares when the one said that it revoked with when the other said that it issued.
const clocksDiffer = 24 * time.Hour

// Revoke is the account without these users, by their public keys: whatever JWT they hold that was issued
// until now, by whatever clock, is worth nothing any more, and the broker ends their connections when it learns
// of it. A key that was revoked is not used again. The operator must be the one that signed the account.
// Revocations of agents are forgotten once every JWT that they could be about has expired; others are kept.
func Revoke(accountJWT string, operator nkeys.KeyPair, now time.Time, users ...string) (string, error) {
	c, err := jwt.DecodeAccountClaims(accountJWT)
	if err != nil {
		return "", fmt.Errorf("read account: %w", err)
	}
	public, err := operator.PublicKey()
	if err != nil {
		return "", fmt.Errorf("operator key: %w", err)
	}
	if c.Issuer != public {
		return "", fmt.Errorf("account %s was signed by operator %s, not %s", c.Name, c.Issuer, public)
	}
	for _, user := range users {
		if err := validKey(user); err != nil {
			return "", fmt.Errorf("revoke: %w", err)
		}
		c.RevokeAt(user, now.Add(clocksDiffer))
	}
	if tag(c.Tags, accountTag) == string(Agents) {
		for user, at := range c.Revocations {
			if now.Sub(time.Unix(at, 0)) > MaxAgentLife+clocksDiffer {
				c.ClearRevocation(user)
			}
		}
	}
	return encode(c, operator)
}
