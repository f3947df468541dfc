package access_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/enrolment"
)

// newKeys makes the keys of a fleet, and the public keys of its accounts.
func newKeys(t testing.TB) (access.Keys, map[access.Account]string) {
	t.Helper()
	keys, err := access.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	accounts := map[access.Account]string{}
	for a, pair := range keys.Accounts {
		if accounts[a], err = pair.PublicKey(); err != nil {
			t.Fatal(err)
		}
	}
	return keys, accounts
}

func newUser(t testing.TB) (seed []byte, key string) {
	t.Helper()
	seed, key, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return seed, key
}

func TestUsersThatMustNotBeAreNotMinted(t *testing.T) {
	keys, accounts := newKeys(t)
	_, key := newUser(t)
	soon, id := time.Now().Add(time.Hour), events.AgentID([]byte(key))
	for name, c := range map[string]struct {
		role access.Role
		user access.User
		says string
	}{
		"an agent named *":                         {access.Agent, access.User{Name: "*", Key: key, Expires: soon}, "agent id"},
		"an agent named >":                         {access.Agent, access.User{Name: ">", Key: key, Expires: soon}, "agent id"},
		"an agent named with a dot":                {access.Agent, access.User{Name: "aaaaaaaa.b", Key: key, Expires: soon}, "agent id"},
		"an agent named with a template":           {access.Agent, access.User{Name: "{{name()}}", Key: key, Expires: soon}, "agent id"},
		"an agent with another's id":               {access.Agent, access.User{Name: "aaaaaaaaaaaaaaaaaaaa", Key: key, Expires: soon}, "its key is that of agent"},
		"an agent without a name":                  {access.Agent, access.User{Key: key, Expires: soon}, "agent id"},
		"an agent for ever":                        {access.Agent, access.User{Name: id, Key: key}, "must expire"},
		"an agent for a month":                     {access.Agent, access.User{Name: id, Key: key, Expires: soon.Add(30 * 24 * time.Hour)}, "must expire"},
		"an agent of yesterday":                    {access.Agent, access.User{Name: id, Key: key, Expires: time.Now().Add(-time.Hour)}, "expired"},
		"an agent without proof of its key":        {access.Agent, access.User{Name: id, Key: key, Expires: soon, Bearer: true}, "proof"},
		"a viewer named *":                         {access.Viewer, access.User{Name: "*", Key: key}, "name"},
		"a viewer named with a dot":                {access.Viewer, access.User{Name: "a.b", Key: key}, "name"},
		"a viewer named in capitals":               {access.Viewer, access.User{Name: "Vera", Key: key}, "name"},
		"a viewer without proof of the key":        {access.Viewer, access.User{Name: "vera", Key: key, Bearer: true}, "proof"},
		"a viewer without a key":                   {access.Viewer, access.User{Name: "vera"}, "key"},
		"a viewer whose key stands for none":       {access.Viewer, access.User{Name: "vera", Key: events.NoKey}, "key"},
		"a viewer whose key is another kind":       {access.Viewer, access.User{Name: "vera", Key: accounts[access.Fleet]}, "key"},
		"a viewer whose key is damaged":            {access.Viewer, access.User{Name: "vera", Key: "U" + strings.Repeat("A", 55)}, "key"},
		"a viewer with event types":                {access.Viewer, access.User{Name: "vera", Key: key, Events: []string{"job.failed"}}, "integrator"},
		"an administrator with a service's name":   {access.Administrator, access.User{Name: "scheduling", Key: key}, "service's name"},
		"an administrator named provisioner":       {access.Administrator, access.User{Name: "provisioner", Key: key}, "service's name"},
		"a service with another's name":            {access.Service("content"), access.User{Name: "credentials", Key: key}, "only name"},
		"an integrator of no events":               {access.Integrator, access.User{Name: "monitor", Key: key}, "event types"},
		"an integrator of an unknown event":        {access.Integrator, access.User{Name: "monitor", Key: key, Events: []string{"job.*"}}, "no event type"},
		"an enrolling machine that proves its key": {access.Enrolling, access.User{Name: "enrolment", Key: key}, "proof"},
		"a role that is none":                      {access.Service("other"), access.User{Name: "other", Key: key}, "no such role"},
		"a system user, which has another way":     {access.SystemUser, access.User{Name: "admin", Key: key}, "no such role"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := access.Mint(c.role, keys.Roles[access.Viewer], accounts[c.role.Account()], c.user); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("says %v, want %q", err, c.says)
			}
		})
	}
	if _, err := access.Mint(access.Viewer, keys.Roles[access.Viewer], key, access.User{Name: "vera", Key: key}); err == nil {
		t.Error("an account that is none was taken")
	}
	if _, err := access.Mint(access.Viewer, keys.Operator, accounts[access.People], access.User{Name: "vera", Key: key}); err == nil {
		t.Error("the operator's key signed a user")
	}
	if _, err := access.MintSystem(keys.Accounts[access.System], "*", key); err == nil {
		t.Error("a system user is named *")
	}
}

