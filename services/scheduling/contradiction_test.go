package scheduling

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

func TestAnInstallAndItsUninstallOnOneMachineAreRefused(t *testing.T) {
	s := newStory(t)
	s.contentWith(map[string]events.Program{"install": {}, "repair": {Repairs: "install"}, "remove": {Undoes: "install"}, "settings": {}})
	r := s.running()
	s.report(facts("agent001"), facts("agent002"), facts("agent003", windows))
	publish(s, events.ServiceSource("content"), events.PackagePublished, "hello",
		events.PackageNotice{Package: "hello", Version: "2.10-3", Digest: manifest, Programs: []string{"install", "repair", "remove", "settings"}, By: "ada"})
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 3)
	s.deploy()
	for program, says := range map[string]string{"remove": "hello (install of hello 2.10-3, 2 machines)", "repair": "", "settings": ""} {
		_, err := ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order(func(o *order.Order) { o.Deployment, o.Program = "other-"+program, program }))})
		if says == "" && err != nil || says != "" && (!errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v, want %q", program, err, says)
		}
	}
	// A repair is of what is installed: to remove it contradicts that too.
	n := s.hello().DeploymentNotice
	publish(s, events.ServiceSource("execution"), events.DeploymentHalted, "hello", n)
	s.eventually("it is stopped", func() bool { return s.hello().Life == events.LifeStopped })
	_, err := ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order(func(o *order.Order) { o.Deployment, o.Program = "other-remove", "remove" }))})
	if !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "other-repair") || strings.Contains(err.Error(), "install of") {
		t.Errorf("remove beside a repair: %v", err)
	}
}

func TestTheOlderOfTwoContradictoryDeploymentsHoldsBackWhoGotTheNewer(t *testing.T) {
	s := newStory(t)
	s.contentWith(map[string]events.Program{"install": {}, "remove": {Undoes: "install"}})
	r := s.running()
	office := func(f *events.Facts) { f.Tags = []string{"office"} }
	s.report(facts("agent001", office), facts("agent002", func(f *events.Facts) { f.Tags = []string{"kiosk"} }))
	s.published()
	s.knows(r, 2)
	for _, tag := range []string{"office", "kiosk"} {
		must(s, events.CollectionSet, events.Collection{Name: tag, Expression: `"` + tag + `" in agent.tags`})
	}
	to := func(tag, deployment, program string) func(*order.Order) {
		return func(o *order.Order) {
			o.Collection, o.Expression, o.Deployment, o.Program = tag, `"`+tag+`" in agent.tags`, deployment, program
		}
	}
	s.deploy(to("office", "hello", "install"), func(o *order.Order) { o.Issued = o.Issued.Add(-time.Hour) })
	s.deploy(to("kiosk", "gone", "remove"))
	s.released(2, nil)
	// The kiosk becomes an office machine too: it got the newer one, which counts.
	s.report(facts("agent002", func(f *events.Facts) { f.Tags = []string{"kiosk", "office"} }))
	s.eventually("it is a member of both", func() bool { return s.hello().Members == 2 })
	says := must(s, events.Why, events.WhyRequest{Agent: "agent002", Deployment: "hello"}).Answers[0]
	if !says.Member || says.Released || !strings.Contains(says.Says, "deployment gone, which means the contrary") {
		t.Errorf("why: %+v", says)
	}
	s.released(2, nil)
	// The office machine becomes a kiosk: the newer one reaches it, though it got the older.
	s.report(facts("agent001", func(f *events.Facts) { f.Tags = []string{"kiosk", "office"} }))
	got := s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Deployment == "gone" && e.Data.Batch == 1 })
	if diff := cmp.Diff([]string{"agent001"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAGateDoesNotWaitForWhomAContradictionKeepsFromIt(t *testing.T) {
	s := newStory(t)
	s.contentWith(map[string]events.Program{"install": {}, "remove": {Undoes: "install"}})
	r := s.running()
	tagged := func(tags ...string) func(*events.Facts) { return func(f *events.Facts) { f.Tags = tags } }
	s.report(facts("agent001", tagged("pilot")), facts("agent002", tagged("pilot")), facts("agent003"))
	s.published()
	s.knows(r, 3)
	must(s, events.CollectionSet, linuxMachines())
	for _, tag := range []string{"pilot", "kiosk"} {
		must(s, events.CollectionSet, events.Collection{Name: tag, Expression: `"` + tag + `" in agent.tags`})
	}
	plan := &events.Plan{MaxInFlight: 1, Phases: []events.Phase{
		{Name: "pilots", Collection: "pilot", AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 100}}}, {Name: "rest", Percent: 100}}}
	must(s, events.DeploymentCreate, events.DeploymentRequest{Plan: plan, Envelope: s.sign(s.order(func(o *order.Order) { o.Issued = o.Issued.Add(-time.Hour) }))})
	got := s.released(1, nil)
	if len(got) != 1 || got[0] == "agent003" {
		t.Fatalf("handed over: %v", got)
	}
	waits := map[string]string{"agent001": "agent002", "agent002": "agent001"}[got[0]] // whoever was heard of later
	s.deploy(func(o *order.Order) {
		o.Deployment, o.Program, o.Collection, o.Expression = "gone", "remove", "kiosk", `"kiosk" in agent.tags`
	})
	s.report(facts(waits, tagged("pilot", "kiosk")))
	s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Deployment == "gone" })
	s.progress(wave(0, 1, 1, 0))
	if second := opened(s, 2)[1]; second.Phase != "rest" {
		t.Errorf("opened: %+v", second)
	}
	rest := s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Deployment == "hello" && e.Data.Phase == 1 })
	if diff := cmp.Diff([]string{"agent003"}, rest); diff != "" {
		t.Error(diff)
	}
}
