package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/target"
)

// freezeScope is what the flags of freeze and unfreeze name.
type freezeScope struct {
	fleet            bool
	collection, site string
}

func (s *freezeScope) add(a *app, cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.fleet, "fleet", false, "every machine")
	cmd.Flags().StringVar(&s.collection, "collection", "", "the machines of this collection")
	cmd.Flags().StringVar(&s.site, "site", "", "the machines of this site")
	a.completeFlag(cmd, "collection", completeCollections)
	a.completeFlag(cmd, "site", completeSites)
}

// freeze gives the scope with its id: "fleet", "collection-<name>" or "site-<name>". Exactly one must be
// meant: an empty variable in a script must not reach the whole fleet.
func (s *freezeScope) freeze() (events.Freeze, error) {
	var f events.Freeze
	given := 0
	for _, scope := range []struct {
		given      bool
		kind, name string
	}{{s.fleet, "fleet", ""}, {s.collection != "", "collection", s.collection}, {s.site != "", "site", s.site}} {
		if scope.given {
			given++
			f = events.Freeze{ID: strings.TrimSuffix(scope.kind+"-"+scope.name, "-"), Scope: scope.kind, Name: scope.name}
		}
	}
	if given != 1 {
		return f, errors.New("say what is meant by exactly one of --fleet, --collection NAME and --site NAME")
	}
	if err := events.ValidToken(f.ID); err != nil {
		return f, fmt.Errorf("--%s: %w", f.Scope, err)
	}
	return f, nil
}

// frozen is what freeze prints with -o json.
type frozen struct {
	events.Freeze
	Machines *int `json:"machines,omitempty"` // that it holds now; absent where scheduling does not answer
}

