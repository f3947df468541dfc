package integration

import (
	"errors"
	"fmt"
	"time"

	light "chandler/agent/fleet"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
	"chandler/services/checker"
)

const (
	// settles is how long everything may take to come to rest once all is mended: agents look for what they missed every few
	// seconds, services every minute.
	settles = 5 * time.Minute
	// rests is how long nothing must have been stored: longer than any of the rig's intervals.
	rests = 6 * time.Second
	// doubts is how long a violation must be seen to be one.
	doubts = time.Minute
)

// observe notes what the broker acknowledged to agents.
func (r *rig) observe(o light.Observation) {
	if o.What != light.StatusStored {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acks = append(r.acks, checker.Ack{Agent: o.Agent, Deployment: o.Deployment, Job: o.Job, Attempt: o.Attempt, Transition: o.Transition, State: o.State, Sequence: o.Stream, At: o.At})
}

// verify waits until all has come to rest, and holds the witnesses against each other.
func (s *soak) verify() error {
	rest := s.atRest()
	var found []checker.Violation
	err := s.r.look("the witnesses agree", doubts, func() error {
		e, err := s.r.evidence(s.load.names)
		if err != nil {
			return err
		}
		s.jobs, s.runs = len(e.Jobs), len(e.Runs)
		s.statuses = len(e.Stored)
		if found = checker.Check(e); len(found) > 0 {
			return errors.New(checker.Report(found, 3))
		}
		return nil
	}, anyError)
	return errors.Join(err, rest)
}

// evidence is what every witness says now.
func (r *rig) evidence(deployments []string) (checker.Evidence, error) {
	e, err := checker.Collect(r.t.Context(), r.owner, "owner", deployments)
	if err != nil {
		return e, fmt.Errorf("collect evidence: %w", err)
	}
	e.Slack = 11 * time.Minute // clocks were set
	e.Journals, e.Runs = []checker.Journal{}, []checker.Run{}
	for _, s := range r.sites {
		for _, run := range s.fleet.Runs() {
			e.Runs = append(e.Runs, checker.Run{Agent: run.Agent, Deployment: run.Deployment, Job: run.Job, Attempt: run.Attempt, At: run.At, Ended: run.Ended, Exit: run.Act.Exit, Well: run.Act.Reason == ""})
		}
	}
	err = light.Journals(r.store, func(agent string, j journal.Job) error {
		e.Journals = append(e.Journals, checker.Journal{Name: checker.Name{Job: j.Offer.Job, Deployment: j.Offer.Deployment, Revision: j.Offer.Revision, Agent: agent, Occurrence: j.Offer.Occurrence, User: j.Offer.User},
			Started: j.Started, Attempt: j.Last.Attempt, Transition: j.Last.Transition, State: j.Last.State, Reason: j.Last.Reason, At: j.Last.At})
		return nil
	})
	r.mu.Lock()
	e.Acknowledged = append([]checker.Ack{}, r.acks...)
	r.mu.Unlock()
	return e, err
}

// atRest waits until every agent is there, no job is under way, and nothing has been stored for a while.
func (s *soak) atRest() error {
	r := s.r
	var last uint64
	since := time.Now()
	return r.look("all is at rest", settles, func() error {
		for _, site := range r.sites {
			if n := site.fleet.Connected(); n < len(site.ids) {
				return fmt.Errorf("%d of %d agents of %s are connected", n, len(site.ids), site.name)
			}
		}
		if n := r.stored(); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) < rests {
			return errors.New("messages are being stored")
		}
		return errors.Join(s.load.thaw(), s.allEnded()) // a replica that was behind may have hidden a freeze
	}, anyError)
}

// allEnded is nil when execution knows of no job that has not ended.
func (s *soak) allEnded() error {
	var live []events.State
	for _, state := range events.States() {
		if !state.Terminal() {
			live = append(live, state)
		}
	}
	for _, name := range s.load.names {
		rows, err := insist(s.r, events.ExecutionJobs, events.JobQuery{Deployment: name, States: live, Limit: 3})
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return err
		}
		if len(rows.Jobs) > 0 {
			return fmt.Errorf("jobs have not ended: %+v", rows.Jobs)
		}
	}
	return nil
}