func TestCredentialsAreReadAsTheyWereWritten(t *testing.T) {
	keys, accounts := newKeys(t)
	seed, key := newUser(t)
	for _, role := range append(access.Roles(), access.SystemUser) {
		u := access.User{Name: "vera", Key: key, Expires: time.Now().Add(time.Hour)}
		var token string
		var err error
		switch role {
		case access.Agent:
			u.Name = events.AgentID([]byte(key))
		case access.Enrolling:
			u.Bearer = true
		case access.Integrator:
			u.Events = []string{"job.failed"}
		case access.Provisioner:
			u.Name = "provisioner"
		default:
			if name, ok := strings.CutPrefix(string(role), "service-"); ok {
				u.Name = name
			}
		}
		if role == access.SystemUser {
			token, err = access.MintSystem(keys.Accounts[access.System], u.Name, key)
		} else {
			token, err = access.Mint(role, keys.Roles[role], accounts[role.Account()], u)
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := access.Credentials(token, seed)
		if err != nil {
			t.Fatal(err)
		}
		gotToken, name, gotKey, gotRole, gotSeed, err := access.ParseCredentials(data)
		if err != nil || gotToken != token || name != u.Name || gotKey != key || gotRole != role || !bytes.Equal(gotSeed, seed) {
			t.Errorf("%s: read name %q key %q role %q (%v)", role, name, gotKey, gotRole, err)
		}
	}
	other, _ := newUser(t)
	token, err := access.MintSystem(keys.Accounts[access.System], "ada", key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := access.Credentials(token, other); err == nil {
		t.Error("credentials were written with another's seed")
	}
	data, err := access.Credentials(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing":         nil,
		"without a seed":  data[:bytes.Index(data, []byte("****"))],
		"without a JWT":   data[bytes.Index(data, []byte("****")):],
		"another's seed":  bytes.Replace(data, seed, other, 1),
		"a damaged JWT":   bytes.Replace(data, []byte(token[len(token)-20:]), []byte("AAAAAAAAAAAAAAAAAAAA"), 1),
		"much too large":  append(bytes.Clone(data), make([]byte, 64<<10)...),
		"an account's":    []byte("-----BEGIN NATS ACCOUNT JWT-----\n" + accountJWT(t, keys) + "\n------END NATS ACCOUNT JWT------\n"),
		"a seed in place": bytes.Replace(data, []byte(token), seed, 1),
	} {
		if _, _, _, _, _, err := access.ParseCredentials(bad); err == nil {
			t.Errorf("%s: it was taken", name)
		} else if strings.Contains(err.Error(), string(seed)) {
			t.Errorf("%s: the error tells the seed", name)
		}
	}
}

func accountJWT(t testing.TB, keys access.Keys) string {
	t.Helper()
	all, err := keys.AccountJWTs("example")
	if err != nil {
		t.Fatal(err)
	}
	return all[access.Agents]
}

func TestRevocationsAreKeptForAsLongAsTheyMatter(t *testing.T) {
	keys, _ := newKeys(t)
	all, err := keys.AccountJWTs("example")
	if err != nil {
		t.Fatal(err)
	}
	users := make([]string, 3)
	for i := range users {
		_, users[i] = newUser(t)
	}
	now := time.Now()
	for account, want := range map[access.Account][]string{
		access.Agents: {users[1], users[2]}, // every JWT of the first has expired
		access.People: users,                // theirs need not expire
	} {
		text := all[account]
		for i, at := range []time.Time{now.Add(-access.MaxAgentLife - 49*time.Hour), now.Add(-access.MaxAgentLife + time.Hour), now} {
			if text, err = access.Revoke(text, keys.Operator, at, users[i]); err != nil {
				t.Fatal(err)
			}
		}
		c, err := jwt.DecodeAccountClaims(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, user := range users {
			if _, revoked := c.Revocations[user]; revoked != slices.Contains(want, user) {
				t.Errorf("%s: user %d revoked: %v", account, slices.Index(users, user), revoked)
			}
		}
		if fleet, described, err := access.Describe(text); err != nil || fleet != "example" || described != account {
			t.Errorf("it is account %q of fleet %q (%v)", described, fleet, err)
		}
		before, err := jwt.DecodeAccountClaims(all[account])
		if err != nil {
			t.Fatal(err)
		}
		if len(c.SigningKeys) != len(before.SigningKeys) || len(c.Imports) != len(before.Imports) || c.Subject != before.Subject {
			t.Errorf("%s is not what it was", account)
		}
	}
	stranger, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := access.Revoke(all[access.People], stranger, now, users[0]); err == nil {
		t.Error("another operator signed the account")
	}
	for _, user := range []string{"*", "", events.NoKey, "vera"} {
		if _, err := access.Revoke(all[access.People], keys.Operator, now, user); err == nil {
			t.Errorf("user %q was revoked", user)
		}
	}
}

func TestAFleetIsNamedByAToken(t *testing.T) {
	keys, _ := newKeys(t)
	for _, name := range []string{"", "Example", "a.b", "*"} {
		if _, err := keys.OperatorJWT(name); err == nil {
			t.Errorf("there is an operator of fleet %q", name)
		}
		if _, err := keys.AccountJWTs(name); err == nil {
			t.Errorf("there are accounts of fleet %q", name)
		}
	}
	operator, err := keys.OperatorJWT("example")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := access.Describe(operator); err == nil {
		t.Error("an operator is described as an account")
	}
}

func FuzzParseCredentials(f *testing.F) {
	keys, _ := newKeys(f)
	seed, key := newUser(f)
	token, err := access.MintSystem(keys.Accounts[access.System], "ada", key)
	if err != nil {
		f.Fatal(err)
	}
	data, err := access.Credentials(token, seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("-----BEGIN NATS USER JWT-----\n\n------END NATS USER JWT------\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		token, _, key, _, seed, err := access.ParseCredentials(data)
		if err != nil {
			return
		}
		if public, err := enrolment.PublicKey(seed); err != nil || public != key {
			t.Errorf("the seed is that of %q, not %q (%v)", public, key, err)
		}
		if _, err := access.Credentials(token, seed); err != nil {
			t.Error(err)
		}
	})
}

func TestNobodyButALeafNodeConnectsAsOne(t *testing.T) {
	keys, err := access.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	_, key := newUser(t)
	token, err := access.MintSystem(keys.Accounts[access.System], "ada", key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := jwt.DecodeUserClaims(token)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.AllowedConnectionTypes) == 0 || slices.ContainsFunc(c.AllowedConnectionTypes, func(kind string) bool { return strings.HasPrefix(kind, "LEAFNODE") }) {
		t.Errorf("a user of the system account connects as %v", c.AllowedConnectionTypes)
	}
	accounts, err := keys.AccountJWTs("f1")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range accounts {
		a, err := jwt.DecodeAccountClaims(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, scope := range a.SigningKeys {
			s, ok := scope.(*jwt.UserScope)
			if !ok || len(s.Template.AllowedConnectionTypes) == 0 || slices.ContainsFunc(s.Template.AllowedConnectionTypes, func(kind string) bool { return strings.HasPrefix(kind, "LEAFNODE") }) {
				t.Errorf("%s: a signing key makes users that connect as %+v", a.Name, scope)
			}
		}
	}
}
