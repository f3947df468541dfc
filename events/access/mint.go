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

// MaxAgentLife is the longest that an agent's JWT may be valid. Revocations are kept for longer.
const MaxAgentLife = 7 * 24 * time.Hour

// User is whom a JWT is for.
type User struct {
	Name    string    // stands in the user's subjects; an agent's is its id
	Key     string    // public user nkey
	Expires time.Time // zero: never, which is not for agents
	Now     time.Time // by which Expires is judged; zero: time.Now()
	Events  []string  // of an integrator, and of no other: the event types that it hears
	Bearer  bool      // without proof of the key: of an enrolling machine, and of no other
}

// Mint makes the JWT of a user of the role. signing is the role's signing key, account the public key of the
// role's account. The name stands in the user's permissions, where "*" would be everybody: one that is not
// of the strict form is refused, as is an agent's that its key does not derive, a service's that is another,
// and a person's that is a service's.
func Mint(role Role, signing nkeys.KeyPair, account string, user User) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("mint %s %q: %w", role, user.Name, err) }
	if !slices.Contains(Roles(), role) {
		return fail(errors.New("there is no such role"))
	}
	if !nkeys.IsValidPublicAccountKey(account) {
		return fail(errors.New("the account is not a public account key"))
	}
	now := user.Now
	if now.IsZero() {
		now = time.Now()
	}
	if err := user.valid(role, now); err != nil {
		return fail(err)
	}
	tags, err := tagsOf(user.Events)
	if err != nil {
		return fail(err)
	}
	c := jwt.NewUserClaims(user.Key)
	c.SetScoped(true) // what it may do is written beside the signing key, in the account
	c.Name, c.IssuerAccount = user.Name, account
	c.Tags.Add(roleTag + string(role))
	c.Tags.Add(tags...)
	if !user.Expires.IsZero() {
		c.Expires = user.Expires.Unix()
	}
	token, err := encode(c, signing)
	if err != nil {
		return fail(err)
	}
	return token, nil
}

func (u User) valid(role Role, now time.Time) error {
	if err := validKey(u.Key); err != nil {
		return err
	}
	if err := u.validName(role); err != nil {
		return err
	}
	switch {
	case !u.Expires.IsZero() && !u.Expires.After(now):
		return fmt.Errorf("it expired at %s", u.Expires.Format(time.RFC3339))
	case role == Agent && (u.Expires.IsZero() || u.Expires.Sub(now) > MaxAgentLife):
		return fmt.Errorf("an agent's identity must expire within %s", MaxAgentLife)
	case u.Bearer != (role == Enrolling):
		return errors.New("an enrolling machine's identity needs no proof of its key, and no other's")
	case (len(u.Events) > 0) != (role == Integrator):
		return errors.New("an integrator needs event types, and nobody else has them")
	}
	return nil
}

func (u User) validName(role Role) error {
	if role == Agent {
		if err := events.ValidAgent(u.Name); err != nil {
			return err
		}
		if want := events.AgentID([]byte(u.Key)); u.Name != want {
			return fmt.Errorf("its key is that of agent %s", want)
		}
		return nil
	}
	if err := events.ValidToken(u.Name); err != nil {
		return err
	}
	if fixed := role.fixedName(); fixed != "" {
		if u.Name != fixed {
			return fmt.Errorf("its only name is %s", fixed)
		}
		return nil
	}
	for _, r := range Roles() {
		if u.Name == r.fixedName() {
			return errors.New("that is a service's name")
		}
	}
	return nil
}

func validKey(key string) error {
	if err := events.ValidKey(key); err != nil {
		return err
	}
	if !nkeys.IsValidPublicUserKey(key) { // also where it stands for no key
		return fmt.Errorf("key %q is not a public user key", key)
	}
	return nil
}

// tagsOf turns event types into the tags from which the broker makes an integrator's subscriptions.
func tagsOf(types []string) ([]string, error) {
	var tags []string
	for _, name := range types {
		d, ok := events.TypeNamed(name)
		if !ok {
			return nil, fmt.Errorf("there is no event type %q", name)
		}
		tags = append(tags, eventTag+strings.TrimPrefix(d.Subject("*"), events.Prefix))
	}
	return tags, nil
}

// MintSystem makes the JWT of a user of the system account, whose own key signs it. It may change and read
// accounts and ask brokers how they are, and nothing else there.
func MintSystem(account nkeys.KeyPair, name, key string) (string, error) {
	if err := errors.Join(events.ValidToken(name), validKey(key)); err != nil {
		return "", fmt.Errorf("mint system user: %w", err)
	}
	c := jwt.NewUserClaims(key)
	c.Name = name
	c.Tags.Add(roleTag + string(SystemUser))
	g := systemGrant(name)
	c.Pub, c.Sub = permission(g.publish), permission(g.subscribe)
	c.AllowedConnectionTypes = clientConnections() // its account takes leaf nodes
	token, err := encode(c, account)
	if err != nil {
		return "", fmt.Errorf("mint system user: %w", err)
	}
	return token, nil
}

func systemGrant(name string) (g grant) {
	g.pub("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.LIST", "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP", "$SYS.REQ.ACCOUNT.*.INFO",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.*")
	g.sub(inboxes + name + ".>")
	return g
}
