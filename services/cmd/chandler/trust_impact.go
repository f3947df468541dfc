package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/manifest"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

// identityGrace is how long an agent may be away and still come back by itself.
const identityGrace = 90 * 24 * time.Hour

// impact is what a trust bundle would do.
type impact struct {
	Version    int                 `json:"version"`
	Changes    trust.Changes       `json:"changes"`
	LeftBehind []behindAgent       `json:"left_behind"` // agents that would not get it by themselves
	Refused    []refusedDeployment `json:"refused"`     // live deployments that agents would no longer obey
	// Done are the live deployments that agents would no longer obey, but which have ended wherever they were to run:
	// they are refused only where somebody comes into their target later.
	Done []string `json:"done,omitempty"`
}

// refusedDeployment is a live one that a bundle would make agents refuse.
type refusedDeployment struct {
	Deployment string `json:"deployment"`
	Why        string `json:"why"`
	Mend       string `json:"mend"` // what is to be done, and when
}

func (i impact) harmless() bool { return len(i.LeftBehind) == 0 && len(i.Refused) == 0 }

// weigh finds out what would follow if next took the place of present.
func (a *app) weigh(ctx context.Context, c *client, present, next trust.Bundle) (impact, error) {
	i := impact{Version: next.Version, Changes: trust.Difference(present, next), LeftBehind: []behindAgent{}, Refused: []refusedDeployment{}}
	if i.Changes.None() {
		return i, errors.New("nothing would change")
	}
	found, err := ask(ctx, c, events.AgentList, events.AgentQuery{})
	if err != nil {
		return i, err
	}
	i.LeftBehind = leftBehind(found.Agents, present, a.now())
	if !takesAway(i.Changes) {
		return i, nil
	}
	all, err := ask(ctx, c, events.DeploymentList, events.Nothing{})
	if err != nil {
		return i, err
	}
	for _, d := range all.Deployments {
		if !slices.Contains([]events.Life{events.LifePending, events.LifeActive, events.LifePaused}, d.Life) {
			continue
		}
		refused, err := a.refusals(ctx, c, d, present, next)
		if err != nil {
			return i, err
		}
		if len(refused) > 0 && hasEnded(ctx, c, d) {
			i.Done = append(i.Done, d.Deployment)
			continue
		}
		i.Refused = append(i.Refused, refused...)
	}
	return i, nil
}

// hasEnded says whether every job of a deployment has ended. What execution does not say has not.
func hasEnded(ctx context.Context, c *client, d events.DeploymentView) bool {
	p, err := ask(ctx, c, events.ExecutionProgress, events.Named{Name: d.Deployment})
	return err == nil && p.Revision == d.Revision && p.Total > 0 && p.Total >= int64(d.Members) && newTally(p).open == 0
}

// takesAway says whether something that is signed rightly now might not be any more.
func takesAway(c trust.Changes) bool {
	return len(c.Keys.Removed)+len(c.Publishers.Removed)+len(c.Revoked) > 0 || c.Threshold.To > c.Threshold.From || c.Pinned
}

// leftBehind lists the agents that will not get a bundle that follows the present one by themselves.
func leftBehind(all []events.AgentView, present trust.Bundle, now time.Time) []behindAgent {
	behind := []behindAgent{}
	for _, v := range all {
		why := ""
		switch {
		case v.Facts.Trust > present.Version:
			why = fmt.Sprintf("it holds version %d, and the service has %d only: send it the newer ones first", v.Facts.Trust, present.Version)
		case v.Facts.Trust < present.Version && now.Sub(v.LastSeen) > identityGrace:
			why = "it was away for longer than its identity can be renewed: approve it when it is back"
		default:
			continue
		}
		behind = append(behind, behindAgent{Agent: v.Facts.ID, Hostname: v.Facts.Hostname, Trust: v.Facts.Trust, LastSeen: v.LastSeen, Why: why})
	}
	return behind
}

