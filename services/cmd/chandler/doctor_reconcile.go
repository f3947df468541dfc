package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
)

// reconciled is what doctor --reconcile prints.
type reconciled struct {
	events.ReconcileAnswer
	events.RetellAnswer
}

// reconcile lets scheduling tell again what is deployed, and then the agents what they did: a status of an
// order that execution does not know counts for nothing.
func (a *app) reconcile(cmd *cobra.Command, c *client, _ []string) error {
	told, err := ask(cmd.Context(), c, events.Reconcile, events.Nothing{})
	if err != nil {
		return fmt.Errorf("%w: agents were not asked; repeat it when that is mended", err)
	}
	note(cmd.ErrOrStderr(), "scheduling told again: %s, %s with %s", plural(told.Deployments, "live deployment", "live deployments"),
		plural(told.Batches, "batch", "batches"), plural(told.Agents, "agent", "agents"))
	if err := awaitHandled(cmd.Context(), c, told.Sequence); err != nil {
		return fmt.Errorf("%w: agents were not asked; look with `chandler doctor`, then repeat it", err)
	}
	retold, err := ask(cmd.Context(), c, events.ExecutionRetell, events.Nothing{})
	if err != nil {
		return fmt.Errorf("%w: agents were not asked; repeat it when that is mended", err)
	}
	if !people(a.output) {
		return writeDetail(cmd.OutOrStdout(), a.output, reconciled{told, retold}, told.Run, nil)
	}
	note(cmd.OutOrStdout(), "reconciled: agents that are connected tell their jobs again now, others when they come back")
	return nil
}

// awaitHandled waits until execution has taken everything in EVENTS up to a sequence.
func awaitHandled(ctx context.Context, c *client, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for {
		consumer, err := c.bus.JetStream().Consumer(ctx, events.StreamEvents, "execution")
		if err == nil {
			info := consumer.CachedInfo()
			if info.AckFloor.Stream >= sequence || info.NumPending == 0 && info.NumAckPending == 0 {
				return nil
			}
			err = errors.New("it is still busy")
		}
		if !pause(ctx, 50*time.Millisecond) {
			return fmt.Errorf("execution has not taken in what was told within %s: %w", c.timeout, err)
		}
	}
}
