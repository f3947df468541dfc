package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/rollout"
	"chandler/events/timing"
)

// writeOrder shows what would be signed.
func (a *app) writeOrder(cmd *cobra.Command, p proposal) error {
	o := p.order
	fields := []field{
		{"Deployment", o.Deployment}, {"Revision", o.Revision}, {"Fleet", o.Fleet}, {"Program", fmt.Sprintf("%s@%s/%s", o.Package, o.Version, o.Program)},
		{"Manifest", o.Manifest}, {"Run", o.Run}, {"Installation account", o.InstallationAccount}, {"May be helped to read", resourceList(o.Resources)}, {"Collection", o.Collection}, {"Target", o.Expression}, {"Included agents", o.IncludeDigest},
		{"Excluded agents", o.ExcludeDigest},
	}
	fields = append(fields, a.whenFields(o)...)
	fields = append(fields, field{"Next", strings.Join(a.nextStarts(o, time.UTC, shownStarts), "\n")})
	fields = append(fields, field{"Valid until", a.longTime(o.NotAfter)}, field{"Phases", planText(p.plan)}, field{"Taken back by", rollbackText(p.rollback)})
	return writeDetail(cmd.OutOrStdout(), a.output, o, o.Deployment, fields)
}

// whenFields say in words when an order's program runs, what before it, and what it heeds.
func (a *app) whenFields(o order.Order) []field {
	fields := []field{
		{"Available", a.moment(o.Available, o.Zone)}, {"Starts", a.starts(o)}, {"Expires", a.moment(o.Expires, o.Zone)},
		{"Grace", spanText(o.Grace)}, {"Jitter", spanText(o.Jitter)}, {"Rerun", o.Rerun},
		{"Runs first", stepsText(o.First)}, {"Maintenance windows", windowsText(o)},
	}
	if o.Rolls != nil {
		fields = append(fields, field{"Takes back", fmt.Sprintf("%s@%s/%s of deployment %s, where revision %d of it ran", o.Rolls.Package, o.Rolls.Version, o.Rolls.Program, o.Rolls.Deployment, o.Rolls.Revision)})
	}
	return fields
}

// starts is when an order's program starts, in words.
func (a *app) starts(o order.Order) string {
	if len(o.Assignments) == 0 {
		return "when somebody at the machine asks for it"
	}
	var lines []string
	for _, s := range o.Assignments {
		switch {
		case s.At != nil:
			lines = append(lines, a.moment(s.At, o.Zone))
		case s.Cron != "":
			lines = append(lines, "by cron "+s.Cron+", "+zoneText(o.Zone))
		default:
			lines = append(lines, s.String())
		}
	}
	return strings.Join(lines, "\n")
}

func zoneText(z calendar.Zone) string {
	switch z {
	case calendar.ZoneAgent:
		return "each machine's own time"
	case "":
		return "UTC"
	}
	return string(z) + " time"
}

func spanText(d events.Duration) string {
	if d == 0 {
		return ""
	}
	return calendar.Duration(d).String()
}

// stepsText lists what runs before a program, in its order, one a line.
func stepsText(steps []order.Step) string {
	var lines []string
	for _, s := range steps {
		text := fmt.Sprintf("%s@%s/%s (run %s)", s.Package, s.Version, s.Program, s.Run)
		switch {
		case s.Why == order.StepUninstall:
			text += ", which removes what is superseded"
		case s.Always:
			text += ", also where it succeeded before"
		}
		lines = append(lines, text)
	}
	return strings.Join(lines, "\n")
}

// windowsText lists the maintenance windows that an order holds, one a line.
func windowsText(o order.Order) string {
	var lines []string
	for _, w := range o.Windows {
		for _, one := range w.Windows {
			lines = append(lines, w.Collection+": "+one.String())
		}
	}
	if len(lines) > 0 && o.IgnoreWindows {
		lines = append(lines, "the program ignores them")
	}
	if len(lines) > 0 && o.RestartOutside {
		lines = append(lines, "restarts ignore them")
	}
	return strings.Join(lines, "\n")
}

// planText lists the phases of a plan and its limits, one a line.
func planText(p *events.Plan) string {
	if p == nil {
		return ""
	}
	var lines []string
	for _, phase := range p.Phases {
		lines = append(lines, phaseText(phase))
	}
	if p.MaxInFlight > 0 {
		lines = append(lines, "at most "+plural(p.MaxInFlight, "job", "jobs")+" in flight")
	}
	if p.MaxInFlightPerSite > 0 {
		lines = append(lines, "at most "+plural(p.MaxInFlightPerSite, "job", "jobs")+" in flight on each site")
	}
	if p.OnHalt == events.OnHaltRollback {
		lines = append(lines, "a bad gate rolls it back")
	}
	return strings.Join(lines, "\n")
}