// refusals says why agents with the next bundle would refuse a live deployment that they obey now: for its order,
// for its package, or for both.
func (a *app) refusals(ctx context.Context, c *client, d events.DeploymentView, present, next trust.Bundle) (all []refusedDeployment, err error) {
	signed, err := signedOrder(ctx, c, d)
	if errors.Is(err, errNoOrder) {
		return []refusedDeployment{{d.Deployment, "its signed order is not in EVENTS any more", fmt.Sprintf("before that, create it anew: %s deployment create %s --revise …", a.self, d.Deployment)}}, nil
	}
	if err != nil {
		return nil, err
	}
	if why := loses(func(b trust.Bundle) error { _, _, err := order.Verify(signed.Envelope, b, a.now()); return err }, present, next); why != "" {
		all = append(all, refusedDeployment{d.Deployment, why, a.resigning(d.Deployment, present, next)})
	}
	found, err := ask(ctx, c, events.ContentShow, events.Named{Name: d.Package, Version: d.Version})
	if errors.Is(err, bus.ErrNotFound) {
		return all, nil // there is nothing to run
	}
	if err != nil {
		return nil, err
	}
	if loose := manifest.Unpinned(found.Manifest.Programs[d.Program]); next.PinnedReferences && !present.PinnedReferences && len(loose) > 0 {
		all = append(all, refusedDeployment{d.Deployment, "its program refers to " + strings.Join(loose, ", ") + " without a sha256", fmt.Sprintf("before that, publish %s@%s under a new version that pins its references, and deploy that", d.Package, d.Version)})
	}
	if why := loses(func(b trust.Bundle) error { _, err := manifest.Verify(found.Envelope, b); return err }, present, next); why != "" {
		all = append(all, refusedDeployment{d.Deployment, why, fmt.Sprintf("before that, publish %s@%s under a new version with another publisher's key, and deploy that", d.Package, d.Version)})
	}
	return all, nil
}

// resigning says how a deployment is signed as the next bundle asks for. As long as fewer signatures are enough,
// further ones cannot be gathered: with the first ones the order is released.
func (a *app) resigning(deployment string, present, next trust.Bundle) string {
	when := "before that"
	if next.Threshold > present.Threshold {
		when = "right after that"
	}
	if next.Threshold == 1 {
		return fmt.Sprintf("%s, sign it anew: %s deployment resign %s", when, a.self, deployment)
	}
	return fmt.Sprintf("%s, sign it anew: %s deployment resign %s --draft, and then each other deployer: %s deployment sign %s", when, a.self, deployment, a.self, deployment)
}

// loses says why something verifies with the present bundle and not with the next.
func loses(verify func(trust.Bundle) error, present, next trust.Bundle) string {
	if err := verify(present); err != nil {
		return ""
	}
	if refused, ok := errors.AsType[*sign.Refusal](verify(next)); ok {
		return refused.Text
	}
	return ""
}

func (a *app) tellImpact(w io.Writer, i impact) error {
	note(w, "trust bundle version %d:", i.Version)
	for _, line := range i.Changes.Lines() {
		note(w, "  %s", line)
	}
	if len(i.LeftBehind) > 0 {
		note(w, "%s would not get it by themselves:", plural(len(i.LeftBehind), "agent", "agents"))
		if err := a.behindColumns().write(w, formTable, i.LeftBehind); err != nil {
			return err
		}
	}
	for _, d := range i.Refused {
		note(w, "agents would refuse deployment %s: %s; %s", d.Deployment, d.Why, d.Mend)
	}
	for _, name := range i.Done {
		note(w, "deployment %s has ended on all its machines: only those that come into its target later would refuse it", name)
	}
	if i.harmless() {
		note(w, "No agent and no live deployment is left behind.")
	}
	return nil
}

// completeTrusted offers the names of deployers and publishers.
func completeTrusted(ctx context.Context, c *client) ([]string, error) {
	all, err := trustBundles(ctx, c, 0)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	b, err := trust.Open(all[len(all)-1])
	return collect(slices.Concat(b.Keys, b.Publishers), func(k sign.PublicKey) string { return k.Name + "\t" + k.ID()[:shownKey] }), err
}
