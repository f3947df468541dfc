package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func TestTokensAreMadeListedRemovedAndForgotten(t *testing.T) {
	f := newFleet(t)
	r := f.ready()
	k := f.token("office", 3)
	eventstest.ExpectExactly(t, f.admin, events.TokenCreated, func(e events.Event[events.TokenNotice]) bool {
		return e.Data.Token == k.key && e.Data.By == "ada"
	}, 1)
	other := f.request(newToken(t), "office", 1)
	if _, err := ask(f.story, "bob", events.TokenCreate, other); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a name in use: %v", err)
	}
	if _, err := ask(f.story, "bob", events.TokenCreate, f.request(k, "other", 1)); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a key in use: %v", err)
	}
	if _, err := ask(f.story, "bob", events.TokenRemove, events.Named{Name: "office", Why: "two\nlines"}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("a reason of two lines: %v", err)
	}
	v, err := ask(f.story, "bob", events.TokenRemove, events.Named{Name: "office", Why: "found on a desk"})
	if err != nil || v.By != "bob" || v.Token != k.key {
		t.Fatalf("removed %+v, %v", v, err)
	}
	eventstest.ExpectExactly(t, f.admin, events.TokenRemoved, func(e events.Event[events.TokenNotice]) bool { return e.Data.Why == "found on a desk" }, 1)
	if _, err := ask(f.story, "bob", events.TokenRemove, events.Named{Name: "office"}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := ask(f.story, "bob", events.TokenCreate, other); err != nil {
		t.Errorf("a name that is free again: %v", err)
	}
	if n := f.used("office"); n != 0 {
		t.Errorf("the new token was used %d times", n)
	}
	eventstest.ExpectExactly(t, f.admin, events.TokenCreated, nil, 2)

	listed := func() int {
		all, err := ask(f.story, "ada", events.TokenList, events.Nothing{})
		if err != nil {
			t.Fatal(err)
		}
		if len(all.Tokens) > 0 && all.Tokens[0].EnrolmentJWT != "" {
			t.Error("the list carries the identity of those that enrol")
		}
		return len(all.Tokens)
	}
	f.clock.pass(29 * 24 * time.Hour)
	if err := r.reconcileEnrolments(t.Context()); err != nil || listed() != 1 {
		t.Errorf("%d tokens before the memory's end, %v", listed(), err)
	}
	f.clock.pass(3 * 24 * time.Hour)
	if err := r.reconcileEnrolments(t.Context()); err != nil || listed() != 0 {
		t.Errorf("%d tokens after it, %v", listed(), err)
	}
	var left tokenRecord
	if _, err := r.enrolments.load(t.Context(), tokenKeys+"office", &left); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tokenRecord{TokenNotice: events.TokenNotice{Name: "office"}, outbox: outbox{Told: true, Change: 3}, Removed: true}, left, cmp.AllowUnexported(tokenRecord{})); diff != "" {
		t.Errorf("left in the bucket: %s", diff)
	}
	f.token("office", 1)
}

func TestTokensThatAreRefused(t *testing.T) {
	f := newFleet(t)
	f.running()
	tags := make([]string, maxTags+1)
	for i := range tags {
		tags[i] = fmt.Sprintf("tag-%d", i)
	}
	for name, c := range map[string]struct {
		change func(*events.TokenRequest)
		says   string
	}{
		"a name that is no token":          {func(r *events.TokenRequest) { r.Name = "office.*" }, "office.*"},
		"no key":                           {func(r *events.TokenRequest) { r.Token = events.NoKey }, "public user key"},
		"a key whose checksum is wrong":    {func(r *events.TokenRequest) { r.Token = "U" + strings.Repeat("A", 55) }, "public user key"},
		"a negative number of uses":        {func(r *events.TokenRequest) { r.Uses = -1 }, "-1 uses"},
		"no expiry":                        {func(r *events.TokenRequest) { r.Expires = time.Time{} }, "expired"},
		"an expiry in the past":            {func(r *events.TokenRequest) { r.Expires = f.clock.Now().Add(-time.Second) }, "expired"},
		"an expiry in ten years":           {func(r *events.TokenRequest) { r.Expires = f.clock.Now().AddDate(10, 0, 0) }, "at most a year"},
		"too many tags":                    {func(r *events.TokenRequest) { r.Conferred.Tags = tags }, "more than 64"},
		"a tag twice":                      {func(r *events.TokenRequest) { r.Conferred.Tags = []string{"a", "a"} }, "twice"},
		"a tag that is no token":           {func(r *events.TokenRequest) { r.Conferred.Tags = []string{"A b"} }, "tag"},
		"a site that is no token":          {func(r *events.TokenRequest) { r.Conferred.Site = "Oslo!" }, "site"},
		"a client kind that nobody knows":  {func(r *events.TokenRequest) { r.Conferred.ClientKind = "thin" }, "advanced or legacy"},
		"a name that begins with a hyphen": {func(r *events.TokenRequest) { r.Name = "-x" }, "-x"},
	} {
		t.Run(name, func(t *testing.T) {
			r := f.request(newToken(t), "office", 1)
			c.change(&r)
			if _, err := ask(f.story, "ada", events.TokenCreate, r); !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %s", err, c.says)
			}
		})
	}
	if _, err := ask(f.story, "ada", events.TokenRemove, events.Named{Name: ">"}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("removing everything: %v", err)
	}
	eventstest.ExpectExactly(t, f.admin, events.TokenCreated, nil, 0)
}

// FuzzAdministrators sends what administrators send through the checks before anything is stored.
func FuzzAdministrators(f *testing.F) {
	f.Add([]byte(`{"token":"U","name":"a","uses":-1,"expires":"2026-12-01T08:00:00Z","conferred":{"tags":["a"]}}`))
	f.Add([]byte(`{"agents":["agent001"],"why":"x\n","kind":"legacy"}`))
	f.Add([]byte(`{"user":"ada","role":"agent","key":"nokey","events":["job.failed"]}`))
	s := &Service{now: time.Now}
	f.Fuzz(func(t *testing.T, data []byte) {
		var token events.TokenRequest
		if json.Unmarshal(data, &token) == nil && checkToken(token, s.now()) == nil {
			if events.ValidToken(token.Name) != nil || events.ValidKey(token.Token) != nil || token.Token == events.NoKey || token.Uses < 0 || len(token.Conferred.Tags) > maxTags {
				t.Errorf("token %+v", token)
			}
		}
		var agents events.AgentsRequest
		if json.Unmarshal(data, &agents) == nil && checkAgents(agents) == nil {
			for _, id := range agents.Agents {
				if events.ValidAgent(id) != nil {
					t.Errorf("agent %q", id)
				}
			}
		}
		var user events.UserNotice
		if json.Unmarshal(data, &user) == nil && s.checkUser(user) == nil && (events.ValidToken(user.User) != nil || user.Key == events.NoKey || user.Role == "agent" || user.Role == "enrolling") {
			t.Errorf("user %+v", user)
		}
	})
}
