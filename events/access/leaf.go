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

// Domain is the JetStream domain of the broker that has the streams. Nothing of JetStream's API passes between
// a leaf node and the hub but by the name of a domain.
const Domain = "hub"

// LeafAccounts are the accounts in which a leaf node is a user, one connection to the hub for each: agents and
// machines that enrol are at the site, and in the system account the leaf node hears what accounts may and who
// was revoked.
func LeafAccounts() []Account { return []Account{Agents, Enrolment, System} }

// MintLeaf makes the JWT with which a leaf node connects to the hub for one of [LeafAccounts], whose own key
// signs it. No client connects with it. The leaf node speaks for whatever agent is behind it, of which the hub
// knows none: it may say what any agent may, and hears what is for any, but it can say nothing to agents elsewhere, and
// reaches nothing of the fleet's account but what agents do. What it may is written into the JWT: one that was
// made by another version may lack what that one's agents need.
func MintLeaf(a Account, account nkeys.KeyPair, user User) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("mint leaf node %q: %w", user.Name, err) }
	if !slices.Contains(LeafAccounts(), a) {
		return fail(fmt.Errorf("a leaf node has nothing to do in account %s", a))
	}
	if err := errors.Join(events.ValidToken(user.Name), validKey(user.Key)); err != nil {
		return fail(err)
	}
	now := user.Now
	if now.IsZero() {
		now = time.Now()
	}
	if !user.Expires.IsZero() && !user.Expires.After(now) {
		return fail(fmt.Errorf("it expired at %s", user.Expires.Format(time.RFC3339)))
	}
	c := jwt.NewUserClaims(user.Key)
	c.Name = user.Name
	c.Tags.Add(roleTag + string(Leaf))
	if !user.Expires.IsZero() {
		c.Expires = user.Expires.Unix()
	}
	g := leafGrant(a)
	c.Pub, c.Sub = permission(g.publish), permission(g.subscribe)
	c.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeLeafnode, jwt.ConnectionTypeLeafnodeWS}
	token, err := encode(c, account)
	if err != nil {
		return fail(err)
	}
	return token, nil
}

// leafGrant is what passes to the hub and from it: in the accounts of agents and enrolling machines what these
// may, whoever they are.
func leafGrant(a Account) (g grant) {
	switch a {
	case Agents:
		grantAgent(&g)
		// Without a domain the broker refuses these from a leaf node, by closing its connection.
		g.publish = slices.DeleteFunc(g.publish, func(s string) bool { return strings.HasPrefix(s, jsAPI) })
	case Enrolment:
		g = grantOf(Enrolling)
	case System:
		// The resolver of the leaf node asks for accounts and for what it missed, and hears of changes. Where
		// it wants the answers only the hub knows.
		g.pub("$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP", "$SYS.REQ.CLAIMS.PACK")
		g.sub("$SYS.REQ.CLAIMS.UPDATE", "$SYS._INBOX.>")
	}
	anybody := strings.NewReplacer(itsName, "*", itsKey, "*")
	for _, list := range [][]string{g.publish, g.subscribe} {
		for i, subject := range list {
			list[i] = anybody.Replace(subject)
		}
	}
	return g
}
