package integration

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"chandler/events"
	"chandler/events/order"
	"chandler/events/timing"
)

// placed sorts machines by their places in a deployment, in which phases by count take them.
func placed(deployment string, machines ...*machine) []*machine {
	slices.SortFunc(machines, func(a, b *machine) int {
		return cmp.Compare(timing.Place(deployment, a.id), timing.Place(deployment, b.id))
	})
	return machines
}

// wantLife waits until scheduling has a deployment in a life.
func (f *fleet) wantLife(deployment string, life events.Life) (view events.DeploymentView) {
	f.t.Helper()
	eventually(f.t, deployment+" is "+string(life), func() bool {
		view = mustAsk(f, events.DeploymentShow, events.Named{Name: deployment})
		return view.Life == life
	})
	return view
}

// refusedWith asserts that something was refused with these words.
func refusedWith(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("refused with %v, not with %q", err, w)
		}
	}
}

// halting is a plan whose first phase has so many machines, and halts at the first failure.
func halting(canaries int, advance events.Limit) *events.Plan {
	return &events.Plan{Phases: []events.Phase{
		{Name: "canary", Count: canaries, AdvanceWhen: &events.Advance{Succeeded: &advance}, HaltWhen: &events.Halt{Failed: &events.Limit{Count: 1}}},
		{Name: "rest", Percent: 100},
	}}
}

// freezeSite holds the machines of a site.
func (f *fleet) freezeSite(site string) {
	f.t.Helper()
	mustAsk(f, events.ExecutionFreeze, events.Freeze{Scope: "site", Name: site, Why: "so that jobs wait"})
}

func (f *fleet) freezeFleet() {
	f.t.Helper()
	mustAsk(f, events.ExecutionFreeze, events.Freeze{Scope: "fleet", Why: "so that jobs wait"})
}

// moveTo brings a machine to a site, by a new start of its agent.
func (m *machine) moveTo(site string) {
	m.t.Helper()
	m.stop()
	m.file.Site = site
	m.start()
	m.awaitRunning()
}

func TestABadGateTakesBackWhereTheProgramRan(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := placed("app", f.machine("ws1"), f.machine("ws2"), f.machine("ws3"), f.machine("ws4"))
	succeeds, fails, waits, last := m[0], m[1], m[2], m[3]
	p := f.publishTold("app", "1.0", "", telling("install", "install", ""), telling("remove", "remove", "    undoes: install\n"))
	f.freezeSite("frozen")
	waits.moveTo("frozen")
	f.everyone(4)
	fails.write("hold-install", "")
	fails.write("exit-install", "3")

	request := f.sign("app", p)
	request.Plan = halting(3, events.Limit{Count: 3})
	request.Plan.OnHalt = events.OnHaltRollback
	_, err := ask(f, events.DeploymentCreate, request)
	refusedWith(t, err, "on-halt: rollback needs the order that rolls back to be signed with the deployment")
	request.Rollback = f.sign("app-rollback", p, f.bound(p, "remove"), func(o *order.Order) {
		o.Rolls = &order.Rolls{Deployment: "app", Revision: 1, Package: "app", Version: "1.0", Program: "install"}
	}).Envelope
	mustAsk(f, events.DeploymentCreate, request)
	f.want("app", succeeds, events.Succeeded)
	f.want("app", fails, events.Running)
	f.wantWaiting("app", waits, events.WaitFreeze)
	fails.remove("hold-install")

	f.wantEnd("app", fails, events.Failed, events.ExitCode)
	view := f.wantLife("app", events.LifeHalted)
	f.want("app-rollback", succeeds, events.Succeeded)
	f.want("app-rollback", fails, events.Succeeded)
	f.wantEnd("app-rollback", waits, events.Rejected, events.NothingToRollBack, "no program of deployment app revision 1 ran here")
	succeeds.wantTold("install", "remove")
	fails.wantTold("install", "remove")
	if view = mustAsk(f, events.DeploymentShow, events.Named{Name: "app"}); !view.RolledBack || view.Rollback != "app-rollback" {
		t.Errorf("scheduling says of the deployment that was taken back %+v", view)
	}

	// It is final: neither goes the forward deployment on, nor does who never got it hear of the other.
	_, err = ask(f, events.DeploymentResume, events.Named{Name: "app"})
	refusedWith(t, err, "being taken back by app-rollback", "sign a new revision")
	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "site-frozen"})
	f.deploy("other", f.publishTold("other", "1.0", "", telling("install", "other", "")))
	f.want("other", waits, events.Succeeded)
	f.want("other", last, events.Succeeded)
	f.wantWaiting("app", waits, events.WaitFreeze)
	waits.wantTold("other")
	last.wantTold("other")
	for _, deployment := range []string{"app", "app-rollback"} {
		if row, ok := f.row(deployment, last); ok {
			t.Errorf("a machine of a phase that never opened has %+v", row)
		}
	}
}

