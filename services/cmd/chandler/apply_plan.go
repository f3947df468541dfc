package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
	"chandler/services/declared"
)

// planner finds out what apply does. Changes that are planned are put into its lookups, so that what follows is built as
// it will be.
type planner struct {
	*lookups
	app     *app
	cmd     *cobra.Command
	c       *client
	flags   applyFlags
	signing *signer // opened when something is to be signed, and kept
	fleet   []events.AgentView
	changes []change
}

// signer opens the key for the first change that needs it.
func (p *planner) signer(ctx context.Context) (signer, error) {
	if p.signing == nil {
		s, err := p.app.signer(ctx, p.c, p.flags.asked)
		if err != nil {
			return s, err
		}
		p.signing = &s
	}
	return *p.signing, nil
}

// collections to be set.
func (p *planner) collections(ctx context.Context, set declared.Set) error {
	if _, err := p.windows(ctx); err != nil { // that all are known
		return err
	}
	var problems []error
	for _, d := range set.Collections {
		if err := p.planCollection(ctx, d); err != nil {
			problems = append(problems, d.At("collection", d.Collection+": "+err.Error()))
		}
	}
	return errors.Join(problems...)
}

func (p *planner) planCollection(ctx context.Context, d declared.Collection) error {
	wanted, err := p.resolved(ctx, d)
	if err != nil {
		return err
	}
	there, found := p.lookups.collections[d.Collection]
	if there.Name != d.Collection {
		found = false
	}
	fields, err := differing(there.Collection, wanted, "name", "changed", "by")
	if err != nil || found && len(fields) == 0 {
		return err
	}
	view, err := ask(ctx, p.c, events.CollectionPreview, wanted)
	if err != nil {
		return err
	}
	tellPastWindows(p.cmd.ErrOrStderr(), wanted.Name, wanted.Windows, p.app.now())
	view.Name = wanted.Name
	view.Collection = wanted
	p.lookups.collections[wanted.Name] = view
	verb := verbChange
	if !found {
		verb = verbCreate
	}
	p.changes = append(p.changes, change{Verb: verb, Kind: "collection", Name: wanted.Name, Fields: fields, Says: plural(len(view.Members), "agent", "agents") + " now",
		do: func(ctx context.Context) (string, error) {
			set, err := ask(ctx, p.c, events.CollectionSet, wanted)
			return fmt.Sprintf("collection %s: %s", wanted.Name, plural(len(set.Members), "agent", "agents")), err
		}})
	return nil
}

// resolved is the collection with its agents by id.
func (p *planner) resolved(ctx context.Context, d declared.Collection) (c events.Collection, err error) {
	c = events.Collection{Name: d.Collection, Expression: strings.TrimSpace(d.Expression), Windows: d.Windows, Comment: d.Comment}
	there := p.lookups.collections[d.Collection]
	if c.Include, err = p.listed(ctx, d.Include, there.Include); err != nil {
		return c, fmt.Errorf("include: %w", err)
	}
	if c.Exclude, err = p.listed(ctx, d.Exclude, there.Exclude); err != nil {
		return c, fmt.Errorf("exclude: %w", err)
	}
	return c, nil
}

// listed are the ids of agents by name, sorted. One that the collection lists already may have been forgotten since.
func (p *planner) listed(ctx context.Context, names, there []string) (ids []string, err error) {
	var asked []string
	for _, name := range names {
		if slices.Contains(there, name) {
			ids = append(ids, name)
		} else {
			asked = append(asked, name)
		}
	}
	found, err := resolveAgents(ctx, p.c, asked)
	ids = append(ids, found...)
	slices.Sort(ids)
	return slices.Compact(ids), err
}

// deployments to be signed, or planned anew.
func (p *planner) deployments(ctx context.Context, set declared.Set) error {
	var problems []error
	for _, d := range set.Deployments {
		if err := p.planDeployment(ctx, d); err != nil {
			problems = append(problems, d.At("deployment", d.Deployment+": "+err.Error()))
		}
	}
	return errors.Join(problems...)
}

