package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// withTags gives a machine tags, by a new start of its agent.
func (m *machine) withTags(tags ...string) {
	m.t.Helper()
	m.stop()
	m.file.Tags = tags
	m.start()
	m.awaitRunning()
}

func TestADeploymentToNobodyWaitsForWhoComes(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	f.everyone(1)
	p := f.publishTold("app", "1.0", "", telling("install", "app", ""))
	request := f.sign("app", p, only(f.collection("nobody", `agent.hostname == "to-come"`)))
	request.Plan = halting(1, events.Limit{Percent: 100})
	if view := mustAsk(f, events.DeploymentCreate, request); view.Members != 0 {
		t.Fatalf("%d machines are in it", view.Members)
	}
	f.deploy("other", p, f.bound(p, "install")) // shows that scheduling has looked
	f.want("other", m, events.Succeeded)
	view := f.wantLife("app", events.LifeActive)
	if view.Released != 0 || !view.Phases[0].Opened.IsZero() || view.Phases[0].Says == "" {
		t.Errorf("scheduling says %+v", view)
	}
	if why := mustAsk(f, events.Why, events.WhyRequest{Agent: m.id, Deployment: "app"}).Answers[0]; why.Member || !strings.Contains(why.Says, "not a member") {
		t.Errorf("of a machine that is not meant scheduling says %+v", why)
	}
	comes := f.machine("to-come")
	f.want("app", comes, events.Succeeded)
	if row, ok := f.row("app", m); ok {
		t.Errorf("a machine that is not meant has %+v", row)
	}
	f.check("app", comes)
}

// TestACollectionThatChangesDuringARolloutReachesWhoIsInIt has machines that come and leave while the rollout waits for an
// approval, one before and one after it was handed over, and a definition that changes.
func TestACollectionThatChangesDuringARolloutReachesWhoIsInIt(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := placed("app", f.machine("ws1"), f.machine("ws2"), f.machine("ws3"))
	held, stays, leaves := m[0], m[1], m[2]
	comes := f.machine("ws4")
	for _, m := range m {
		m.withTags("office")
	}
	c := f.collection("office", `"office" in agent.tags`)
	eventually(t, "three machines are in the office", func() bool {
		return len(mustAsk(f, events.CollectionShow, events.Named{Name: "office"}).Members) == 3
	})
	p := f.publishTold("app", "1.0", "", telling("install", "app", ""))
	request := f.sign("app", p, only(c))
	request.Plan = &events.Plan{Phases: []events.Phase{{Name: "canary", Count: 1, AdvanceWhen: &events.Advance{Approval: true}}, {Name: "rest", Percent: 100}}}
	f.freezeFleet()
	mustAsk(f, events.DeploymentCreate, request)
	f.wantWaiting("app", held, events.WaitFreeze)

	held.withTags()
	leaves.withTags("home")
	comes.withTags("office")
	eventually(t, "two machines are in the office", func() bool {
		members := mustAsk(f, events.CollectionShow, events.Named{Name: "office"}).Members
		return len(members) == 2 && slices.Contains(members, stays.id) && slices.Contains(members, comes.id)
	})
	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "fleet"})
	f.wantEnd("app", held, events.Rejected, events.NotTargeted)
	mustAsk(f, events.DeploymentApprove, events.Named{Name: "app"})
	f.want("app", stays, events.Succeeded)
	f.want("app", comes, events.Succeeded)

	changed := mustAsk(f, events.CollectionSet, events.Collection{Name: "office", Expression: `"home" in agent.tags`})
	if !slices.Equal(changed.Outdated, []string{"app"}) {
		t.Errorf("outdated by the change: %q", changed.Outdated)
	}
	_, err := ask(f, events.DeploymentCreate, f.sign("late", p, only(c)))
	refusedWith(t, err, "collection office is not the one that was signed", "sign the order again")
	f.deploy("home", p, only(changed.Collection))
	f.want("home", leaves, events.Succeeded)
	why := mustAsk(f, events.Why, events.WhyRequest{Agent: leaves.id, Deployment: "app"}).Answers[0]
	if why.Member || why.Released || !strings.Contains(why.Says, "collection office was changed after the order was signed and includes the machine now") {
		t.Errorf("of the machine that left scheduling says %+v", why)
	}
	held.wantTold()
	leaves.wantTold("app")
	f.check("app", stays, comes)
}

func TestAnAgentThatReturnsAfterItsDeploymentExpiredStartsNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("laptop")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	m.stop()
	expires := func(o *order.Order) { o.Expires = new(calendar.At(time.Now().Add(3 * time.Second))) }
	f.deploy("once", p, expires)
	f.deploy("hourly", p, expires, func(o *order.Order) { o.Assignments = []order.Assignment{{ASAP: true}, {Cron: "0 * * * *"}} })
	f.want("once", m, events.Offered)
	f.want("hourly", m, events.Offered)
	f.wantLife("once", events.LifeExpired)
	f.wantLife("hourly", events.LifeExpired)
	f.deploy("forgotten", p, expires)
	f.want("forgotten", m, events.Offered)
	f.wantLife("forgotten", events.LifeExpired)
	mustAsk(f, events.DeploymentRemove, events.Named{Name: "forgotten"})
	m.start()
	f.want("once", m, events.Expired)
	f.want("hourly", m, events.Expired)
	if ran := m.ran(); ran != nil {
		t.Fatalf("ran %q after it had expired", ran)
	}
	f.check("once", m)
	if told := f.statuses("forgotten", m); told != nil {
		t.Errorf("of a deployment that was removed meanwhile it told %+v", told)
	}
}