func newFreeze(a *app) *cobra.Command {
	var scope freezeScope
	var why string
	var yes bool
	cmd := &cobra.Command{
		Use: "freeze --fleet | --collection NAME | --site NAME", Short: "Start no programs: in the fleet, a collection or a site", Args: cobra.NoArgs,
		Long: `No program is started in the scope until the freeze is lifted; what runs goes on. A freeze needs no
signature, and holds on every machine that hears of it. Freezing the whole fleet asks first.`,
		Example: `  chandler freeze --site oslo --why 'stocktaking until noon'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := scope.freeze()
			if err != nil {
				return fmt.Errorf("%w; see `chandler freeze --help`", err)
			}
			f.Why = why
			if err := a.confirmFleet(cmd, f, yes); err != nil {
				return err
			}
			return a.connected(func(cmd *cobra.Command, c *client, _ []string) error { return a.freeze(cmd, c, f) })(cmd, args)
		},
	}
	scope.add(a, cmd)
	cmd.Flags().StringVar(&why, "why", "", "why, shown to whoever asks what a machine waits for")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask, also for the whole fleet")
	cmd.AddCommand(freezeList(a))
	return cmd
}

// confirmFleet asks before the whole fleet is frozen.
func (a *app) confirmFleet(cmd *cobra.Command, f events.Freeze, yes bool) error {
	if yes || f.Scope != "fleet" {
		return nil
	}
	if !a.interactive(cmd) {
		return errors.New("this holds every machine of the fleet: say --yes if that is meant")
	}
	fmt.Fprint(cmd.ErrOrStderr(), "No machine of the fleet will start a program until this is lifted. Type fleet to go on: ")
	typed, err := readLine(cmd.InOrStdin())
	if err != nil {
		return err
	}
	if typed != "fleet" {
		return errors.New(`"fleet" was not typed: nothing was frozen`)
	}
	return nil
}

func (a *app) freeze(cmd *cobra.Command, c *client, f events.Freeze) error {
	var err error
	if f.Collection, err = frozenCollection(cmd.Context(), c, f); err != nil {
		return err
	}
	set, err := ask(cmd.Context(), c, events.ExecutionFreeze, f)
	if err != nil {
		return err
	}
	said := frozen{Freeze: set}
	holds := "how many machines it holds is not known, since scheduling does not answer"
	if machines, err := frozenMachines(cmd.Context(), c, set); err == nil {
		said.Machines = &machines
		holds = "it holds " + plural(machines, "machine", "machines") + " now"
		if machines == 0 {
			holds = "it holds no machine now, and will hold those that come into it"
		}
	}
	return a.answer(cmd, said, set.ID, "%s is frozen: %s; lift it with: %s", scopeText(set), holds, a.unfreezeCommand(set))
}

// frozenMachines counts the machines that a freeze holds.
func frozenMachines(ctx context.Context, c *client, f events.Freeze) (n int, err error) {
	all, err := ask(ctx, c, events.AgentList, events.AgentQuery{})
	for _, v := range all.Agents {
		if target.Holds(f, v.Facts) {
			n++
		}
	}
	return n, err
}

// frozenCollection is the definition that goes with the freeze: agents evaluate it themselves. While
// scheduling is away, execution takes the one that it heard of last.
func frozenCollection(ctx context.Context, c *client, f events.Freeze) (*events.Collection, error) {
	if f.Scope != "collection" {
		return nil, nil
	}
	view, err := ask(ctx, c, events.CollectionShow, events.Named{Name: f.Name})
	if errors.Is(err, bus.ErrUnavailable) {
		return nil, nil
	}
	return &view.Collection, err
}

func newUnfreeze(a *app) *cobra.Command {
	var scope freezeScope
	cmd := &cobra.Command{
		Use: "unfreeze --fleet | --collection NAME | --site NAME", Short: "Lift a freeze", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := scope.freeze()
			if err != nil {
				return fmt.Errorf("%w; `chandler freeze ls` lists what is frozen", err)
			}
			return a.connected(func(cmd *cobra.Command, c *client, _ []string) error { return a.unfreeze(cmd, c, f) })(cmd, args)
		},
	}
	scope.add(a, cmd)
	return cmd
}

func (a *app) unfreeze(cmd *cobra.Command, c *client, f events.Freeze) error {
	lifted, err := ask(cmd.Context(), c, events.ExecutionUnfreeze, events.Named{Name: f.ID})
	if errors.Is(err, bus.ErrNotFound) {
		return a.notFrozen(cmd.Context(), c, f)
	}
	if err != nil {
		return err
	}
	return a.answer(cmd, lifted, lifted.ID, "%s is no longer frozen", scopeText(lifted))
}

// notFrozen says what is frozen instead.
func (a *app) notFrozen(ctx context.Context, c *client, f events.Freeze) error {
	all, err := ask(ctx, c, events.ExecutionFreezes, events.Nothing{})
	if err != nil {
		return err
	}
	if len(all.Freezes) == 0 {
		return fmt.Errorf("%s is not frozen, and nothing else is", scopeText(f))
	}
	var commands []string
	for _, there := range all.Freezes {
		commands = append(commands, a.unfreezeCommand(there))
	}
	slices.Sort(commands)
	return fmt.Errorf("%s is not frozen; what is frozen is lifted with: %s", scopeText(f), strings.Join(commands, ", "))
}

func scopeText(f events.Freeze) string {
	if f.Scope == "fleet" {
		return "the fleet"
	}
	return f.Scope + " " + f.Name
}

func (a *app) unfreezeCommand(f events.Freeze) string {
	if f.Scope == "deployment" { // a gate halted its rollout
		return a.self + " deployment resume " + f.Name
	}
	return strings.TrimSuffix(a.self+" unfreeze --"+f.Scope+" "+f.Name, " ")
}

func freezeList(a *app) *cobra.Command {
	type v = events.Freeze
	columns := listing[v]{
		name: func(r v) string { return r.ID },
		columns: []column[v]{
			{"ID", false, func(r v) any { return r.ID }},
			{"SCOPE", false, func(r v) any { return scopeText(r) }},
			{"SINCE", false, func(r v) any { return a.timeCell(r.At) }},
			{"BY", false, func(r v) any { return r.By }},
			{"WHY", false, func(r v) any { return r.Why }},
		},
	}
	return &cobra.Command{
		Use: "ls", Short: "List what is frozen", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := ask(cmd.Context(), c, events.ExecutionFreezes, events.Nothing{})
			if err != nil {
				return err
			}
			return columns.show(cmd, a.output, all.Freezes)
		}),
	}
}