func (p *planner) planDeployment(ctx context.Context, d declared.Deployment) error {
	if err := checkPair(p.bundle, d.Rollback); err != nil {
		return err
	}
	wanted, err := p.propose(ctx, d, p.app.now())
	if err != nil {
		return err
	}
	there, err := p.live(ctx, d.Deployment)
	if err != nil {
		return err
	}
	signed, err := p.signedDiffers(ctx, there, wanted)
	if err != nil {
		return err
	}
	var before, after events.Plan
	if there.plan != nil {
		before = *there.plan
	}
	if wanted.plan != nil {
		after = *wanted.plan
	}
	if len(signed) == 0 {
		p.keepOpen(d.Deployment, there, &after)
	}
	planned, err := differing(before, after)
	if err != nil {
		return err
	}
	ended, differs := there.ended(), slices.Concat(signed, planned)
	switch {
	case ended != "" && p.flags.again:
		return p.planSigned(ctx, d, there, wanted, differs)
	case ended != "" && len(differs) > 0:
		p.changes = append(p.changes, change{Verb: verbRefuse, Kind: "deployment", Name: d.Deployment, Fields: differs, Says: ended + ": say --again, or remove it from the files"})
	case ended != "":
		note(p.cmd.ErrOrStderr(), "WARNING: deployment %s %s and stays so: say --again, or remove it from the files", d.Deployment, ended)
	case there.revision > 0 && len(signed) == 0 && there.over():
		note(p.cmd.ErrOrStderr(), "deployment %s is %s and stays so: `%s deployment create --revise -f FILE` begins it anew, and so does a change of what is signed", d.Deployment, there.life, p.app.self)
	case there.revision == 0 || len(signed) > 0:
		return p.planSigned(ctx, d, there, wanted, differs)
	case len(planned) > 0:
		p.changes = append(p.changes, change{Verb: verbChange, Kind: "deployment", Name: d.Deployment, Fields: planned, Says: "its plan alone; nothing is signed", do: func(ctx context.Context) (string, error) {
			_, err := ask(ctx, p.c, events.DeploymentPlan, events.PlanRequest{Deployment: d.Deployment, Plan: after})
			return fmt.Sprintf("deployment %s has another plan", d.Deployment), err
		}})
	}
	return nil
}

// keepOpen makes the phases that are open what they were, as scheduling will: how a phase opened is not changed any more.
// A next revision begins with its first phase.
func (p *planner) keepOpen(name string, there standing, wanted *events.Plan) {
	if there.plan == nil || there.open < 0 {
		return
	}
	wanted.Phases = slices.Clone(wanted.Phases)
	for i := range min(there.open+1, len(wanted.Phases), len(there.plan.Phases)) {
		was := there.plan.Phases[i]
		if fields, err := differing(was, wanted.Phases[i]); err != nil || len(fields) == 0 || was.Name != wanted.Phases[i].Name {
			continue
		}
		note(p.cmd.ErrOrStderr(), "deployment %s: phase %s is open and stays as it was", name, was.Name)
		wanted.Phases[i] = was
	}
}

// standing is a deployment as it is.
type standing struct {
	revision uint64 // 0: there is none
	open     int    // the newest open phase; -1: none
	life     events.Life
	order    order.Order
	plan     *events.Plan
	back     string // the program signed to take it back: package@version/program
	taken    bool   // back
	rollback string // the deployment that takes it back
}

// over says that nothing of it starts any more.
func (s standing) over() bool { return s.life == events.LifeStopped || s.life == events.LifeExpired }

// ended says in words how somebody, or a gate, ended it before its time; "": nobody did.
func (s standing) ended() string {
	switch {
	case s.taken:
		return "was taken back by " + s.rollback
	case s.life == events.LifeStopped:
		return "was stopped"
	}
	return ""
}

