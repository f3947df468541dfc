package main

import (
	"context"
	"fmt"
	"time"

	"chandler/events"
	"chandler/services/checker"
)

// stopped tells what a stop came to, by the executors' own record of what they started. Times are in seconds since the stop
// was asked for.
type stopped struct {
	Answer        float64 `json:"stop_answer_s"`       // it was answered
	StartedBefore int     `json:"started_before_stop"` // programs
	StartedAfter  int     `json:"started_after_stop"`
	LastP99       float64 `json:"stop_to_last_start_p99_s"` // all but one of a hundred of those had started
	LastMax       float64 `json:"stop_to_last_start_max_s"` // all of those had
	NotOffered    int     `json:"never_offered"`            // jobs that reached no agent

	asked time.Time
}

// stopPatience is after what time no program starts any more.
const stopPatience = 2 * time.Second

// stopAmid stops every deployment while programs start, and waits until each job has ended or is withdrawn.
func (s *simulation) stopAmid(ctx, running context.Context, _ *rawBroker) error {
	if _, err := s.awaitWork(running, underWay); err != nil {
		return err
	}
	r := &stopped{asked: s.now()}
	s.result.stopped = r
	for _, name := range s.names {
		if _, err := askHeard(ctx, s.client, events.ExecutionStop, events.StopRequest{Deployment: name, Why: "simulated"}, name); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	r.Answer = s.since(r.asked)
	s.step("%s stopped, in %.2f s", plural(len(s.names), "deployment is", "deployments are"), r.Answer)
	for _, name := range s.names {
		if err := s.awaitStopped(running, name); err != nil {
			return err
		}
	}
	return nil
}

func (s *simulation) awaitStopped(ctx context.Context, name string) error {
	shown := s.now()
	for {
		a, err := ask(ctx, s.client, events.ExecutionStopped, events.StopQuery{Deployment: name})
		if err == nil && a.Running+a.Unreachable == 0 {
			s.step("%s jobs of %s are withdrawn, %s had ended", count(a.Stopped), name, count(a.Ended))
			return nil
		}
		if s.since(shown) >= 1 {
			shown = s.now()
			s.step("%s jobs are withdrawn, %s run, %s have not confirmed", count(a.Stopped), count(a.Running), count(a.Unreachable))
		}
		if !pause(ctx, simulatedPause) {
			return fmt.Errorf("the stop did not reach everybody: %s jobs have not confirmed it: %w", count(a.Unreachable), context.Cause(ctx))
		}
	}
}

// count fills in what the executors say.
func (r *stopped) count(runs []checker.Run) {
	var after []time.Duration
	for _, run := range runs {
		if late := run.At.Sub(r.asked); late > 0 {
			after = append(after, late)
		} else {
			r.StartedBefore++
		}
	}
	r.StartedAfter = len(after)
	_, _, r.LastP99 = percentiles(after) // which sorts them
	if len(after) > 0 {
		r.LastMax = after[len(after)-1].Seconds()
	}
}

// verdict is an error where a program started too late, or a job neither ended nor was kept back. r may be nil.
func (r *stopped) verdict(notEnded int) error {
	switch {
	case r == nil:
		return nil
	case r.NotOffered != notEnded:
		return fmt.Errorf("%d jobs did not end, and %d were never offered", notEnded, r.NotOffered)
	case r.LastMax > stopPatience.Seconds():
		return fmt.Errorf("a program started %.1f s after the stop", r.LastMax)
	}
	return nil
}

func (r *stopped) fields(cancelled int) []field {
	if r == nil {
		return nil
	}
	return []field{
		{"Stop", fmt.Sprintf("answered after %.2f s; %s withdrawn, %s never offered", r.Answer, plural(cancelled, "job was", "jobs were"), count(r.NotOffered))},
		{"Starts", fmt.Sprintf("%s before the stop, %s after it: the last %.2f s after, all but one of a hundred of them within %.2f s", count(r.StartedBefore), count(r.StartedAfter), r.LastMax, r.LastP99)},
	}
}
