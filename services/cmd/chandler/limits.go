package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
)

func newLimits(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "limits", Short: "How many jobs of the whole fleet may be in flight, and be tried again", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			there, err := ask(cmd.Context(), c, events.LimitsShow, events.Nothing{})
			if err != nil {
				return err
			}
			return a.writeLimits(cmd, there)
		}),
	}
	cmd.AddCommand(limitsSet(a))
	return cmd
}

func (a *app) writeLimits(cmd *cobra.Command, l events.Limits) error {
	bound := func(n int) string {
		if n == 0 {
			return "no bound"
		}
		return count(n)
	}
	retries := l.RetriesPerMinute
	if retries == 0 {
		retries = events.DefaultRetriesPerMinute
	}
	return writeDetail(cmd.OutOrStdout(), a.output, l, "limits", []field{
		{"Jobs in flight", bound(l.MaxInFlight)}, {"Jobs in flight on each site", bound(l.MaxInFlightPerSite)}, {"Retries a minute", count(retries)},
		{"Changed", a.longTime(l.At)}, {"By", l.By},
	})
}

func limitsSet(a *app) *cobra.Command {
	var wanted events.Limits
	cmd := &cobra.Command{
		Use: "set", Short: "Change the limits that are named; the others stay", Args: cobra.NoArgs,
		Example: "  chandler limits set --max-in-flight 5000 --max-in-flight-per-site 200",
	}
	cmd.RunE = a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
		given := cmd.Flags().Changed
		if !given("max-in-flight") && !given("max-in-flight-per-site") && !given("retries-per-minute") {
			return errors.New("say which limit: --max-in-flight, --max-in-flight-per-site or --retries-per-minute")
		}
		if wanted.MaxInFlight < 0 || wanted.MaxInFlightPerSite < 0 || wanted.RetriesPerMinute < 0 {
			return errors.New("a limit must not be negative; 0 lifts it")
		}
		set, err := ask(cmd.Context(), c, events.LimitsShow, events.Nothing{})
		if err != nil {
			return err
		}
		for _, f := range []struct {
			flag     string
			from, to *int
		}{{"max-in-flight", &wanted.MaxInFlight, &set.MaxInFlight}, {"max-in-flight-per-site", &wanted.MaxInFlightPerSite, &set.MaxInFlightPerSite}, {"retries-per-minute", &wanted.RetriesPerMinute, &set.RetriesPerMinute}} {
			if given(f.flag) {
				*f.to = *f.from
			}
		}
		if set, err = ask(cmd.Context(), c, events.LimitsSet, set); err != nil {
			return err
		}
		return a.writeLimits(cmd, set)
	})
	cmd.Flags().IntVar(&wanted.MaxInFlight, "max-in-flight", 0, "jobs of the fleet at a time; 0: no bound")
	cmd.Flags().IntVar(&wanted.MaxInFlightPerSite, "max-in-flight-per-site", 0, "jobs of each site at a time; 0: no bound")
	cmd.Flags().IntVar(&wanted.RetriesPerMinute, "retries-per-minute", 0, fmt.Sprintf("jobs tried again by themselves a minute; 0: %s", count(events.DefaultRetriesPerMinute)))
	return cmd
}

// maxSignal bounds type, subject and text of a signal, in bytes.
const maxSignal = 200

func newSignal(a *app) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use: "signal TYPE SUBJECT", Short: "Say that something happened which gates of rollouts wait for", Args: cobra.ExactArgs(2),
		Long: `Tells the fleet an event from outside. A phase whose advance-when names the same type and subject
({event: {type: com.example.smoketest.passed, subject: hello}}) goes on with it, if it comes after the phase opened.`,
		Example: "  chandler signal com.example.smoketest.passed hello",
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			for i, what := range []string{"TYPE", "SUBJECT"} {
				if args[i] == "" || len(args[i]) > maxSignal {
					return fmt.Errorf("%s must have 1 to %d bytes", what, maxSignal)
				}
			}
			if strings.HasPrefix(args[0], events.TypePrefix) {
				return fmt.Errorf("%s is a type of Chandler's own events: those are not told by hand", args[0])
			}
			told, err := ask(cmd.Context(), c, events.GateSignal, events.Signal{Type: args[0], Subject: args[1], Text: text})
			if err != nil {
				return err
			}
			return a.answer(cmd, told, args[1], "%s about %s is told", args[0], args[1])
		}),
	}
	cmd.Flags().StringVar(&text, "text", "", "what happened, kept with the event")
	return cmd
}