func TestARollbackBringsBackTheVersionThatWasSuperseded(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	had, away := f.machine("had"), f.machine("away")
	f.everyone(2)
	old := f.publishTold("app", "1.0", "", telling("install", "app-1", ""))
	p := f.publishTold("app", "2.0", "supersedes: [{package: app, version: \"1.0\"}]\n", telling("install", "app-2", ""))
	f.deploy("old", old)
	f.want("old", had, events.Succeeded)
	f.want("old", away, events.Succeeded)
	away.stop()
	request := f.sign("new", p)
	request.Rollback = f.sign("new-rollback", old, func(o *order.Order) {
		o.Rolls = &order.Rolls{Deployment: "new", Revision: 1, Package: "app", Version: "2.0", Program: "install"}
	}).Envelope
	mustAsk(f, events.DeploymentCreate, request)
	f.want("new", had, events.Succeeded)
	f.want("new", away, events.Offered)
	if view := mustAsk(f, events.DeploymentRollback, events.Named{Name: "new", Why: "2.0 eats files"}); !view.RolledBack || view.Life != events.LifeHalted {
		t.Fatalf("after the rollback scheduling says %+v", view)
	}
	f.want("new-rollback", had, events.Succeeded)
	had.wantTold("app-1", "app-2", "app-1")

	// It came back before the deployment that it missed ran there: that is held, and nothing is to be taken back.
	away.start()
	f.wantEnd("new-rollback", away, events.Rejected, events.NothingToRollBack)
	f.wantWaiting("new", away, events.WaitFreeze)
	f.deploy("old-again", old) // what was taken back takes nobody's place
	f.want("old-again", had, events.Succeeded)
	f.want("old-again", away, events.Succeeded)
	had.wantTold("app-1", "app-2", "app-1", "app-1")
	away.wantTold("app-1", "app-1")
	f.check("new-rollback", had, away)
}

func TestARollbackThatNobodySignedIsAskedFor(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publishTold("app", "1.0", "", telling("install", "install", ""), telling("remove", "remove", "    undoes: install\n"))
	f.everyone(1)
	f.deploy("app", p)
	f.want("app", m, events.Succeeded)
	_, err := ask(f, events.DeploymentRollback, events.Named{Name: "app"})
	refusedWith(t, err, "no rollback was signed with deployment app", "chandler deployment rollback app")
	later := f.machine("ws2")
	f.want("app", later, events.Succeeded)
	f.deploy("app-rollback", p, f.bound(p, "remove"), func(o *order.Order) {
		o.Rolls = &order.Rolls{Deployment: "app", Revision: 1, Package: "app", Version: "1.0", Program: "install"}
	})
	for _, m := range []*machine{m, later} {
		f.want("app-rollback", m, events.Succeeded)
		m.wantTold("install", "remove")
	}
	f.wantLife("app", events.LifeHalted)
	joins := f.machine("ws3")
	f.everyone(3)
	f.deploy("other", f.publishTold("other", "1.0", "", telling("install", "other", "")))
	f.want("other", joins, events.Succeeded)
	joins.wantTold("other")
}

// TestAHaltHoldsWhatHasNotStartedUntilSomebodyResumes has canaries that fail, are away, and wait for something else when
// the gate halts: nothing is withdrawn, nothing starts, and all of it goes on.
func TestAHaltHoldsWhatHasNotStartedUntilSomebodyResumes(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := placed("app", f.machine("ws1"), f.machine("ws2"), f.machine("ws3"), f.machine("ws4"), f.machine("ws5"))
	fails, runs, waits, away, rest := m[0], m[1], m[2], m[3], m[4]
	p := f.publishTold("app", "1.0", "", telling("install", "install", ""))
	f.freezeSite("frozen")
	waits.moveTo("frozen")
	f.everyone(5)
	away.stop()
	fails.write("hold-install", "")
	fails.write("exit-install", "3")
	runs.write("hold-install", "")

	request := f.sign("app", p)
	request.Plan = halting(4, events.Limit{Count: 3})
	mustAsk(f, events.DeploymentCreate, request)
	f.want("app", fails, events.Running)
	f.want("app", runs, events.Running)
	f.wantWaiting("app", waits, events.WaitFreeze)
	f.want("app", away, events.Offered)
	fails.remove("hold-install")
	f.wantEnd("app", fails, events.Failed, events.ExitCode)
	f.wantLife("app", events.LifeHalted)
	eventually(t, "agents are told of the halt", func() bool {
		return len(mustAsk(f, events.ExecutionFreezes, events.Nothing{}).Freezes) == 2
	})
	why := mustAsk(f, events.Why, events.WhyRequest{Agent: rest.id, Deployment: "app"}).Answers[0]
	if why.Released || !strings.Contains(why.Says, "the rollout is halted: 1 of 4 machines failed") {
		t.Errorf("scheduling says of a machine of the phase after: %+v", why)
	}

	_, err := ask(f, events.ExecutionUnfreeze, events.Named{Name: "deployment-app"})
	refusedWith(t, err, "chandler deployment resume app")
	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "site-frozen"})
	away.start()
	f.wantWaiting("app", away, events.WaitFreeze)
	runs.remove("hold-install") // what runs is let alone
	f.want("app", runs, events.Succeeded)
	f.deploy("other", f.publishTold("other", "1.0", "", telling("install", "other", "")))
	for _, m := range []*machine{waits, away, rest} {
		f.want("other", m, events.Succeeded)
		m.wantTold("other")
	}
	f.wantWaiting("app", waits, events.WaitFreeze)

	mustAsk(f, events.DeploymentResume, events.Named{Name: "app", Why: "one of them is broken anyway"})
	for _, m := range []*machine{waits, away, rest} {
		f.want("app", m, events.Succeeded)
		m.wantTold("other", "install")
	}
	f.want("other", fails, events.Succeeded)
	fails.wantTold("install", "other")
	if view := mustAsk(f, events.DeploymentShow, events.Named{Name: "app"}); view.Life != events.LifeActive || len(view.Phases) != 2 || view.Phases[1].Opened.IsZero() {
		t.Errorf("after the rollout scheduling says %+v", view)
	}
	f.check("app", m...)
}

