package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
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
service is down, and is never undone. Programs that run are left alone
unless --kill is given: then each is ended with all its children, and its job counts as cancelled.

"unreachable" counts machines that have not confirmed; those that are cut off may still start what they
hold until the time shown.`,
		ValidArgsFunction: a.completeArguments(completeDeployments),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			request.Deployment = args[0]
			answer, err := askHeard(cmd.Context(), c, events.ExecutionStop, request, request.Deployment)
			if err != nil {
				return err
			}
			if answer, err = awaitStop(cmd.Context(), c, answer); err != nil {
				return err
			}
			if err := a.answer(cmd, answer, answer.Deployment, "%s", a.stopLine(answer)); err != nil {
				return err
			}
			switch {
			case answer.Running > 0 && request.Kill:
				note(cmd.ErrOrStderr(), "The programs that run are being ended, with all their children.")
			case answer.Running > 0:
				note(cmd.ErrOrStderr(), "The programs that run go on to their end; %s deployment stop %s --kill ends them too.", a.self, answer.Deployment)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&request.Kill, "kill", false, "end running programs too")
	cmd.Flags().StringVar(&request.Why, "why", "", "why, kept with the event")
	return cmd
}

// askHeard asks execution about a deployment. One that was created a moment ago it may not have heard of: as
// long as scheduling knows it, the question is repeated.
func askHeard[Req, Resp any](ctx context.Context, c *client, call events.Call[Req, Resp], req Req, deployment string) (Resp, error) {
	within, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for {
		answer, err := ask(ctx, c, call, req)
		if !errors.Is(err, bus.ErrNotFound) {
			return answer, err
		}
		if _, known := ask(ctx, c, events.DeploymentShow, events.Named{Name: deployment}); known != nil {
			return answer, err
		}
		if !pause(within, stopPause) {
			return answer, fmt.Errorf("execution has not heard of deployment %q within %s: `chandler doctor` shows how far it is behind", deployment, c.timeout)
		}
	}
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

// stopLine tells what a stop has reached: "deployment hello: stopped 9,214 · running 73 · unreachable 412, may still start
// until 06:00".
func (a *app) stopLine(s events.StopAnswer) string {
	line := fmt.Sprintf("deployment %s: stopped %s · running %s · unreachable %s", s.Deployment, count(s.Stopped), count(s.Running), count(s.Unreachable))
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
