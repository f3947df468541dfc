package main

import (
	"context"
	"reflect"
	"slices"

	"chandler/events"
	"chandler/events/order"
	"chandler/events/target"
)

// agents of the fleet, asked for once.
func (p *planner) agents(ctx context.Context) ([]events.AgentView, error) {
	if p.fleet == nil {
		found, err := ask(ctx, p.c, events.AgentList, events.AgentQuery{})
		if err != nil {
			return nil, err
		}
		p.fleet = found.Agents
	}
	return p.fleet, nil
}

// windowsThatMatter are the maintenance windows of a signed order and of the one that would take its place, without those
// of collections that have no member in common with the target now: they hold none of its machines. All are signed
// nevertheless, for machines that come to belong to both.
func (p *planner) windowsThatMatter(ctx context.Context, signed order.Order, wanted proposal) (before, after []order.Windows, err error) {
	if reflect.DeepEqual(signed.Windows, wanted.order.Windows) {
		return signed.Windows, wanted.order.Windows, nil
	}
	agents, err := p.agents(ctx)
	if err != nil {
		return nil, nil, err
	}
	members := make(map[string]bool, len(wanted.collection.Members))
	for _, id := range wanted.collection.Members {
		members[id] = true
	}
	var meant []events.Facts
	for _, a := range agents {
		if members[a.Facts.ID] {
			meant = append(meant, a.Facts)
		}
	}
	holding := func(all []order.Windows) []order.Windows {
		return slices.DeleteFunc(slices.Clone(all), func(w order.Windows) bool {
			return w.Collection != wanted.order.Collection && !holdsAny(w, meant)
		})
	}
	return holding(signed.Windows), holding(wanted.order.Windows), nil
}

// holdsAny says whether windows hold one of the machines, as these would find out: where it cannot be told, they do.
func holdsAny(w order.Windows, machines []events.Facts) bool {
	t, err := target.New(w.Expression, w.Include, w.Exclude)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(machines, func(f events.Facts) bool {
		member, err := t.Matches(f)
		return member || err != nil
	})
}