// TestWhatWasStoppedAndRemovedStartsOnNoMachineThatReturns has a machine that was away when jobs which waited on it were
// withdrawn, by a stop and by a newer revision that excludes it, or expired; and then the deployments were removed.
func TestWhatWasStoppedAndRemovedStartsOnNoMachineThatReturns(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("laptop")
	f.everyone(1)
	nobody := only(f.collection("nobody", `agent.hostname == "nobody"`))
	p := f.publishTold("app", "1.0", "", telling("install", "install", ""))
	f.freezeFleet()
	for _, name := range []string{"stopped", "replaced", "expired"} {
		f.deploy(name, p, func(o *order.Order) {
			if name == "expired" {
				o.Expires = new(calendar.At(time.Now().Add(4 * time.Second)))
			}
		})
		f.wantWaiting(name, m, events.WaitFreeze)
	}
	m.stop()
	f.stopDeployment("stopped")
	f.deploy("replaced", p, nobody, func(o *order.Order) { o.Revision = 2 })
	f.stopDeployment("replaced")
	f.wantLife("expired", events.LifeExpired)
	for _, name := range []string{"stopped", "replaced", "expired"} {
		mustAsk(f, events.DeploymentRemove, events.Named{Name: name})
		eventually(t, name+" is forgotten", func() bool { _, ok := f.row(name, m); return !ok })
	}
	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "fleet"})
	m.start()
	f.deploy("other", f.publishTold("other", "1.0", "", telling("install", "other", "")))
	f.want("other", m, events.Succeeded)
	ends := map[string]events.State{"stopped": events.Cancelled, "replaced": events.Cancelled, "expired": events.Expired}
	for name, state := range ends {
		eventually(t, name+" ends on the machine", func() bool { return f.newest(name, m).State == state })
	}
	m.wantTold("other")
}

func TestInstallAndUninstallToOneMachineAreRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m, other := f.machine("ws1"), f.machine("ws2")
	p := f.publishTold("app", "1.0", "", telling("install", "install", ""), telling("remove", "remove", "    undoes: install\n"))
	f.everyone(2)
	first, second := only(f.collection("first", `agent.hostname == "ws1"`)), only(f.collection("second", `agent.hostname == "ws2"`))
	f.deploy("install", p, first)
	f.want("install", m, events.Succeeded)
	_, err := ask(f, events.DeploymentCreate, f.sign("remove", p, f.bound(p, "remove")))
	refusedWith(t, err, "remove of app 1.0 contradicts what is live for the same machines: install (install of app 1.0, 1 machines)", "stop that first, or take the machines out of one of them")
	f.deploy("remove", p, second, f.bound(p, "remove"))
	f.want("remove", other, events.Succeeded)
	_, err = ask(f, events.DeploymentCreate, f.sign("install-all", p))
	refusedWith(t, err, "remove (remove of app 1.0, 1 machines)")

	f.stopDeployment("install")
	f.stopDeployment("remove")
	f.deploy("remove-all", p, f.bound(p, "remove"))
	f.want("remove-all", m, events.Succeeded)
	m.wantTold("install", "remove")
}

func TestANewRevisionWithdrawsWhatWaitsOfTheOldOne(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	stays, excluded, away := f.machine("ws1"), f.machine("ws2"), f.machine("ws3")
	old := f.publishTold("app", "1.0", "", telling("install", "app-1", ""))
	mended := f.publishTold("app", "1.1", "", telling("install", "app-1.1", ""))
	f.everyone(3)
	f.freezeFleet()
	f.deploy("app", old)
	all := []*machine{stays, excluded, away}
	for _, m := range all {
		f.wantWaiting("app", m, events.WaitFreeze)
	}
	away.stop()
	without := []string{excluded.id, away.id}
	slices.Sort(without)
	mustAsk(f, events.CollectionSet, events.Collection{Name: "everyone", Expression: "true", Exclude: without})
	request := f.sign("app", mended, func(o *order.Order) { o.Revision, o.ExcludeDigest = 2, order.ListDigest(without) })
	request.Exclude = without
	mustAsk(f, events.DeploymentCreate, request)

	f.want("app", excluded, events.Cancelled)
	if said := f.newest("app", excluded).Explanation; !strings.Contains(said, "replaced by revision 2") {
		t.Errorf("the withdrawn job says %q", said)
	}
	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "fleet"})
	eventually(t, "the new revision runs where it is still meant", func() bool {
		row, ok := f.row("app", stays) // until it is offered, that of the withdrawn one
		return ok && row.Revision == 2 && row.State == events.Succeeded
	})
	away.start()
	f.want("app", away, events.Cancelled)
	stays.wantTold("app-1.1")
	excluded.wantTold()
	away.wantTold()
	if row, ok := f.row("app", stays); !ok || row.Revision != 2 {
		t.Errorf("the machine that is still meant has %+v", row)
	}
	f.check("app", excluded, away)
}
