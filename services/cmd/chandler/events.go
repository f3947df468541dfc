package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"chandler/events"
)

func newEvents(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "events", Short: "The events that everything here is made of"}
	cmd.AddCommand(eventsTail(a), eventsAudit(a), eventsTypes(a), eventsSchema(), eventsAsyncAPI())
	return cmd
}

func eventsTypes(a *app) *cobra.Command {
	columns := listing[typeRow]{
		name: func(r typeRow) string { return r.Name },
		columns: []column[typeRow]{
			{"TYPE", false, func(r typeRow) any { return r.Name }},
			{"SENDER", false, func(r typeRow) any { return r.Sender }},
			{"STREAM", false, func(r typeRow) any { return cellOr(r.Stream, "not stored") }},
			{"SUBJECT", true, func(r typeRow) any { return r.Subject }},
			{"SCHEMA", true, func(r typeRow) any { return r.Schema }},
			{"WHAT", false, func(r typeRow) any { return r.Summary }},
		},
	}
	return &cobra.Command{
		Use: "types", Short: "List every type of event; needs no connection", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rows []typeRow
			for _, d := range events.Types() {
				rows = append(rows, typeRow{d.Name, d.Sender, d.Stream, d.Pattern, d.SchemaID(), d.Summary})
			}
			return columns.show(cmd, a.output, rows)
		},
	}
}

// typeRow is a declaration as it is listed.
type typeRow struct {
	Name    string `json:"type"`
	Sender  string `json:"sender"`
	Stream  string `json:"stream,omitempty"`
	Subject string `json:"subject"`
	Schema  string `json:"schema"`
	Summary string `json:"summary"`
}

func eventsSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema TYPE", Short: "Print the JSON Schema of an event type's data; needs no connection", Args: cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(eventTypes(), cobra.ShellCompDirectiveNoFileComp),
		Example:           `  chandler events schema job.succeeded`,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := typeNamed(args[0])
			if err != nil {
				return err
			}
			schema, ok := events.Schema(d.Name)
			if !ok {
				return fmt.Errorf("event type %s has no schema", d.Name)
			}
			_, err = cmd.OutOrStdout().Write(schema)
			return err
		},
	}
}

func eventsAsyncAPI() *cobra.Command {
	return &cobra.Command{
		Use: "asyncapi", Short: "Print the AsyncAPI description of every event; needs no connection", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(events.AsyncAPI())
			return err
		},
	}
}

func typeNamed(name string) (events.Declaration, error) {
	d, ok := events.TypeNamed(name)
	if !ok {
		return d, fmt.Errorf("there is no event type %q: `chandler events types` lists them", name)
	}
	return d, nil
}
