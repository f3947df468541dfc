package main

import (
	"context"
	"strings"
	"time"

	"chandler/agent/fleet"
	"chandler/agent/journal"
	"chandler/events/bus"
	"chandler/services/checker"
)

const (
	// maxChecked bounds the jobs that are checked: evidence takes a few KiB of memory each.
	maxChecked = 100_000
	// checkPatience is how long what looks wrong is looked at again: the last words may be under way.
	checkPatience = 10 * time.Second
	// violationsShown bounds what is told of violations.
	violationsShown = 20
)

// check holds what streams, services, journals and executors say of the run against each other.
func (s *simulation) check(ctx context.Context, raw *rawBroker) error {
	if s.result.Jobs > maxChecked {
		s.step("the run is too large to be checked: %s jobs, and at most %s are", count(s.result.Jobs), count(maxChecked))
		return nil
	}
	if raw.conn == nil { // people may not read all that is needed
		s.step("what every witness says cannot be checked on a broker that runs elsewhere")
		return nil
	}
	asking, err := bus.New(bus.Options{Conn: raw.conn})
	if err != nil {
		return err
	}
	for deadline := s.now().Add(checkPatience); ; {
		found, err := s.violations(ctx, asking)
		if err != nil {
			return err
		}
		if len(found) == 0 || s.now().After(deadline) || !pause(ctx, time.Second) {
			s.result.Checked, s.result.Violations = true, tellViolations(found)
			return nil
		}
	}
}

func (s *simulation) violations(ctx context.Context, asking *bus.Bus) ([]checker.Violation, error) {
	ctx, cancel := context.WithTimeout(ctx, s.within)
	defer cancel()
	e, err := checker.Collect(ctx, asking, s.client.Caller, s.names)
	if err != nil {
		return nil, err
	}
	if err := s.hear(ctx, &e); err != nil {
		return nil, err
	}
	return checker.Check(e), nil
}

// hear adds what the agents' processes know.
func (s *simulation) hear(ctx context.Context, e *checker.Evidence) error {
	if err := doAll(ctx, s.agents, doTell); err != nil {
		return err
	}
	of := map[string]bool{}
	for _, name := range s.names {
		of[name] = true
	}
	e.Acknowledged, e.Journals, e.Runs = []checker.Ack{}, []checker.Journal{}, []checker.Run{}
	for _, file := range s.evidence {
		err := readEvidence(file, func(l evidenceLine) {
			switch {
			case l.Run != nil && of[l.Run.Deployment]:
				e.Runs = append(e.Runs, checkedRun(*l.Run))
			case l.Acked != nil && of[l.Acked.Deployment]:
				e.Acknowledged = append(e.Acknowledged, checkedAck(*l.Acked))
			case l.Job != nil && of[l.Job.Offer.Deployment]:
				e.Journals = append(e.Journals, checkedJournal(l.Agent, *l.Job))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func checkedRun(r fleet.Run) checker.Run {
	return checker.Run{Agent: r.Agent, Deployment: r.Deployment, Job: r.Job, Attempt: r.Attempt, At: r.At, Ended: r.Ended, Exit: r.Act.Exit, Well: r.Act.Reason == ""}
}

func checkedAck(o fleet.Observation) checker.Ack {
	return checker.Ack{Agent: o.Agent, Deployment: o.Deployment, Job: o.Job, Attempt: o.Attempt, Transition: o.Transition, State: o.State, Sequence: o.Stream, At: o.At}
}

func checkedJournal(agent string, j journal.Job) checker.Journal {
	return checker.Journal{
		Name:    checker.Name{Job: j.Offer.Job, Deployment: j.Offer.Deployment, Revision: j.Offer.Revision, Agent: agent, Occurrence: j.Offer.Occurrence, User: j.Offer.User},
		Started: j.Started, Attempt: j.Last.Attempt, Transition: j.Last.Transition, State: j.Last.State, Reason: j.Last.Reason, At: j.Last.At,
	}
}

// tellViolations are the first of them, each on one line or more.
func tellViolations(found []checker.Violation) []string {
	told := []string{}
	for _, v := range found[:min(violationsShown, len(found))] {
		told = append(told, strings.TrimSpace(checker.Report([]checker.Violation{v}, 0)))
	}
	return told
}

// countTwice adds the attempts whose program ran more than once, by the executors' own record.
func (s *simulation) countTwice(runs []checker.Run) {
	type attempt struct {
		job    string
		number int
	}
	seen := map[attempt]bool{}
	for _, r := range runs {
		if a := (attempt{r.Job, r.Attempt}); seen[a] {
			s.result.Duplicated++
		} else {
			seen[a] = true
		}
	}
}