func TestAMendedRevisionTakesThePlaceOfAHaltedOne(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := placed("app", f.machine("ws1"), f.machine("ws2"), f.machine("ws3"))
	fails, waits, rest := m[0], m[1], m[2]
	f.everyone(3)
	broken := f.publishTold("app", "1.0", "", telling("install", "app-1", ""))
	mended := f.publishTold("app", "1.1", "", telling("install", "app-1.1", ""))
	f.freezeSite("frozen")
	waits.moveTo("frozen")
	fails.write("exit-app-1", "3")
	request := f.sign("app", broken)
	request.Plan = halting(2, events.Limit{Count: 2})
	mustAsk(f, events.DeploymentCreate, request)
	f.wantWaiting("app", waits, events.WaitFreeze)
	f.wantEnd("app", fails, events.Failed, events.ExitCode)
	f.wantLife("app", events.LifeHalted)
	eventually(t, "execution holds the halted deployment too", func() bool { return len(mustAsk(f, events.ExecutionFreezes, events.Nothing{}).Freezes) == 2 })
	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "site-frozen"})

	request = f.sign("app", mended, func(o *order.Order) { o.Revision = 2 })
	request.Plan = halting(2, events.Limit{Count: 2})
	mustAsk(f, events.DeploymentCreate, request)
	for _, m := range m {
		eventually(t, m.name+" has the mended one", func() bool {
			row, ok := f.row("app", m)
			return ok && row.Revision == 2 && row.State == events.Succeeded
		})
	}
	fails.wantTold("app-1", "app-1.1")
	waits.wantTold("app-1.1")
	rest.wantTold("app-1.1")
	if n := len(mustAsk(f, events.ExecutionFreezes, events.Nothing{}).Freezes); n != 0 {
		t.Errorf("%d freezes are left", n)
	}
	f.check("app", rest)
}

func TestARollbackWaitsForWhatRuns(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	runs, restarts := f.machine("runs"), f.machine("restarts")
	f.everyone(2)
	f.publishTold("base", "1.0", "", telling("install", "base", "    return-codes: {10: soft-reboot}\n"))
	p := f.publishTold("app", "1.0", "", telling("install", "app", "    run-first: [base@1.0/install]\n"), telling("remove", "remove", "    undoes: install\n"))
	runs.write("hold-app", "")
	restarts.write("exit-base", "10")
	f.deploy("app", p, f.bound(p, "install"))
	eventually(t, "the program runs", func() bool { return len(runs.told()) == 2 })
	f.wantWaiting("app", restarts, events.WaitReboot)
	f.deploy("app-rollback", p, f.bound(p, "remove"), func(o *order.Order) {
		o.Rolls = &order.Rolls{Deployment: "app", Revision: 1, Package: "app", Version: "1.0", Program: "install"}
	})
	f.wantWaiting("app-rollback", runs, events.WaitDependency)
	f.wantEnd("app-rollback", restarts, events.Rejected, events.NothingToRollBack) // what ran first there stays
	runs.remove("hold-app")
	f.want("app", runs, events.Succeeded)
	f.want("app-rollback", runs, events.Succeeded)
	runs.wantTold("base", "app", "remove")
	restarts.restart()
	eventually(t, "the halt holds what comes after the restart", func() bool {
		row, ok := f.row("app", restarts)
		return ok && row.WaitingFor == events.WaitFreeze
	})
	restarts.wantTold("base")
	f.check("app-rollback", runs, restarts)
}
