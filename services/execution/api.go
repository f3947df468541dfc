package execution

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/bus"
)

const (
	rowsDefault = 1000
	rowsMost    = 100_000
)

// endpoints are the requests that any replica answers.
func (s *Service) endpoints() []bus.Endpoint {
	return []bus.Endpoint{
		bus.Answer(events.ExecutionOrder, s.orderCall),
		bus.Answer(events.ExecutionSync, s.syncCall),
		bus.Answer(events.ExecutionStop, s.stopCall),
		bus.Answer(events.ExecutionStopped, s.stoppedCall),
		bus.Answer(events.ExecutionFreeze, s.freezeCall),
		bus.Answer(events.ExecutionUnfreeze, s.unfreezeCall),
		bus.Answer(events.ExecutionFreezes, s.freezesCall),
		bus.Answer(events.ExecutionJobs, s.jobsCall),
		bus.Answer(events.ExecutionProgress, s.progressCall),
		bus.Answer(events.ExecutionRetry, s.retryCall),
		bus.Answer(events.ExecutionRetell, s.retellCall),
		bus.Answer(events.ExecutionHistory, s.historyCall),
		bus.Answer(events.ExecutionOutcomes, s.outcomesCall),
	}
}

// allLoaded is nil once every partition has its state.
func (s *Service) allLoaded() error {
	for _, p := range s.partitions {
		p.mu.RLock()
		loaded := p.loaded
		p.mu.RUnlock()
		if !loaded {
			return errNotLoaded
		}
	}
	return nil
}

// jobsCall lists jobs, by deployment, agent and user. A limit cuts the list before it is sorted as a whole.
func (s *Service) jobsCall(_ context.Context, _ string, q events.JobQuery) (events.JobRows, error) {
	if q.Limit < 0 || q.Limit > rowsMost {
		return events.JobRows{}, bus.BadRequest(fmt.Errorf("limit %d is not between 0 and %d", q.Limit, rowsMost))
	}
	for _, state := range q.States {
		if !slices.Contains(events.States(), state) {
			return events.JobRows{}, bus.BadRequest(fmt.Errorf("there is no state %q", state))
		}
	}
	if err := s.allLoaded(); err != nil {
		return events.JobRows{}, err
	}
	if q.Limit == 0 {
		q.Limit = rowsDefault
	}
	rows := found{events.JobRows{Jobs: []events.JobRow{}}}
	partitions := s.partitions
	if q.Agent != "" {
		partitions = []*partition{s.partitionOf(q.Agent)}
	}
	for _, p := range partitions {
		rows.in(p, q)
	}
	slices.SortFunc(rows.Jobs, func(a, b events.JobRow) int {
		return cmp.Or(cmp.Compare(a.Deployment, b.Deployment), cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.User, b.User))
	})
	return rows.JobRows, nil
}

// found are the rows of a query so far.
type found struct{ events.JobRows }

// in adds what matches in one partition.
func (f *found) in(p *partition, q events.JobQuery) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	from := p.jobs.all(q.Deployment)
	if q.Agent != "" {
		from = p.jobs.ofAgent(q.Agent)
	}
	for j := range from {
		if q.Deployment != "" && j.deployment != q.Deployment || len(q.States) > 0 && !slices.Contains(q.States, j.state) {
			continue
		}
		if q.Job != "" && !strings.HasPrefix(j.id(), q.Job) {
			continue
		}
		if len(f.Jobs) == q.Limit {
			f.More = true
			return
		}
		f.Jobs = append(f.Jobs, j.row())
	}
}
