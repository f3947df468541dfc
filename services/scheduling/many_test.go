package scheduling

import (
	"fmt"
	"sync"
	"testing"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

func TestAThousandDeploymentsAtOnceShareTheirTargetAndAllBegin(t *testing.T) {
	s := newStory(t)
	r := s.running()
	const deployments, agents = 1000, 50
	for _, id := range names(agents) {
		s.report(facts(id))
	}
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, agents)
	name := func(i int) string { return fmt.Sprintf("d%05d", i) }
	var creating sync.WaitGroup
	for w := range 8 {
		creating.Go(func() {
			for i := w; i < deployments; i += 8 {
				envelope, err := order.Sign(s.order(func(o *order.Order) { o.Deployment = name(i) }), s.key)
				if err == nil {
					_, err = bus.Request(t.Context(), s.admin, "ada", events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope, Plan: canaryAndRest()})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	creating.Wait()
	s.eventually("every canary phase was handed over", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		begun := 0
		for i := range deployments {
			if log := r.releases[name(i)][1]; log != nil && log.released.count() == agents/10 {
				begun++
			}
		}
		return begun == deployments
	})
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.memberships) != 1 || len(r.byProgram["hello"]["install"]) != deployments {
		t.Errorf("%d memberships, %d deployments of the program", len(r.memberships), len(r.byProgram["hello"]["install"]))
	}
}
