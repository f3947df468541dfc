package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/advice"
	"chandler/events/resource"
)

// testTime is how long an agent's try is waited for, unless --timeout says otherwise: a server that is away is found out
// slowly.
const testTime = 60 * time.Second

func accountTest(a *app) *cobra.Command {
	var request events.AccountTestRequest
	cmd := &cobra.Command{
		Use: "test NAME --resource RESOURCE --agent AGENT", Short: "Let an agent try a resource by an account once", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeAccounts),
		Long: `Lends the account to one agent, which tries to read the resource with it, once, and says what was
answered. A wrong secret counts as one wrong password where the account is kept. Exit code 0 only if it was read.

A machine remembers a secret that was refused, and does not show it to that host again, since that is how accounts get
locked out. With --again it does, once: for an account that was mended where it is kept and has the same secret.`,
		Example: `  chandler account test corp-reader --resource '\\files.example\software\hello' --agent ws-0412`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			request.Account = args[0]
			if err := events.ValidToken(request.Account); err != nil {
				return fmt.Errorf("account: %w", err)
			}
			err := checkReadable(request.Resource)
			var r resource.Resource
			if err == nil {
				r, err = resource.Parse(request.Resource)
			}
			if err != nil {
				return fmt.Errorf("--resource %w", err)
			}
			request.Resource = r.String()
			agent, err := resolveAgent(cmd.Context(), c, request.Agent)
			if err != nil {
				return err
			}
			request.Agent = agent.Facts.ID
			if !cmd.Flags().Changed("timeout") {
				c.timeout = testTime
			}
			who := fmt.Sprintf("%s (%s)", cmp.Or(agent.Facts.Hostname, "agent"), request.Agent)
			if a.now().Sub(agent.LastSeen) > silentAfter {
				note(cmd.ErrOrStderr(), "WARNING: %s is %s: it answers only if it comes back within %s", who, a.awayText(agent.LastSeen), c.timeout)
			}
			heard := a.tellWait(cmd.ErrOrStderr(), waitTold, fmt.Sprintf("waiting for %s to try it, for at most %s", who, c.timeout))
			result, err := ask(cmd.Context(), c, events.AccountTest, request)
			heard()
			if err != nil {
				return err
			}
			return a.writeTest(cmd, agent, request, result)
		}),
	}
	cmd.Flags().StringVar(&request.Resource, "resource", "", "what to read: an address, or the path of a share")
	cmd.Flags().BoolVar(&request.Again, "again", false, "show the host a secret that the machine remembers as refused there once more")
	cmd.Flags().StringVar(&request.Agent, "agent", "", "who tries it (id or host name)")
	_ = cmd.MarkFlagRequired("resource")
	_ = cmd.MarkFlagRequired("agent")
	a.completeFlag(cmd, "agent", completeAgents)
	return cmd
}

// waitTold is how long an answer may take before people are told what is waited for.
const waitTold = 2 * time.Second

// tellWait tells what is waited for, on a terminal and if it takes long, until stop is called.
func (a *app) tellWait(w io.Writer, long time.Duration, what string) (stop func()) {
	if !a.isTerminal(w) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var telling sync.WaitGroup
	telling.Go(func() {
		if pause(ctx, long) {
			note(w, "%s", what)
		}
	})
	return func() {
		cancel()
		telling.Wait()
	}
}

// writeTest tells what was answered. What was asked is known here, and not taken from the agent.
func (a *app) writeTest(cmd *cobra.Command, agent events.AgentView, request events.AccountTestRequest, result events.AccountTestResult) error {
	tried := &result.Access
	tried.Account, tried.Resource, tried.When = request.Account, request.Resource, events.AccessTest
	if people(a.output) {
		note(cmd.OutOrStdout(), "%s (%s): %s", cmp.Or(agent.Facts.Hostname, "agent"), request.Agent, advice.Sentence(*tried))
		if fix := advice.For(*tried); fix != "" {
			note(cmd.OutOrStdout(), "advice: %s", fix)
		}
	} else if err := writeDetail(cmd.OutOrStdout(), a.output, result, request.Account, nil); err != nil {
		return err
	}
	if tried.Reason != events.NoReason {
		return exitCode(1)
	}
	return nil
}
