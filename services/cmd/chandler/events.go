package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
)

func newEvents(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "events", Short: "The events that everything here is made of"}
	cmd.AddCommand(eventsTail(a), eventsTypes(a), eventsSchema(), eventsAsyncAPI())
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
			return columns.write(cmd.OutOrStdout(), a.output, rows)
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
		Example: `  chandler events schema job.succeeded`,
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

// tailFlags are those of events tail, as typed.
type tailFlags struct {
	types             []string
	agent, deployment string
	since             string
	noFollow          bool
}

func eventsTail(a *app) *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use: "tail", Short: "Show events as they happen", Args: cobra.NoArgs,
		Long: `Shows events as they happen, until interrupted. With -o json each is one line: a CloudEvent in
structured form.`,
		Example: `  chandler events tail --type job.failed,job.rejected --since 1h`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			return a.tail(cmd, c, f)
		}),
	}
	cmd.Flags().StringSliceVar(&f.types, "type", nil, "only these types, such as job.failed")
	cmd.Flags().StringVar(&f.agent, "agent", "", "only events about this agent (id or host name)")
	cmd.Flags().StringVar(&f.deployment, "deployment", "", "only events about this deployment")
	cmd.Flags().StringVar(&f.since, "since", "", "begin with what happened within this span (1h), or after this time")
	cmd.Flags().BoolVar(&f.noFollow, "no-follow", false, "end after what is stored, beginning with the first unless --since says otherwise")
	return cmd
}

func (a *app) tail(cmd *cobra.Command, c *client, f tailFlags) error {
	since, err := a.parseSince(f.since)
	if err != nil {
		return fmt.Errorf("--since: %w", err)
	}
	if f.agent != "" {
		found, err := resolveAgent(cmd.Context(), c, f.agent)
		if err != nil {
			return err
		}
		f.agent = found.Facts.ID
	}
	filters, live, err := tailSubjects(f.types)
	if err != nil {
		return err
	}
	if f.noFollow {
		live = nil
	}
	show := a.tailView(cmd, f)
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	ends := make(chan error)
	for stream, subjects := range filters {
		go func() {
			ends <- c.read(ctx, reading{stream: stream, filters: subjects, since: since, onlyNew: since.IsZero() && !f.noFollow, follow: !f.noFollow}, func(m jetstream.Msg) error {
				return show(&nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
			})
		}()
	}
	if len(live) > 0 {
		filters["not stored"] = live
		go func() { ends <- listen(ctx, c, live, show) }()
	}
	for range filters {
		if end := <-ends; end != nil && err == nil {
			err = end
			cancel()
		}
	}
	return err
}

// tailSubjects gives the subjects to read by stream, and those that no stream stores. Log lines and timers
// are shown only when asked for by type.
func tailSubjects(types []string) (stored map[string][]string, live []string, err error) {
	var wanted []events.Declaration
	for _, name := range types {
		d, err := typeNamed(name)
		if err != nil {
			return nil, nil, err
		}
		wanted = append(wanted, d)
	}
	if len(types) == 0 {
		wanted = slices.DeleteFunc(events.Types(), func(d events.Declaration) bool {
			return d.Stream == "" || d.Stream == events.StreamLogs || d.Stream == events.StreamTimers
		})
	}
	stored = map[string][]string{}
	for _, d := range wanted {
		switch {
		case d.Stream == "":
			live = append(live, d.Filter())
		case !slices.Contains(stored[d.Stream], d.Filter()):
			stored[d.Stream] = append(stored[d.Stream], d.Filter())
		}
	}
	return stored, live, nil
}

// listen shows what is only said, not stored.
func listen(ctx context.Context, c *client, subjects []string, show func(*nats.Msg) error) error {
	messages := make(chan *nats.Msg, 256)
	for _, s := range subjects {
		sub, err := c.bus.Conn().ChanSubscribe(s, messages)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", s, err)
		}
		defer func() { _ = sub.Unsubscribe() }()
	}
	for {
		select {
		case m := <-messages:
			if err := show(m); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// tailView shows one message after another, from whichever stream.
func (a *app) tailView(cmd *cobra.Command, f tailFlags) func(*nats.Msg) error {
	var mu sync.Mutex
	return func(m *nats.Msg) error {
		e, err := bus.Decode(m)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			note(cmd.ErrOrStderr(), "%s: not an event: %v", m.Subject, err)
			return nil
		}
		data := gist(e)
		switch {
		case len(f.types) > 0 && !slices.ContainsFunc(f.types, func(t string) bool { d, _ := events.TypeNamed(t); return d.Name == e.Type() }):
			return nil // another type on the same subject
		case f.agent != "" && data.Agent != f.agent && e.Subject() != f.agent:
			return nil
		case f.deployment != "" && data.Deployment != f.deployment:
			return nil
		case a.output == formJSON:
			return writeLine(cmd.OutOrStdout(), e)
		}
		note(cmd.OutOrStdout(), "%s  %-24s  %-22s  %s", e.Time().In(a.zone).Format(time.DateTime), shortType(e.Type()), e.Subject(), data.text())
		return nil
	}
}

func shortType(name string) string {
	return strings.TrimSuffix(strings.TrimPrefix(name, events.TypePrefix), ".v1")
}

// eventGist are the fields that many events share, for one line.
type eventGist struct {
	Agent       string `json:"agent"`
	Deployment  string `json:"deployment"`
	Package     string `json:"package"`
	Version     string `json:"version"`
	Host        string `json:"host"`
	Reason      string `json:"reason"`
	WaitingFor  string `json:"waiting_for"`
	Why         string `json:"why"`
	By          string `json:"by"`
	Explanation string `json:"explanation"`
}

// gist reads them; data of another shape has none.
func gist(e event.Event) eventGist {
	var g eventGist
	if json.Unmarshal(e.Data(), &g) != nil {
		return eventGist{}
	}
	return g
}

func (g eventGist) text() string {
	var parts []string
	for _, f := range []field{{"deployment", g.Deployment}, {"package", strings.TrimSuffix(g.Package+"@"+g.Version, "@")}, {"host", g.Host}, {"reason", g.Reason},
		{"waiting for", g.WaitingFor}, {"by", g.By}, {"why", g.Why}} {
		if f.value != "" && f.value != "@" {
			parts = append(parts, fmt.Sprintf("%s %s", f.name, f.value))
		}
	}
	if g.Explanation != "" {
		parts = append(parts, g.Explanation)
	}
	return strings.Join(parts, " · ")
}
