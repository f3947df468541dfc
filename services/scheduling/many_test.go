package scheduling

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// BenchmarkTenThousandDeploymentsAtOnce tells how many deployments a second are accepted, until when each has handed its
// canaries over, and how long a pass over all of them takes.
func BenchmarkTenThousandDeploymentsAtOnce(b *testing.B) {
	const deployments, agents = 10_000, 200
	for range b.N {
		s := newStory(b)
		r := s.running()
		for _, id := range names(agents) {
			s.report(facts(id))
		}
		s.published()
		must(s, events.CollectionSet, linuxMachines())
		s.knows(r, agents)
		began := time.Now()
		s.createMany(b, deployments, canaryAndRest())
		created := time.Since(began)
		for begun := 0; begun < deployments; {
			pause(b.Context(), 50*time.Millisecond)
			begun = r.begun(deployments, agents/10)
		}
		b.ReportMetric(deployments/created.Seconds(), "creates/s")
		b.ReportMetric(time.Since(began).Seconds(), "s-until-all-began")
		pass := reconciler{Service: r, refused: map[string]bool{}, timed: map[string]string{}, owing: map[string]bool{}, baking: map[string]time.Time{}}
		for _, what := range []string{"s-first-pass", "s/pass"} { // the second finds all timers set
			began = time.Now()
			if err := pass.pass(b.Context(), true); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(time.Since(began).Seconds(), what)
		}
	}
}

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
	s.createMany(t, deployments, canaryAndRest())
	s.eventually("every canary phase was handed over", func() bool { return r.begun(deployments, agents/10) == deployments })
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.memberships) != 1 || len(r.byProgram["hello"]["install"]) != deployments {
		t.Errorf("%d memberships, %d deployments of the program", len(r.memberships), len(r.byProgram["hello"]["install"]))
	}
}

func deploymentNumber(i int) string { return fmt.Sprintf("d%05d", i) }

// createMany creates deployments of one program, eight at a time.
func (s *story) createMany(tb testing.TB, n int, plan *events.Plan) {
	tb.Helper()
	var creating sync.WaitGroup
	for w := range 8 {
		creating.Go(func() {
			for i := w; i < n; i += 8 {
				envelope, err := order.Sign(s.order(func(o *order.Order) { o.Deployment = deploymentNumber(i) }), s.key)
				if err == nil {
					_, err = bus.Request(tb.Context(), s.admin, "ada", events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope, Plan: plan})
				}
				if err != nil {
					tb.Error(err)
				}
			}
		})
	}
	creating.Wait()
}

// begun counts the deployments that handed over so many agents.
func (s *Service) begun(deployments, agents int) (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range deployments {
		if log := s.releases[deploymentNumber(i)][1]; log != nil && log.released.count() == agents {
			n++
		}
	}
	return n
}
