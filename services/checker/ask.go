package checker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"chandler/events"
	"chandler/events/bus"
)

const (
	// defaultPage is how many jobs are asked for at once.
	defaultPage = 20_000
	// letters are those of job ids.
	letters = "abcdefghijklmnopqrstuvwxyz234567"
	// longestID is the length of a job's id.
	longestID = 26
)

// services asks scheduling and execution about the deployments.
func (c *collector) services(ctx context.Context) error {
	freezes, err := bus.Request(ctx, c.bus, c.caller, events.ExecutionFreezes, events.Nothing{})
	if err != nil {
		return err
	}
	c.Freezes = freezes.Freezes
	names := map[string]bool{}
	for _, d := range c.Deployments {
		names[d] = true
	}
	if len(names) == 0 {
		for _, o := range c.Orders {
			names[o.Deployment] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if err := c.counts(ctx, name); err != nil {
			return err
		}
		if err := c.jobs(ctx, events.JobQuery{Deployment: name, Limit: c.page}); err != nil {
			return err
		}
	}
	return nil
}

// counts asks scheduling how many agents it released; a deployment that was removed it does not know.
func (c *collector) counts(ctx context.Context, deployment string) error {
	view, err := bus.Request(ctx, c.bus, c.caller, events.DeploymentShow, events.Named{Name: deployment})
	if refused, ok := errors.AsType[*bus.RequestError](err); ok && refused.Code == bus.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	c.Counts = append(c.Counts, Count{Deployment: view.Deployment, Revision: view.Revision, Released: view.Released})
	return nil
}

// jobs asks execution for the rows of a query. Where there are more than fit into an answer, it asks by the next letter of
// their ids.
func (c *collector) jobs(ctx context.Context, q events.JobQuery) error {
	rows, err := bus.Request(ctx, c.bus, c.caller, events.ExecutionJobs, q)
	if err != nil {
		return err
	}
	if !rows.More {
		for _, r := range rows.Jobs {
			r.Job, r.Deployment, r.Agent, r.User = c.word(r.Job), c.word(r.Deployment), c.word(r.Agent), c.word(r.User)
			r.State, r.Reason = events.State(c.word(string(r.State))), events.Reason(c.word(string(r.Reason)))
			c.Jobs = append(c.Jobs, r)
		}
		return nil
	}
	if len(q.Job) == longestID {
		return fmt.Errorf("execution lists job %s more than %d times", q.Job, q.Limit)
	}
	begins := q.Job
	for _, letter := range letters {
		q.Job = begins + string(letter)
		if err := c.jobs(ctx, q); err != nil {
			return err
		}
	}
	return nil
}
