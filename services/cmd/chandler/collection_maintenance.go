package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/services/declared"
)

// windowFlags are those of collection windows, as typed.
type windowFlags struct {
	set, agent, zone string
	add              []string
	clear            bool
	next             int
}

func collectionWindows(a *app) *cobra.Command {
	var f windowFlags
	cmd := &cobra.Command{
		Use: "windows NAME", Short: "Show or change a collection's maintenance windows", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeCollections),
		Long: `Shows the maintenance windows of a collection and when they open next. Machines of the collection start programs
within them alone; those of several collections count together. An order holds the windows there were when it was
signed: deployment resign takes over changed ones.

A window is written as in documents:
  {weekly: [sat, sun], at: "02:00", for: 4h, zone: agent}       each machine's own time; zone: UTC, or Europe/Oslo
  {daily: 1, at: "02:00", for: 3h}   {monthly: last, at: "02:00", for: 4h}   {once: 2026-12-01T22:00, for: 4h}
  {nth: 2 tue, plus: 3, at: "22:00", for: 6h}                   the second Tuesday of the month plus three days`,
		Example: `  chandler collection windows office --next 5 --zone Europe/Oslo
  chandler collection windows office --add '{weekly: [sat], at: "02:00", for: 4h, zone: agent}'`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error { return a.windows(cmd, c, args[0], f) }),
	}
	cmd.Flags().StringVar(&f.set, "set", "", "replace them by those of a file: windows: as a collection's document has them; -: standard input")
	cmd.Flags().StringArrayVar(&f.add, "add", nil, "add a window")
	cmd.Flags().BoolVar(&f.clear, "clear", false, "remove all of them")
	cmd.Flags().IntVar(&f.next, "next", 5, "how many openings to show")
	cmd.Flags().StringVar(&f.agent, "agent", "", "show the openings on this machine: its own zone, and the windows of all its collections")
	cmd.Flags().StringVar(&f.zone, "zone", "", "show the openings of machines in this zone (default: UTC)")
	cmd.MarkFlagsMutuallyExclusive("set", "add", "clear")
	cmd.MarkFlagsMutuallyExclusive("agent", "zone")
	a.completeFlag(cmd, "agent", completeAgents)
	return cmd
}

// windowsView is what collection windows tells.
type windowsView struct {
	Collection string            `json:"collection"`
	Windows    []calendar.Window `json:"windows"`
	Zone       string            `json:"zone"` // of the machine whose openings these are
	Openings   []openingView     `json:"openings"`
}

type openingView struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

func (a *app) windows(cmd *cobra.Command, c *client, name string, f windowFlags) error {
	if f.next < 0 || f.next > 1000 {
		return fmt.Errorf("--next %d: between 0 and 1,000", f.next)
	}
	view, err := ask(cmd.Context(), c, events.CollectionShow, events.Named{Name: name})
	if err != nil {
		return err
	}
	if f.set != "" || len(f.add) > 0 || f.clear {
		if view, err = a.setWindows(cmd, c, view, f); err != nil {
			return err
		}
	}
	shown, zone, err := machineWindows(cmd.Context(), c, view, f)
	if err != nil {
		return err
	}
	told := windowsView{Collection: name, Windows: view.Windows, Zone: zone.String(), Openings: []openingView{}}
	for _, s := range calendar.Openings(shown, zone, a.now(), f.next) {
		told.Openings = append(told.Openings, openingView{s.From, s.To})
	}
	fields := []field{{"Collection", name}}
	for _, w := range view.Windows {
		fields = append(fields, field{cmp.Or(w.Name, "Window"), w.String()})
	}
	if len(view.Windows) == 0 {
		fields = append(fields, field{"Windows", "none: its machines start programs at any time"})
	}
	for _, o := range told.Openings {
		fields = append(fields, field{"Open in " + zone.String(), o.From.In(zone).Format("Mon 2006-01-02 15:04 MST") + " to " + o.To.In(zone).Format("15:04 MST")})
	}
	return writeDetail(cmd.OutOrStdout(), a.output, told, name, fields)
}

// machineWindows are the windows whose openings are shown, and the zone of the machine: of one that was named, those of
// all its collections.
func machineWindows(ctx context.Context, c *client, view events.CollectionView, f windowFlags) ([]calendar.Window, *time.Location, error) {
	if f.agent == "" {
		zone := calendar.Zone(f.zone)
		if zone == calendar.ZoneAgent {
			return nil, nil, errors.New("--zone agent: whose? Say --agent NAME")
		}
		return view.Windows, zone.Location(nil), zone.Validate()
	}
	agent, err := resolveAgent(ctx, c, f.agent)
	if err != nil {
		return nil, nil, err
	}
	zone, err := time.LoadLocation(agent.Facts.Zone)
	if err != nil {
		zone = time.UTC
	}
	all, err := ask(ctx, c, events.CollectionList, events.Nothing{})
	if err != nil {
		return nil, nil, err
	}
	var windows []calendar.Window
	for _, v := range all.Collections {
		for _, member := range v.Members {
			if member == agent.Facts.ID {
				windows = append(windows, v.Windows...)
			}
		}
	}
	return windows, zone, nil
}

// windowLines are maintenance windows in words, one a line.
func windowLines(windows []calendar.Window) string {
	lines := make([]string, len(windows))
	for i, w := range windows {
		lines[i] = w.String()
	}
	return strings.Join(lines, "\n")
}

func (a *app) setWindows(cmd *cobra.Command, c *client, view events.CollectionView, f windowFlags) (events.CollectionView, error) {
	wanted := view.Collection
	switch {
	case f.clear:
		wanted.Windows = nil
	case f.set != "":
		data, err := readDeclared(cmd.InOrStdin(), f.set)
		if err != nil {
			return view, err
		}
		if wanted.Windows, err = declared.ParseWindows(f.set, data); err != nil {
			return view, err
		}
	default:
		for _, text := range f.add {
			w, err := declared.ParseWindow("--add", text)
			if err != nil {
				return view, err
			}
			wanted.Windows = append(wanted.Windows, w)
		}
	}
	tellPastWindows(cmd.ErrOrStderr(), wanted.Name, wanted.Windows, a.now())
	set, err := ask(cmd.Context(), c, events.CollectionSet, wanted)
	if err != nil {
		return view, err
	}
	if len(set.OutdatedWindows) > 0 {
		note(cmd.ErrOrStderr(), "These deployments keep the maintenance windows that were signed with them: %s. `%s deployment resign` takes over the changed ones.", joined(set.OutdatedWindows), a.self)
	}
	return set, nil
}
