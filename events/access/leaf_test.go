package access

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"chandler/events"
)

// anybody is a subject of a template as it is for all users.
func anybody(subject string) string {
	return strings.NewReplacer(itsName, "*", itsKey, "*").Replace(subject)
}

func within(list []string, subject string) bool {
	return slices.ContainsFunc(list, func(allowed string) bool { return jwt.Subject(subject).IsContainedIn(jwt.Subject(allowed)) })
}

func TestALeafNodePassesWhatAgentsAndEnrollingMachinesMayAndNothingElse(t *testing.T) {
	for _, r := range []Role{Agent, Enrolling} {
		leaf, own := leafGrant(r.Account()), grantOf(r)
		for _, s := range own.publish {
			if s = anybody(s); within(leaf.publish, s) == strings.HasPrefix(s, jsAPI) {
				t.Errorf("%s passes to the hub: %t", s, within(leaf.publish, s))
			}
		}
		for _, s := range own.subscribe {
			if !within(leaf.subscribe, anybody(s)) {
				t.Errorf("%s does not come from the hub", s)
			}
		}
		for _, s := range leaf.publish {
			if !slices.ContainsFunc(own.publish, func(may string) bool { return anybody(may) == s }) {
				t.Errorf("%s passes to the hub, and no %s may say it", s, r)
			}
		}
		for _, s := range leaf.subscribe {
			if !slices.ContainsFunc(own.subscribe, func(may string) bool { return anybody(may) == s }) {
				t.Errorf("%s comes from the hub, and no %s may hear it", s, r)
			}
		}
	}
}

func TestALeafNodeSaysNothingToAgentsAndChangesNoAccount(t *testing.T) {
	for _, a := range LeafAccounts() {
		for _, s := range []string{
			events.AgentInbox(testName), "chandler.agent." + testName + ".offer", events.Beacon.Subject(""), "chandler.trust", events.AccountTestAsked.Subject(testName), events.LeaseWithdrawn.Subject(testName),
			"_INBOX." + testName + ".x", "_INBOX.enrol.x", "_INBOX.admin.x", "$SYS._INBOX.x.y", "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.x.CLAIMS.UPDATE", "$SYS.ACCOUNT.x.CLAIMS.UPDATE",
			"$JS.API.STREAM.PURGE.JOBS", "$JS.hub.API.STREAM.PURGE.JOBS", "$JS.hub.API.STREAM.INFO.JOBS", "$JS.hub.API.DIRECT.GET.JOBS", "$JS.hub.API.DIRECT.GET.STATUS.x",
		} {
			if within(leafGrant(a).publish, s) {
				t.Errorf("in account %s it may say %s", a, s)
			}
		}
		for _, s := range []string{">", "chandler.>", "chandler.rpc.execution.sync.x", "chandler.job.succeeded.x", "$SYS.>", "$SYS.REQ.CLAIMS.PACK", "$SYS.REQ.ACCOUNT.x.CLAIMS.LOOKUP"} {
			if within(leafGrant(a).subscribe, s) {
				t.Errorf("in account %s it may hear %s", a, s)
			}
		}
	}
}

func TestALeafNodeIsMintedForItsAccountsAlone(t *testing.T) {
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	key, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, a := range LeafAccounts() {
		text, err := MintLeaf(a, keys.Accounts[a], User{Name: "oslo", Key: key, Expires: now.Add(time.Hour), Now: now})
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		c, err := jwt.DecodeUserClaims(text)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Pub.Allow) == 0 || len(c.Sub.Allow) == 0 || c.Resp != nil || c.BearerToken {
			t.Errorf("%s: it may say %v and hear %v", a, c.Pub, c.Sub)
		}
		if slices.Contains(c.AllowedConnectionTypes, jwt.ConnectionTypeStandard) || c.Expires != now.Add(time.Hour).Unix() {
			t.Errorf("%s: it connects as %v until %d", a, c.AllowedConnectionTypes, c.Expires)
		}
	}
	for _, c := range []struct {
		name    string
		account Account
		user    User
	}{
		{"the fleet's account", Fleet, User{Name: "oslo", Key: key}},
		{"people's account", People, User{Name: "oslo", Key: key}},
		{"a name that is everybody", Agents, User{Name: "*", Key: key}},
		{"no name", Agents, User{Key: key}},
		{"no key", Agents, User{Name: "oslo"}},
		{"one that has expired", Agents, User{Name: "oslo", Key: key, Expires: now, Now: now}},
	} {
		if _, err := MintLeaf(c.account, keys.Accounts[c.account], c.user); err == nil {
			t.Errorf("%s: it was minted", c.name)
		}
	}
}
