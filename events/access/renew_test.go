package access_test

import (
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"chandler/events/access"
)

func TestAccountsAreRenewedWhereTheySayWhatAnotherVersionSaid(t *testing.T) {
	keys, _ := newKeys(t)
	all, err := keys.AccountJWTs("example")
	if err != nil {
		t.Fatal(err)
	}
	operator, err := keys.Operator.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := nkeys.FromPublicKey(operator)
	if err != nil {
		t.Fatal(err)
	}
	for _, with := range []nkeys.KeyPair{keys.Operator, public} {
		if renewed, err := access.Renewed(all, with); err != nil || len(renewed) > 0 {
			t.Fatalf("of this version %v were renewed (%v)", renewed, err)
		}
	}
	_, gone := newUser(t)
	revoked, err := access.Revoke(all[access.Agents], keys.Operator, time.Now(), gone)
	if err != nil {
		t.Fatal(err)
	}
	old, err := jwt.DecodeAccountClaims(revoked)
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range old.SigningKeys { // another version let agents do one thing less
		allowed := &scope.(*jwt.UserScope).Template.Pub.Allow
		*allowed = (*allowed)[1:]
	}
	if all[access.Agents], err = old.Encode(keys.Operator); err != nil {
		t.Fatal(err)
	}
	if seen, err := access.Renewed(all, public); err != nil || len(seen) != 1 || seen[access.Agents] != "" {
		t.Errorf("without the operator's key: %v (%v)", seen, err)
	}
	if _, there := mustRenew(t, all, keys)[access.People]; there {
		t.Error("an account that is as it should be was renewed")
	}
	all[access.Agents] = mustRenew(t, all, keys)[access.Agents]
	now, err := jwt.DecodeAccountClaims(all[access.Agents])
	if err != nil {
		t.Fatal(err)
	}
	if _, still := now.Revocations[gone]; !still || now.Subject != old.Subject || len(now.SigningKeys) != len(old.SigningKeys) {
		t.Errorf("it is not the same account: %+v", now)
	}
	if again := mustRenew(t, all, keys); len(again) > 0 {
		t.Errorf("a second time %v were renewed", again)
	}
	stranger, _ := newKeys(t)
	if text, err := now.Encode(stranger.Operator); err != nil {
		t.Fatal(err)
	} else if _, err := access.Renewed(map[access.Account]string{access.Agents: text}, keys.Operator); err == nil {
		t.Error("what another operator signed was signed again")
	}
	delete(all, access.Fleet)
	if _, err := access.Renewed(all, keys.Operator); err == nil {
		t.Error("accounts that import from one that is missing were renewed")
	}
}

func mustRenew(t *testing.T, all map[access.Account]string, keys access.Keys) map[access.Account]string {
	t.Helper()
	renewed, err := access.Renewed(all, keys.Operator)
	if err != nil {
		t.Fatal(err)
	}
	return renewed
}
