package execution

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// othersPatience is by how many intervals a replica that did not make a change waits for the one that did.
const othersPatience = 3

// progress knows which deployments' counts changed since they were last told. The replica that made the
// newest change tells; the others do so later, in case it died. If nothing has changed in between, their
// event has the same id and the store drops it. It is safe for concurrent use.
type progress struct {
	mu    sync.Mutex
	dirty map[string]int // by deployment: intervals to wait
}

func newProgress() *progress { return &progress{dirty: map[string]int{}} }

func (p *progress) note(d delta, me uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, j := range d.jobs {
		p.mark(j.deployment, d.author == me)
	}
}

func (p *progress) noteAll(jobs *jobs) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range jobs.byName {
		p.mark(name, false)
	}
}

func (p *progress) mark(deployment string, mine bool) {
	left, marked := p.dirty[deployment]
	switch {
	case mine:
		p.dirty[deployment] = 0
	case !marked || left > 0: // who changes it still lives: wait anew
		p.dirty[deployment] = othersPatience
	}
}

// due takes the deployments whose turn it is.
func (p *progress) due() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name, left := range p.dirty {
		if left > 0 {
			p.dirty[name] = left - 1
			continue
		}
		delete(p.dirty, name)
		names = append(names, name)
	}
	return names
}

func (s *Service) publishProgress(ctx context.Context) error {
	return s.every(ctx, s.pace.progress, nil, "progress", func(ctx context.Context) error {
		var errs []error
		for _, name := range s.progress.due() {
			if err := s.tellProgress(ctx, name); err != nil {
				s.progress.mu.Lock()
				s.progress.mark(name, true)
				s.progress.mu.Unlock()
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
}

func (s *Service) tellProgress(ctx context.Context, deployment string) error {
	k, ok := s.orders.newest(deployment)
	if !ok {
		return nil
	}
	p, position := s.count(deployment, k.Revision, wholeRollout)
	_, err := bus.Publish(ctx, s.bus, events.DeploymentProgressed, events.Event[events.Progress]{
		ID: events.DeriveID("progress", deployment, fmt.Sprint(k.Revision), position), Subject: deployment, Time: p.At, Trace: k.trace, Data: p})
	return err
}

// count adds up what is asked of a deployment. position names the state that was counted.
func (s *Service) count(deployment string, revision uint64, what extent) (p events.Progress, position string) {
	p = events.Progress{Deployment: deployment, Revision: revision, States: map[events.State]int64{}, Reasons: map[events.Reason]int64{}, At: s.now().UTC().Truncate(time.Millisecond)}
	var at strings.Builder
	for _, part := range s.partitions {
		part.mu.RLock()
		part.jobs.addTo(&p, what)
		fmt.Fprintf(&at, "%d ", part.jobs.sequence)
		part.mu.RUnlock()
	}
	return p, at.String()
}

func (s *Service) countUpTo(deployment string, revision uint64) events.Progress {
	p, _ := s.count(deployment, revision, upToRevision)
	return p
}

// progressCall answers with the counts of the newest revision.
func (s *Service) progressCall(_ context.Context, _ string, req events.Named) (events.Progress, error) {
	k, err := s.deployment(req.Name)
	if err != nil {
		return events.Progress{}, err
	}
	if err := s.allLoaded(); err != nil {
		return events.Progress{}, err
	}
	p, _ := s.count(req.Name, k.Revision, wholeRollout)
	return p, nil
}