func phaseText(p events.Phase) string {
	parts := []string{p.Name + ": " + shareText(p)}
	if p.MaxInFlight > 0 {
		parts = append(parts, "at most "+count(p.MaxInFlight)+" in flight")
	}
	if gate := advanceText(p.AdvanceWhen); gate != "" {
		parts = append(parts, "goes on with "+gate)
	}
	if p.HaltWhen != nil && p.HaltWhen.Failed != nil {
		parts = append(parts, "halts at "+p.HaltWhen.Failed.String()+" failed")
	}
	if p.HaltWhen != nil && p.HaltWhen.Silent != nil {
		parts = append(parts, fmt.Sprintf("halts at %s silent for %s", p.HaltWhen.Silent.Share, calendar.Duration(p.HaltWhen.Silent.After)))
	}
	return strings.Join(parts, "; ")
}

func shareText(p events.Phase) string {
	switch {
	case p.Collection != "":
		return "collection " + p.Collection
	case p.Count > 0:
		return plural(p.Count, "machine", "machines")
	}
	return events.Limit{Percent: p.Percent}.String()
}

func advanceText(a *events.Advance) string {
	if a == nil {
		return ""
	}
	var parts []string
	if a.Succeeded != nil {
		parts = append(parts, a.Succeeded.String()+" succeeded")
	}
	if a.For > 0 {
		parts = append(parts, "for "+calendar.Duration(a.For).String())
	}
	if a.Approval {
		parts = append(parts, "somebody's approval")
	}
	if a.Event != nil {
		parts = append(parts, fmt.Sprintf("the event %s about %s", a.Event.Type, a.Event.Subject))
	}
	return strings.Join(parts, ", ")
}

// reach is how many machines a phase adds to those before it.
type reach struct {
	Phase    string `json:"phase"`
	Machines int    `json:"machines"`
}

// reached counts the machines of each phase as scheduling would draw them now.
func (l *lookups) reached(ctx context.Context, p proposal, agents []events.AgentView, now time.Time) ([]reach, error) {
	target, err := p.order.Target(p.collection.Include, p.collection.Exclude)
	if err != nil {
		return nil, err
	}
	left := map[string]events.AgentView{}
	for _, v := range agents {
		if in, err := target.Matches(v.Facts); err == nil && in {
			left[v.Facts.ID] = v
		}
	}
	var all []float64 // places of those that may be drawn
	for id, v := range left {
		if now.Sub(v.LastSeen) <= rollout.Seen {
			all = append(all, timing.Place(p.order.Deployment, id))
		}
	}
	var hit []reach
	for i, phase := range p.plan.Phases {
		in, err := l.inPhase(ctx, p, phase, all)
		if err != nil {
			return nil, err
		}
		last := i == len(p.plan.Phases)-1
		n := 0
		for id, v := range left {
			if (last || now.Sub(v.LastSeen) <= rollout.Seen) && in(id) {
				n++
				delete(left, id)
			}
		}
		hit = append(hit, reach{phase.Name, n})
	}
	return hit, nil
}

// inPhase says who is in a phase and in those before it.
func (l *lookups) inPhase(ctx context.Context, p proposal, phase events.Phase, places []float64) (func(id string) bool, error) {
	if phase.Collection != "" {
		v, err := l.collection(ctx, phase.Collection)
		members := make(map[string]bool, len(v.Members))
		for _, id := range v.Members {
			members[id] = true
		}
		return func(id string) bool { return members[id] }, err
	}
	cut := rollout.Cut(phase, places)
	return func(id string) bool { return timing.Place(p.order.Deployment, id) <= cut }, nil
}

// tellReach says how many machines each phase hits, and on how many the program would never fit a maintenance window.
func (a *app) tellReach(ctx context.Context, w io.Writer, l *lookups, p proposal) error {
	phased := p.plan != nil && len(p.plan.Phases) > 0
	windowed := heedsWindows(p.order)
	if !phased && !windowed {
		return nil
	}
	found, err := ask(ctx, l.c, events.AgentList, events.AgentQuery{})
	if err != nil {
		return err
	}
	if phased {
		hit, err := l.reached(ctx, p, found.Agents, a.now())
		if err != nil {
			return err
		}
		for i, h := range hit {
			note(w, "phase %s: %s now", phaseText(p.plan.Phases[i]), plural(h.Machines, "machine", "machines"))
		}
		tellLeftOut(w, p, hit)
	}
	if !windowed {
		return nil
	}
	return a.tellFit(ctx, w, l, p, found.Agents)
}