// live reads what is there: the newest draft, else the deployment.
func (p *planner) live(ctx context.Context, name string) (s standing, err error) {
	draft, err := known(ask(ctx, p.c, events.DeploymentDraft, events.Named{Name: name}))
	if err != nil {
		return s, err
	}
	view, err := known(ask(ctx, p.c, events.DeploymentShow, events.Named{Name: name}))
	if err != nil {
		return s, err
	}
	s = standing{revision: view.Revision, open: openPhase(view), life: view.Life, plan: view.Plan, back: view.RollbackTo, taken: view.RolledBack, rollback: view.Rollback}
	envelope := draft.Envelope
	if draft.Revision > view.Revision || view.Life == events.LifeDraft {
		// Whoever drafted it decided anew: what became of the revision before does not matter.
		s.revision, s.plan, s.back, s.taken, s.life = draft.Revision, draft.Plan, draft.RollbackTo, false, events.LifeDraft
	} else if s.revision > 0 {
		found, err := signedOrder(ctx, p.c, view)
		if errors.Is(err, errNoOrder) {
			return s, nil // what was signed is not known any more: it differs
		}
		if err != nil {
			return s, err
		}
		envelope = found.Envelope
	}
	if s.revision > 0 {
		s.order, _, err = order.Open(envelope)
	}
	return s, err
}

// signedDiffers compares what is signed: all but the revision and when, and of maintenance windows those that hold a
// machine of the target.
func (p *planner) signedDiffers(ctx context.Context, there standing, wanted proposal) ([]fieldChange, error) {
	before, after := there.order, wanted.order
	if there.revision > 0 {
		var err error
		if before.Windows, after.Windows, err = p.windowsThatMatter(ctx, there.order, wanted); err != nil {
			return nil, err
		}
	}
	fields, err := differing(before, after, "revision", "issued", "not_after")
	if err != nil || there.revision == 0 {
		return fields, err
	}
	if was, is := there.order.NotAfter.Sub(there.order.Issued), wanted.order.NotAfter.Sub(wanted.order.Issued); was != is {
		fields = append(fields, fieldChange{"validity", was.String(), is.String()})
	}
	back := ""
	if o := wanted.rollback; o != nil {
		back = declared.Reference{Package: o.Package, Version: o.Version, Program: o.Program}.String()
	}
	if there.back != back {
		fields = append(fields, fieldChange{"rollback", there.back, back})
	}
	return fields, nil
}

// planSigned adds the change that signs a deployment.
func (p *planner) planSigned(ctx context.Context, d declared.Deployment, there standing, wanted proposal, fields []fieldChange) error {
	if there.revision == 0 {
		// What is over would be refused by everybody.
		if e := wanted.order.Expires; e != nil && !e.Latest().After(wanted.order.Issued) {
			return fmt.Errorf("expires lies in the past (%s): nothing would ever start", e)
		}
	}
	verb, says := verbCreate, plural(len(wanted.collection.Members), "machine", "machines")+" now"
	if there.revision > 0 {
		verb, says = verbChange, fmt.Sprintf("revision %d is replaced; %s", there.revision, says)
	}
	made := change{Verb: verb, Kind: "deployment", Name: d.Deployment, Fields: fields, Says: says, machines: len(wanted.collection.Members)}
	agents, err := p.agents(ctx)
	if err != nil {
		return err
	}
	if wanted.plan != nil && len(wanted.plan.Phases) > 0 {
		if made.Reach, err = p.reached(ctx, wanted, agents, p.app.now()); err != nil {
			return err
		}
		tellLeftOut(p.cmd.ErrOrStderr(), wanted, made.Reach)
	}
	tellDoubts(p.cmd.ErrOrStderr(), wanted.order)
	if heedsWindows(wanted.order) {
		if err := p.app.tellFit(ctx, p.cmd.ErrOrStderr(), p.lookups, wanted, agents); err != nil {
			return err
		}
	}
	made.do = func(ctx context.Context) (string, error) { return p.sign(ctx, d) }
	p.changes = append(p.changes, made)
	return nil
}

