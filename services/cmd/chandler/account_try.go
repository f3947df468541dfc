package main

import (
	"cmp"
	"fmt"
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
answered. A wrong secret counts as one bad password where the account is kept. Exit code 0 only if it was read.`,
		Example: `  chandler account test corp-reader --resource '\\files.example\software\hello' --agent ws-0412`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			request.Account = args[0]
			if err := events.ValidToken(request.Account); err != nil {
				return fmt.Errorf("account: %w", err)
			}
			r, err := resource.Parse(request.Resource)
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
			result, err := ask(cmd.Context(), c, events.AccountTest, request)
			if err != nil {
				return err
			}
			return a.writeTest(cmd, agent, request, result)
		}),
	}
	cmd.Flags().StringVar(&request.Resource, "resource", "", "what to read: an address, or the path of a share")
	cmd.Flags().StringVar(&request.Agent, "agent", "", "who tries it (id or host name)")
	_ = cmd.MarkFlagRequired("resource")
	_ = cmd.MarkFlagRequired("agent")
	a.completeFlag(cmd, "agent", completeAgents)
	return cmd
}

// writeTest tells what was answered. What was asked is known here, and not taken from the agent.
func (a *app) writeTest(cmd *cobra.Command, agent events.AgentView, request events.AccountTestRequest, result events.AccountTestResult) error {
	tried := &result.Access
	tried.Account, tried.Resource = request.Account, request.Resource
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
