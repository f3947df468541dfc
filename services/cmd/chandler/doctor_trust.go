package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/manifest"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

// examineSigning judges what this machine signs with by the newest trust bundle, which it follows as if it were
// to sign. inForce is that bundle; where this machine has accepted none, what the service says, for it is looked
// at only; nil where nobody is trusted yet.
func (a *app) examineSigning(ctx context.Context, c *client) (inForce *trust.Bundle, found []finding) {
	dir, err := a.trustDir(c.connection)
	if err != nil {
		return nil, a.examineKeys(c.connection)
	}
	accepted, envelope, err := pinned{dir}.load()
	if err != nil {
		return nil, a.examineKeys(c.connection)
	}
	newer, err := trustBundles(ctx, c, accepted.Version)
	switch {
	case envelope == nil && err == nil && len(newer) > 0:
		if b, err := trust.Open(newer[len(newer)-1]); err == nil {
			inForce = &b
		}
	case envelope != nil:
		inForce = &accepted
		if err == nil { // else examineTrust tells why not
			b, err := a.followTrust(ctx, c)
			if err != nil {
				found = append(found, problem("trust bundle", "agents that hold the one accepted here do not follow it either: find out who handed it over", "%v", err))
			} else {
				inForce = &b
			}
		}
	}
	switch {
	case c.administers() || envelope != nil && c.SigningKey != "":
		return inForce, append(found, a.examineKeys(c.connection)...)
	case c.role != access.Deployer:
		return inForce, append(found, skipped("signing key", "", "your role, %s, signs nothing", c.role))
	case envelope == nil && inForce == nil:
		return inForce, append(found, skipped("signing key", "an administrator makes the fleet's keys", "there is nothing yet that it could belong to"))
	case envelope == nil:
		return inForce, append(found, warning("trust", "nothing can be signed here before", "%v", a.noTrust(newer)))
	}
	return inForce, append(found, a.examineKeys(c.connection)...)
}

// examineTrust says whether agents know whose orders to obey.
func examineTrust(ctx context.Context, c *client) ([]finding, error) {
	all, err := trustBundles(ctx, c, 0)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		advice := "chandler trust init"
		if !c.administers() {
			advice = "an administrator makes the fleet's keys"
		}
		return []finding{warning("trust bundle", advice, "nobody is trusted to sign yet: no machine can enrol, and nothing can be deployed")}, nil
	}
	b, err := trust.Open(all[len(all)-1])
	if err != nil {
		return []finding{problem("trust bundle", "restore the credential service from a copy", "the newest cannot be read: %v", err)}, nil
	}
	return []finding{ok("trust bundle", "version %d is the newest: each deployment needs %s", b.Version, plural(b.Threshold, "signature", "signatures"))}, nil
}

// examineOrders looks how long orders are valid, and whether agents with the bundle in force, nil: none, obey
// them.
func (a *app) examineOrders(ctx context.Context, c *client, inForce *trust.Bundle) ([]finding, error) {
	all, err := ask(ctx, c, events.DeploymentList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	found := a.judgeOrders(all.Deployments)
	if inForce == nil {
		return found, nil
	}
	var refused []finding
	for _, d := range all.Deployments {
		live := slices.Contains([]events.Life{events.LifePending, events.LifeActive, events.LifePaused}, d.Life)
		if !live || !a.now().Before(d.NotAfter) { // judgeOrders tells of that
			continue
		}
		more, err := a.examineOrder(ctx, c, d, *inForce)
		if err != nil {
			return slices.Concat(found, refused), err
		}
		refused = append(refused, more...)
	}
	if len(refused) > 0 {
		found = slices.DeleteFunc(found, func(f finding) bool { return f.State == stateOK })
	}
	return append(found, refused...), nil
}

// examineOrder reads the order and the package of a live deployment as agents with a bundle do.
func (a *app) examineOrder(ctx context.Context, c *client, d events.DeploymentView, inForce trust.Bundle) (found []finding, err error) {
	refuses := func(err error) string {
		if refused, ok := errors.AsType[*sign.Refusal](err); ok {
			return refused.Text
		}
		return ""
	}
	signed, err := signedOrder(ctx, c, d)
	switch {
	case errors.Is(err, errNoOrder):
		found = append(found, warning("order", "create it again with --revise", "whether agents obey deployment %s is not known: its signed order is not in EVENTS any more", d.Deployment))
	case err != nil:
		return nil, err
	default:
		_, _, err := order.Verify(signed.Envelope, inForce, a.now())
		if why := refuses(err); why != "" {
			found = append(found, problem("order", "sign it anew: "+resignCommand(d.Deployment, inForce), "agents with trust bundle version %d refuse deployment %s: %s", inForce.Version, d.Deployment, why))
		}
	}
	published, err := ask(ctx, c, events.ContentShow, events.Named{Name: d.Package, Version: d.Version})
	if errors.Is(err, bus.ErrNotFound) {
		return append(found, problem("package", "publish it again, under a new version, and deploy that", "deployment %s runs %s@%s, which is not there", d.Deployment, d.Package, d.Version)), nil
	}
	if err != nil {
		return found, err
	}
	_, err = manifest.Verify(published.Envelope, inForce)
	if why := refuses(err); why != "" {
		found = append(found, problem("package", fmt.Sprintf("publish %s under a new version with a trusted publisher's key, and deploy that", d.Package),
			"agents with trust bundle version %d refuse %s@%s of deployment %s: %s", inForce.Version, d.Package, d.Version, d.Deployment, why))
	}
	return found, nil
}

// resignCommand signs a deployment anew; where several must sign, the others then sign the draft.
func resignCommand(deployment string, b trust.Bundle) string {
	if b.Threshold > 1 {
		return fmt.Sprintf("`chandler deployment resign %s --draft`, and then by %s: `chandler deployment sign %s`", deployment, plural(b.Threshold-1, "other", "others"), deployment)
	}
	return fmt.Sprintf("`chandler deployment resign %s`", deployment)
}
