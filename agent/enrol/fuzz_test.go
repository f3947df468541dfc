package enrol

import (
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/enrolment"
)

func FuzzAnIdentityIsOfThisAgentOrRefused(f *testing.F) {
	account, err := nkeys.CreateAccount()
	if err != nil {
		f.Fatal(err)
	}
	_, public, err := enrolment.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	k := &Keeper{public: public, id: events.AgentID([]byte(public))}
	for _, name := range []string{k.id, "*"} {
		for _, bearer := range []bool{false, true} {
			c := jwt.NewUserClaims(public)
			c.Name, c.Expires, c.BearerToken = name, 1e10, bearer
			text, err := c.Encode(account)
			if err != nil {
				f.Fatal(err)
			}
			if _, _, err := k.checkJWT(text); (err == nil) != (name == k.id && !bearer) {
				f.Fatalf("name %s, bearer %v: %v", name, bearer, err)
			}
			f.Add(text)
		}
	}
	f.Add("a.b.c")
	f.Add(strings.Repeat("a", maxJWT+1))
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, err := k.checkJWT(text); err != nil {
			return
		}
		c, err := jwt.DecodeUserClaims(text)
		if err != nil || c.Subject != public || c.Name != k.id || c.BearerToken || len(text) > maxJWT {
			t.Errorf("taken: %q", text)
		}
	})
}
