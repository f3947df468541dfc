//go:build unix

package agent

import (
	"strings"
	"testing"
	"time"

	"chandler/agent/local"
	"chandler/events"
	"chandler/events/order"
)

// await waits until something has come about.
func (p *plant) await(what string, come func() bool) {
	p.t.Helper()
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !come() {
		select {
		case <-tick.C:
		case <-limit:
			p.t.Fatalf("%s does not come about; ran %q", what, p.runs())
		}
	}
}

func TestOccurrencesRunWithWhatComesFirstAndAStopEndsAll(t *testing.T) {
	p := newPlant(t)
	p.Clock = time.Now // many look at it at once
	umbrella := p.order([]order.Step{p.step("base", nil)}, assigned(order.Assignment{ASAP: true}, order.Assignment{Cron: "0 0 29 2 *"}))
	p.begin(p.ctx, umbrella)
	ended := func(s events.State) func() bool { return func() bool { return p.newest().Last.State == s } }
	p.await("the first occurrence", ended(events.Succeeded))
	if got := p.runs(); got != "base own" {
		t.Fatalf("as soon as possible ran %q", got)
	}
	if _, err := p.startFor(t.Context(), local.Caller{Name: "alice"}, "hello"); err != nil {
		t.Fatal(err)
	}
	p.await("a local user's", func() bool { return p.newest().AskedBy == "alice" && p.newest().Ended() })
	if job := p.newest(); job.Last.State != events.Succeeded || p.runs() != "base own own" {
		t.Errorf("it is %s: %s; ran %q", job.Last.State, job.Last.Explanation, p.runs())
	}
	if said := strings.Join(p.said(p.newest().Offer.Job), "\n"); !strings.Contains(said, "started by local user alice") {
		t.Errorf("no status names the user:\n%s", said)
	}
	if err := p.Cancel(t.Context(), events.CancelRequest{Agent: p.id, Deployment: "hello", Revision: 1, By: "ada"}); err != nil {
		t.Fatal(err)
	}
	p.running.Wait()
	if last := p.kept(umbrella.job.Offer.Job).Last; last.State != events.Cancelled {
		t.Errorf("the umbrella is %s", last.State)
	}
	if _, err := p.startFor(t.Context(), local.Caller{Name: "alice"}, "hello"); !refusedFor(err, "nothing is available") {
		t.Errorf("after the stop: %v", err)
	}
}

func TestTwoDeploymentsOfOneProgramRunItOnce(t *testing.T) {
	p := newPlant(t)
	p.Clock, p.slots = time.Now, newSlots(4)
	never := func(g *given) { g.order.Rerun = order.RerunNever }
	one, two := p.offerOf("one", nil, never), p.offerOf("two", nil, never)
	p.begin(p.ctx, one)
	p.begin(p.ctx, two)
	p.running.Wait()
	a, b := p.kept(one.job.Offer.Job).Last, p.kept(two.job.Offer.Job).Last
	if states := string(a.State) + " " + string(b.State); states != "succeeded will_not_rerun" && states != "will_not_rerun succeeded" || p.runs() != "own" {
		t.Errorf("they are %s; ran %q", states, p.runs())
	}
}
