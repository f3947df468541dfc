package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/resource"
)

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
structured form; with -o yaml a document.`,
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
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(eventTypes(), cobra.ShellCompDirectiveNoFileComp))
	a.completeFlag(cmd, "agent", completeAgents)
	a.completeFlag(cmd, "deployment", completeDeployments)
	return cmd
}

func (a *app) tail(cmd *cobra.Command, c *client, f tailFlags) error {
	if err := a.only(formTable, formWide, formJSON, formYAML); err != nil {
		return err
	}
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
	stored, live, err := tailSubjects(f.types)
	if err != nil {
		return err
	}
	var unknown error
	if f.deployment != "" {
		unknown = knownDeployment(cmd.Context(), c, f.deployment)
	}
	view := &tailView{app: a, cmd: cmd, tailFlags: f}
	if f.noFollow {
		if err := c.readInOrder(cmd.Context(), stored, since, view.show); err != nil {
			return err
		}
		if view.shown == 0 {
			return unknown // one that was removed still has events
		}
		return nil
	}
	if unknown != nil {
		note(cmd.ErrOrStderr(), "%v; waiting for one of that name", unknown)
	}
	readings := make([]reading, 0, len(stored))
	for stream, subjects := range stored {
		readings = append(readings, reading{stream: stream, filters: subjects, since: since, onlyNew: since.IsZero(), follow: true})
	}
	return c.follow(cmd.Context(), readings, live, view.show)
}

// follow shows what several streams store, and what is only said, as it comes.
func (c *client) follow(ctx context.Context, readings []reading, live []string, show func(*nats.Msg) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error)
	running := len(readings)
	for _, r := range readings {
		go func() {
			ends <- c.read(ctx, r, func(m jetstream.Msg) error { return show(plainMessage(m)) })
		}()
	}
	if len(live) > 0 {
		running++
		go func() { ends <- listen(ctx, c, live, show) }()
	}
	var err error
	for range running {
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
type tailView struct {
	*app
	cmd *cobra.Command
	tailFlags
	mu    sync.Mutex
	shown int
}

func (v *tailView) show(m *nats.Msg) error {
	e, err := bus.Decode(m)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		note(v.cmd.ErrOrStderr(), "%s: not an event: %v", m.Subject, err)
		return nil
	}
	data := gist(e)
	if !v.wanted(e, data) {
		return nil
	}
	v.shown++
	if !people(v.output) {
		return writeNext(v.cmd.OutOrStdout(), v.output, e)
	}
	note(v.cmd.OutOrStdout(), "%s  %-24s  %-22s  %s", v.longTime(e.Time()), shortType(e.Type()), e.Subject(), data.text())
	return nil
}

// wanted holds an event against the flags; several types may share a subject.
func (v *tailView) wanted(e event.Event, data eventGist) bool {
	ofType := func(t string) bool { d, _ := events.TypeNamed(t); return d.Name == e.Type() }
	switch {
	case len(v.types) > 0 && !slices.ContainsFunc(v.types, ofType):
		return false
	case v.agent != "" && data.Agent != v.agent && e.Subject() != v.agent:
		return false
	}
	return v.deployment == "" || data.Deployment == v.deployment
}

func plainMessage(m jetstream.Msg) *nats.Msg {
	return &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()}
}

func shortType(name string) string {
	return strings.TrimSuffix(strings.TrimPrefix(name, events.TypePrefix), ".v1")
}

// eventGist are the fields that many events share, for one line.
type eventGist struct {
	Agent       string   `json:"agent"`
	Account     string   `json:"account"`
	Kind        string   `json:"kind"`
	User        string   `json:"user"`
	ElevatedTo  string   `json:"elevated_to"`
	Means       string   `json:"means"`
	Purpose     string   `json:"purpose"`
	Identity    string   `json:"identity"`
	Resource    string   `json:"resource"`
	Answer      string   `json:"answer"`
	Method      string   `json:"method"`
	Domain      string   `json:"domain"`
	Resources   []string `json:"resources"`
	Collections []string `json:"collections"`
	Job         string   `json:"job"`
	Program     string   `json:"program"`
	Deployment  string   `json:"deployment"`
	Package     string   `json:"package"`
	Version     any      `json:"version"` // of a package a text; of an account and of trust a number
	Host        string   `json:"host"`
	Hostname    string   `json:"hostname"` // as events that are not about jobs call it
	Reason      string   `json:"reason"`
	WaitingFor  string   `json:"waiting_for"`
	Why         string   `json:"why"`
	By          string   `json:"by"`
	Explanation string   `json:"explanation"`
	Service     string   `json:"service"` // of an audit: of whom what was asked about what, and what came of it
	Verb        string   `json:"verb"`
	About       string   `json:"about"`
	Result      string   `json:"result"`
	Phase       any      `json:"phase"` // of a rollout its name, of a release its index
	Size        int      `json:"size"`
	Rolls       string   `json:"rolls"`
	Step        string   `json:"step"` // of a job: what runs first
	Type        string   `json:"type"` // of a signal
	Subject     string   `json:"subject"`
	Text        string   `json:"text"`
	MaxInFlight int      `json:"max_in_flight"` // of the fleet
	MaxPerSite  int      `json:"max_in_flight_per_site"`
	RetriesMax  int      `json:"retries_per_minute"`
	Error       string   `json:"error"`
	Facts       struct {
		Hostname string `json:"hostname"`
	} `json:"facts"` // of a report
}

// gist reads them; data of another shape has none.
func gist(e event.Event) eventGist {
	var g eventGist
	if json.Unmarshal(e.Data(), &g) != nil {
		return eventGist{}
	}
	return g
}

// account is which account an event is about, what for, and what came of it; nil of other events.
func (g eventGist) account() []field {
	if g.Account == "" && g.Purpose == "" {
		return nil
	}
	return []field{{"as", strings.ReplaceAll(g.Identity, "-", " ")}, {"account", g.Account}, {"secret", g.secretVersion()}, {"kind", g.Kind}, {"user", g.User}, {"elevated to", g.ElevatedTo}, {"to", g.Purpose}, {"resource", shownResource(g.Resource).text},
		{"resources", strings.Join(collect(g.Resources, shownPattern), ", ")}, {"collections", strings.Join(g.Collections, ", ")}, {"domain", g.Domain}, {"method", g.Method},
		{"program", g.Program}, {"means", g.Means}, {"job", jobCell(g.Job).text}}
}

// secretVersion is which secret an account has got, where it is not the first: that is how a rotation is known.
func (g eventGist) secretVersion() string {
	if n, ok := g.Version.(float64); ok && n > 1 && g.Purpose == "" && g.Job == "" {
		return fmt.Sprintf("version %.0f", n)
	}
	return ""
}

// audited is what somebody asked of a service, and what came of it; nil of other events.
func (g eventGist) audited() []field {
	if g.Verb == "" {
		return nil
	}
	outcome := g.Result
	if g.Error != "" {
		outcome += " (" + g.Error + ")"
	}
	return []field{{"asked", strings.TrimPrefix(g.Service+"."+g.Verb, ".")}, {"about", g.About}, {"outcome", outcome}}
}

// rollout is where a rollout stands, what its gates may wait for, and what bounds it; nil of other events.
func (g eventGist) rollout() (fields []field) {
	if phase, _ := g.Phase.(string); phase != "" {
		fields = append(fields, field{"phase", phase})
		if g.Size > 0 {
			fields = append(fields, field{"of", plural(g.Size, "machine", "machines")})
		}
	}
	if g.Type != "" && g.Subject != "" {
		fields = append(fields, field{"signal", g.Type}, field{"about", g.Subject}, field{"saying", g.Text})
	}
	fields = append(fields, field{"taken back by", g.Rolls}, field{"first", g.Step})
	for _, bound := range []struct {
		what string
		n    int
	}{{"in flight at most", g.MaxInFlight}, {"on each site at most", g.MaxPerSite}, {"retries a minute at most", g.RetriesMax}} {
		if bound.n > 0 {
			fields = append(fields, field{bound.what, count(bound.n)})
		}
	}
	return fields
}

// shownPattern shows what an account may be used for as people write it.
func shownPattern(pattern string) string {
	rest, all := strings.CutSuffix(pattern, "/*")
	shown := resource.Shown(rest)
	switch {
	case !all:
		return shown
	case strings.HasPrefix(shown, `\\`):
		return shown + `\*`
	}
	return shown + "/*"
}

// answer of a resource to an account; a status says it in its explanation.
func (g eventGist) answer() string {
	if g.Explanation != "" {
		return ""
	}
	return g.Answer
}

func (g eventGist) text() string {
	var parts []string
	version, _ := g.Version.(string)
	for _, f := range slices.Concat(g.audited(), g.account(), g.rollout(), []field{{"deployment", g.Deployment}, {"package", strings.TrimSuffix(g.Package+"@"+version, "@")}, {"host", cmp.Or(g.Host, g.Hostname, g.Facts.Hostname)}, {"reason", g.Reason}, {"answer", g.answer()},
		{"waiting for", g.WaitingFor}, {"by", g.By}, {"why", g.Why}}) {
		if f.value != "" && f.value != "@" {
			parts = append(parts, fmt.Sprintf("%s %s", f.name, f.value))
		}
	}
	if g.Explanation != "" {
		parts = append(parts, readable(g.Explanation))
	}
	return strings.Join(parts, " · ")
}