// sign builds the order again, from what packages and collections have become, and sends it.
func (p *planner) sign(ctx context.Context, d declared.Deployment) (string, error) {
	s, err := p.signer(ctx)
	if err != nil {
		return "", err
	}
	if err := errors.Join(p.c.may(events.DeploymentCreate.CallDeclaration), s.mayDeploy(), checkPair(s.trust, d.Rollback)); err != nil {
		return "", err
	}
	wanted, err := newLookups(p.c, s.trust).propose(ctx, d, p.app.now().UTC().Truncate(time.Second))
	if err != nil {
		return "", err
	}
	revision, err := p.app.nextRevision(ctx, p.c, s, d.Deployment, true)
	if err != nil {
		return "", err
	}
	if err := p.app.revise(ctx, p.c, s, &wanted, revision); err != nil {
		return "", err
	}
	view, err := sendOrder(ctx, p.c, s, wanted, s.trust.Threshold > 1)
	if err != nil {
		return "", err
	}
	if view.Life == events.LifeDraft {
		return fmt.Sprintf("deployment %s, revision %d, is a draft: others sign it with %s deployment sign %s", d.Deployment, revision, p.app.self, d.Deployment), nil
	}
	return fmt.Sprintf("deployment %s, revision %d, is %s", d.Deployment, revision, view.Life), nil
}

// prune removes what is there and not declared, of the kinds of which something is.
func (p *planner) prune(ctx context.Context, set declared.Set) error {
	if len(set.Deployments) > 0 {
		all, err := ask(ctx, p.c, events.DeploymentList, events.Nothing{})
		if err != nil {
			return err
		}
		declaredNames := collect(set.Deployments, func(d declared.Deployment) string { return d.Deployment })
		for _, d := range set.Deployments { // what takes one back belongs to it
			declaredNames = append(declaredNames, d.Deployment+rollbackSuffix)
		}
		for _, name := range notDeclared(collect(all.Deployments, func(v events.DeploymentView) string { return v.Deployment }), declaredNames) {
			p.remove("deployment", name, func(ctx context.Context) error { return removeDeployment(ctx, p.c, name) })
		}
	}
	if len(set.Collections) > 0 {
		names := slices.Collect(maps.Keys(p.lookups.collections))
		for _, name := range notDeclared(names, collect(set.Collections, func(d declared.Collection) string { return d.Collection })) {
			p.remove("collection", name, func(ctx context.Context) error {
				_, err := ask(ctx, p.c, events.CollectionRemove, events.Named{Name: name})
				return err
			})
		}
	}
	if len(set.Packages) > 0 {
		return p.prunePackages(ctx, set)
	}
	return nil
}

func (p *planner) prunePackages(ctx context.Context, set declared.Set) error {
	all, err := ask(ctx, p.c, events.ContentList, events.Nothing{})
	if err != nil {
		return err
	}
	for _, full := range notDeclared(collect(all.Packages, packageName), collect(set.Packages, declared.Package.Name)) {
		name, version, _ := strings.Cut(full, "@")
		p.remove("package", full, func(ctx context.Context) error {
			_, err := ask(ctx, p.c, events.ContentRemove, events.Named{Name: name, Version: version})
			return err
		})
	}
	return nil
}

func (p *planner) remove(kind, name string, do func(context.Context) error) {
	p.changes = append(p.changes, change{Verb: verbRemove, Kind: kind, Name: name, do: func(ctx context.Context) (string, error) {
		return fmt.Sprintf("%s %s is removed", kind, name), do(ctx)
	}})
}

// removeDeployment stops a deployment and forgets it as soon as scheduling has heard of that.
func removeDeployment(ctx context.Context, c *client, name string) error {
	view, err := known(ask(ctx, c, events.DeploymentShow, events.Named{Name: name}))
	if err != nil {
		return err
	}
	over := view.Life == events.LifeStopped || view.Life == events.LifeExpired || view.Life == events.LifeDraft
	if !over {
		if _, err := askHeard(ctx, c, events.ExecutionStop, events.StopRequest{Deployment: name, Why: "no document declares it any more"}, name); err != nil {
			return err
		}
	}
	for range stopPolls {
		if _, err = ask(ctx, c, events.DeploymentRemove, events.Named{Name: name}); err == nil || errors.Is(err, bus.ErrNotFound) {
			return nil
		}
		if !pause(ctx, stopPause) {
			return ctx.Err()
		}
	}
	return err
}
