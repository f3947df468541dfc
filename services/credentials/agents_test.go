package credentials

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func TestIdentitiesAreListedInPages(t *testing.T) {
	f := newFleet(t)
	f.ready()
	k := f.token("office", 0)
	var want []string
	for i := range 7 {
		m := f.machine(fmt.Sprintf("ws-%d", i))
		m.want(m.enrol(k), "")
		want = append(want, m.id)
		if i == 3 {
			change1(f, events.AgentArchive, m)
		}
	}
	slices.Sort(want)
	second := f.running() // a replica that started later knows them too
	f.eventually("read", func() bool { return second.Healthy(t.Context()) == nil })
	for _, limit := range []int{0, 1, 3, 7, 100} {
		var got []string
		q := events.EnrolmentQuery{Limit: limit}
		for more := true; more; {
			page, err := ask(f.story, "ada", events.EnrolmentList, q)
			if err != nil || len(page.Enrolments) == 0 || limit > 0 && len(page.Enrolments) > limit {
				t.Fatalf("page %+v, %v", page, err)
			}
			for _, v := range page.Enrolments {
				got = append(got, v.Agent)
			}
			q.After, more = got[len(got)-1], page.More
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in pages of %d: %s", limit, diff)
		}
	}
	archived, err := ask(f.story, "ada", events.EnrolmentList, events.EnrolmentQuery{State: events.EnrolmentArchived})
	if err != nil || len(archived.Enrolments) != 1 || archived.More {
		t.Errorf("archived: %+v, %v", archived, err)
	}
	for _, q := range []events.EnrolmentQuery{{Limit: -1}, {After: strings.Repeat("a", 33)}, {Agents: make([]string, maxAgents+1)}} {
		if _, err := ask(f.story, "ada", events.EnrolmentList, q); !errors.Is(err, bus.ErrBadRequest) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestManyAgentsAreChangedInOneRequest(t *testing.T) {
	f := newFleet(t)
	f.ready()
	k := f.token("office", 0)
	a, b := f.machine("ws-1"), f.machine("ws-2")
	a.enrol(k)
	b.enrol(k)
	ids := []string{b.id, a.id, b.id, agent}
	yes := true
	got, err := ask(f.story, "bob", events.AgentSetKind, events.SetKindRequest{Agents: ids, Kind: events.Legacy, DomainController: &yes, Why: "it is one"})
	if err != nil || len(got.Changed) != 2 || !slices.Equal(got.Unknown, []string{agent}) || len(got.Unchanged) != 0 {
		t.Fatalf("set kind: %+v, %v", got, err)
	}
	told(a, events.AgentKindSet, 1)
	want := events.Conferred{Tags: []string{"office"}, Site: "oslo", ClientKind: events.Legacy, DomainController: true}
	if diff := cmp.Diff(&want, a.renew().Conferred); diff != "" {
		t.Error(diff)
	}
	got, err = ask(f.story, "bob", events.AgentSetKind, events.SetKindRequest{Agents: ids, Kind: events.Legacy})
	if err != nil || len(got.Changed) != 0 || len(got.Unchanged) != 2 {
		t.Errorf("again: %+v, %v", got, err)
	}
	many := make([]string, maxAgents+1)
	for i := range many {
		many[i] = fmt.Sprintf("agent%04d", i)
	}
	for name, r := range map[string]events.AgentsRequest{
		"nobody":             {},
		"more than 1,000":    {Agents: many},
		"everybody":          {Agents: []string{"*"}},
		"a reason in a poem": {Agents: []string{agent}, Why: "a\nb"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []events.Call[events.AgentsRequest, events.AgentsAnswer]{events.AgentApprove, events.AgentRevoke, events.AgentArchive} {
				if _, err := ask(f.story, "bob", c, r); !errors.Is(err, bus.ErrBadRequest) {
					t.Errorf("%s: %v", c.Verb, err)
				}
			}
		})
	}
	if _, err := ask(f.story, "bob", events.AgentSetKind, events.SetKindRequest{Agents: []string{a.id}, Kind: "thin"}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("a kind that nobody knows: %v", err)
	}
	records := eventstest.ExpectExactly(t, f.admin, events.AuditRecorded, func(e events.Event[events.AuditRecord]) bool {
		return e.Data.Verb == "agent_set_kind" && e.Data.Result == "ok" && e.Data.Before != e.Data.After
	}, 1)
	if records[0].Data.By != "bob" {
		t.Errorf("audited: %+v", records[0].Data)
	}
}

func TestTwoChangesBeforeTheFirstIsToldAreBothTold(t *testing.T) {
	f := newFleet(t)
	r := f.replica() // it runs nothing that tells
	m := f.machine("ws-1")
	first := agentRecord{State: events.EnrolmentActive, What: events.AgentEnrolled.Name, Let: f.clock.Now(),
		EnrolmentNotice: events.EnrolmentNotice{Agent: m.id, Key: m.key, Hostname: m.hostname, At: f.clock.Now().UTC()}}
	first.owe()
	if err := r.enrolments.save(t.Context(), agentKeys+m.id, first, 0); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func() (events.AgentsAnswer, error){
		func() (events.AgentsAnswer, error) {
			return r.agentArchive(t.Context(), "ada", events.AgentsRequest{Agents: []string{m.id}})
		},
		func() (events.AgentsAnswer, error) {
			return r.agentRevoke(t.Context(), "ada", events.AgentsRequest{Agents: []string{m.id}})
		},
	} {
		if a, err := change(); err != nil || len(a.Changed) != 1 {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	told(m, events.AgentEnrolled, 1)
	told(m, events.AgentArchived, 1)
	told(m, events.AgentRevoked, 0)
	f.running()
	f.running()
	told(m, events.AgentRevoked, 1)
}

func TestUsersAreNotedAndRevoked(t *testing.T) {
	f := newFleet(t)
	f.running()
	key := func() string { return newToken(t).key }
	ada := events.UserNotice{User: "ada", Role: string(access.Deployer), Key: key(), By: "mallory"}
	added, err := ask(f.story, "root", events.UserAdd, ada)
	if err != nil || added.By != "root" || added.At.IsZero() {
		t.Fatalf("added %+v, %v", added, err)
	}
	siem := events.UserNotice{User: "siem", Role: string(access.Integrator), Key: key(), Events: []string{"job.failed"}}
	if _, err := ask(f.story, "root", events.UserAdd, siem); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		user events.UserNotice
		want error
	}{
		"a name in use":                      {events.UserNotice{User: "ada", Role: "viewer", Key: key()}, bus.ErrConflict},
		"a key in use":                       {events.UserNotice{User: "eve", Role: "viewer", Key: ada.Key}, bus.ErrConflict},
		"everybody":                          {events.UserNotice{User: "*", Role: "viewer", Key: key()}, bus.ErrBadRequest},
		"no key":                             {events.UserNotice{User: "eve", Role: "viewer", Key: events.NoKey}, bus.ErrBadRequest},
		"a role that nobody knows":           {events.UserNotice{User: "eve", Role: "root", Key: key()}, bus.ErrBadRequest},
		"an agent":                           {events.UserNotice{User: "eve", Role: "agent", Key: key()}, bus.ErrBadRequest},
		"an enrolling machine":               {events.UserNotice{User: "eve", Role: "enrolling", Key: key()}, bus.ErrBadRequest},
		"events of a viewer":                 {events.UserNotice{User: "eve", Role: "viewer", Key: key(), Events: []string{"job.failed"}}, bus.ErrBadRequest},
		"an event type that does not exist":  {events.UserNotice{User: "eve", Role: "integrator", Key: key(), Events: []string{"job.exploded"}}, bus.ErrBadRequest},
		"an expiry in the past":              {events.UserNotice{User: "eve", Role: "viewer", Key: key(), Expires: f.clock.Now().Add(-time.Hour)}, bus.ErrBadRequest},
		"more events than there could exist": {events.UserNotice{User: "eve", Role: "integrator", Key: key(), Events: slices.Repeat([]string{"job.failed"}, maxEvents+1)}, bus.ErrBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ask(f.story, "root", events.UserAdd, c.user); !errors.Is(err, c.want) {
				t.Errorf("error %v", err)
			}
		})
	}
	for range 2 { // again completes what was cut off
		if gone, err := ask(f.story, "bob", events.UserRevoke, events.Named{Name: "ada", Why: "she left"}); err != nil || !gone.Revoked || gone.By != "bob" || gone.Why != "she left" {
			t.Fatalf("revoked %+v, %v", gone, err)
		}
	}
	if _, err := ask(f.story, "bob", events.UserRevoke, events.Named{Name: "siem", Why: "two\nlines"}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("a reason of two lines: %v", err)
	}
	if _, err := ask(f.story, "bob", events.UserRevoke, events.Named{Name: "nobody"}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("revoked nobody: %v", err)
	}
	if _, err := ask(f.story, "root", events.UserAdd, ada); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a revoked key came back: %v", err)
	}
	ada.Key = key()
	if _, err := ask(f.story, "root", events.UserAdd, ada); err != nil {
		t.Errorf("a name that is free again: %v", err)
	}
	all, err := ask(f.story, "root", events.UserList, events.Nothing{})
	if err != nil || len(all.Users) != 2 || all.Users[0].Key != ada.Key || all.Users[0].Revoked || all.Users[0].Why != "" || all.Users[1].User != "siem" {
		t.Errorf("listed %+v, %v", all, err)
	}
	eventstest.ExpectExactly(t, f.admin, events.UserAdded, nil, 3)
	eventstest.ExpectExactly(t, f.admin, events.UserRevoked, nil, 1)
}
