package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
)

// stopPolls and stopPause bound how long stop waits for agents to confirm.
const (
	stopPolls = 20
	stopPause = 250 * time.Millisecond
)

func deploymentStop(a *app) *cobra.Command {
	var request events.StopRequest
	cmd := &cobra.Command{
		Use: "stop NAME", Short: "Stop a deployment for good: what has not started will not", Args: cobra.ExactArgs(1),
		Long: `Withdraws every job whose program does not run yet. It needs no signature, works while the scheduling
service is down, and is never undone. Programs that run are left alone unless --kill is given.

"unreachable" counts machines that have not confirmed; those that are cut off may still start what they
hold until the time shown.`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			request.Deployment = args[0]
			answer, err := ask(cmd.Context(), c, events.ExecutionStop, request)
			if err != nil {
				return err
			}
			if answer, err = awaitStop(cmd.Context(), c, answer); err != nil {
				return err
			}
			if a.output == formJSON || a.output == formYAML {
				return writeData(cmd.OutOrStdout(), a.output, answer)
			}
			note(cmd.OutOrStdout(), "%s", a.stopLine(answer))
			return nil
		}),
	}
	cmd.Flags().BoolVar(&request.Kill, "kill", false, "end running programs too")
	cmd.Flags().StringVar(&request.Why, "why", "", "why, kept with the event")
	return cmd
}

// awaitStop asks again until every agent has confirmed, or a few seconds are over.
func awaitStop(ctx context.Context, c *client, answer events.StopAnswer) (events.StopAnswer, error) {
	for range stopPolls {
		if answer.Unreachable == 0 {
			break
		}
		if !pause(ctx, stopPause) {
			return answer, fmt.Errorf("the deployment is stopped; how far it has got was not awaited: %w", ctx.Err())
		}
		next, err := ask(ctx, c, events.ExecutionStopped, events.StopQuery{Deployment: answer.Deployment})
		if err != nil {
			return answer, fmt.Errorf("the deployment is stopped; how far it has got is not known: %w", err)
		}
		answer = next
	}
	return answer, nil
}

// stopLine tells what a stop has reached: "stopped 9,214 · running 73 · unreachable 412, may still start
// until 06:00".
func (a *app) stopLine(s events.StopAnswer) string {
	line := fmt.Sprintf("stopped %s · running %s · unreachable %s", count(s.Stopped), count(s.Running), count(s.Unreachable))
	if s.Unreachable > 0 && s.MayStart != nil {
		line += ", may still start until " + a.shortTime(*s.MayStart)
	}
	return line
}

// pause waits; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
