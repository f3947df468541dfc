package integration

import (
	"slices"
	"strings"
	"testing"

	"chandler/events"
	"chandler/events/eventstest"
	"chandler/events/order"
)

// TestAChainStandsStillBetweenItsPrograms has machines where the first program of a chain runs while the agent is killed,
// the fleet is frozen, the deployment is stopped, or a newer revision takes its place.
func TestAChainStandsStillBetweenItsPrograms(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	killed, frozen := f.machine("killed"), f.machine("frozen", func(a *agentFile) { a.Site = "frozen" })
	stopped, replaced := f.machine("stopped"), f.machine("replaced")
	f.everyone(4)
	f.publishTold("base", "1.0", "", telling("install", "base", ""))
	p := f.publishTold("app", "1.0", "", telling("install", "app", "    run-first: [base@1.0/install]\n"))
	mended := f.publishTold("app", "1.1", "", telling("install", "app-1.1", "    run-first: [base@1.0/install]\n"))
	first := f.collection("first", `agent.hostname in ["killed", "frozen"]`)
	for deployment, c := range map[string]events.Collection{"goes-on": first, "stopped": f.collection("second", `agent.hostname == "stopped"`), "replaced": f.collection("third", `agent.hostname == "replaced"`)} {
		f.deploy(deployment, p, only(c), f.bound(p, "install"))
	}
	all := map[*machine]string{killed: "goes-on", frozen: "goes-on", stopped: "stopped", replaced: "replaced"}
	for m := range all {
		m.write("hold-base", "")
	}
	for m, deployment := range all {
		eventually(t, "base runs on "+m.name, func() bool { return len(m.told()) > 0 })
		if s := f.want(deployment, m, events.Running); s.Reason != events.NoReason {
			t.Fatalf("%s: %+v", m.name, s)
		}
		if s := f.newest(deployment, m); s.Step != "base@1.0/install" {
			t.Errorf("on %s runs %q", m.name, s.Step)
		}
	}

	killed.kill()
	f.freezeSite("frozen")
	mustAsk(f, events.ExecutionStop, events.StopRequest{Deployment: "stopped"})
	third := only(mustAsk(f, events.CollectionShow, events.Named{Name: "third"}).Collection)
	f.deploy("replaced", mended, third, f.bound(mended, "install"), func(o *order.Order) { o.Revision = 2 })
	for _, m := range []*machine{stopped, replaced} {
		eventstest.Expect(t, f.owner, events.JobCancelRequested, func(e events.Event[events.CancelRequest]) bool { return e.Data.Agent == m.id })
	}
	// Who got this was told all of that before.
	f.deploy("other", f.publishTold("other", "1.0", "", telling("install", "other", "")), only(f.collection("told", `agent.hostname != "killed"`)))
	f.wantWaiting("other", frozen, events.WaitFreeze)
	f.want("other", stopped, events.Succeeded)
	f.want("other", replaced, events.Succeeded)
	killed.start()
	killed.awaitRunning()
	for m := range all {
		m.remove("hold-base")
	}

	f.want("goes-on", killed, events.Succeeded)
	killed.wantTold("base", "app")
	f.wantWaiting("goes-on", frozen, events.WaitFreeze)
	frozen.wantTold("base")
	f.wantEnd("stopped", stopped, events.Cancelled, events.DeploymentStopped)
	stopped.wantTold("base", "other")
	f.want("replaced", replaced, events.Succeeded)
	replaced.wantTold("base", "other", "app-1.1")
	if row, _ := f.row("replaced", replaced); row.Revision != 2 {
		t.Errorf("the replaced deployment's machine has %+v", row)
	}
	withdrawn := 0
	for _, s := range f.statuses("replaced", replaced) {
		if s.Revision == 1 && s.State == events.Cancelled && strings.Contains(s.Explanation, "replaced by revision 2") {
			withdrawn++
		}
	}
	if withdrawn != 1 {
		t.Errorf("revision 1 told %d times that it was replaced", withdrawn)
	}

	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "site-frozen"})
	f.want("goes-on", frozen, events.Succeeded)
	f.want("other", frozen, events.Succeeded)
	if told := frozen.told(); !slices.Equal(slices.Sorted(slices.Values(told)), []string{"app", "base", "other"}) {
		t.Errorf("on the machine that was frozen ran %q", told)
	}
	f.check("goes-on", killed, frozen)
	f.check("stopped", stopped)
}
