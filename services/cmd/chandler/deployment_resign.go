package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/order"
)

func deploymentResign(a *app) *cobra.Command {
	var valid string
	var draft, yes bool
	cmd := &cobra.Command{
		Use: "resign NAME", Short: "Sign the next revision of a live deployment: its collection and maintenance windows as they are now, and a new validity", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeArguments(completeDeployments),
		Long: `Signs the same program for the collection as it is defined now, with the maintenance windows that there are now. Needed after collection set, before the
order's validity ends, and before a key that signed it is removed from the trust. Machines that ran the
program are treated as its rerun behaviour says.`,
	}
	asked := a.asksPassphrase(cmd)
	cmd.RunE = a.connected(func(cmd *cobra.Command, c *client, args []string) error {
		span, err := parseSpan(valid)
		if err == nil && span == 0 {
			err = errors.New("an order without validity would reach nobody")
		}
		if err != nil {
			return fmt.Errorf("--valid: %w", err)
		}
		return a.resign(cmd, c, args[0], span, asked, draft, yes)
	})
	cmd.Flags().StringVar(&valid, "valid", "90d", "how long the signature is valid")
	cmd.Flags().BoolVar(&draft, "draft", false, "keep the order until others have signed it too: where one signature is not enough")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) resign(cmd *cobra.Command, c *client, name string, valid time.Duration, asked *asking, draft, yes bool) error {
	if err := c.may(events.DeploymentCreate.CallDeclaration); err != nil {
		return err
	}
	ctx := cmd.Context()
	view, err := ask(ctx, c, events.DeploymentShow, events.Named{Name: name})
	if err != nil {
		return err
	}
	if !slices.Contains([]events.Life{events.LifePending, events.LifeActive, events.LifePaused, events.LifeHalted}, view.Life) {
		return fmt.Errorf("deployment %s is %s: only a live one is signed again; create it anew with deployment create", name, view.Life)
	}
	s, err := a.signer(ctx, c, asked)
	if err != nil {
		return err
	}
	if err := errors.Join(s.mayDeploy(), a.checkDraft(s, name, draft)); err != nil {
		return err
	}
	p, err := a.renewed(ctx, c, s, view, valid)
	if err != nil {
		return err
	}
	note(cmd.ErrOrStderr(), "deployment %s, revision %d becomes revision %d:", name, view.Revision, p.order.Revision)
	if err := a.describe(ctx, cmd.ErrOrStderr(), c, s, p.order, p.collection.Include, p.collection.Exclude); err != nil {
		return err
	}
	if p.rollback != nil {
		note(cmd.ErrOrStderr(), "taken back by: %s", rollbackText(p.rollback))
	}
	// The service chose which order is the present one: whoever signs it again looks at it.
	if err := a.agree(cmd, "This signs the above.", yes); err != nil {
		return err
	}
	sent, err := sendOrder(ctx, c, s, p, draft)
	if err != nil {
		return err
	}
	return a.tellCreated(cmd, c, sent, false)
}

// renewed is the present order of a deployment with its collection, the maintenance windows and what runs first as they
// are now; its plan stays. What takes it back is signed anew with it, where something was.
func (a *app) renewed(ctx context.Context, c *client, s signer, view events.DeploymentView, valid time.Duration) (p proposal, err error) {
	signed, err := signedOrder(ctx, c, view)
	if err != nil {
		return p, err
	}
	if p.order, err = presentOrder(signed, s, view); err != nil {
		return p, err
	}
	l := newLookups(c, s.trust)
	p.plan = view.Plan
	p.order.Issued = a.now().UTC().Truncate(time.Second)
	p.order.NotAfter = p.order.Issued.Add(valid)
	if p.manifest, err = l.bindProgram(ctx, &p.order); err != nil {
		return p, err
	}
	if p.order.Rolls != nil { // it goes to those whom the order that it takes back reached
		p.collection.Include, p.collection.Exclude = signed.Include, signed.Exclude
	} else if p.collection, err = l.bindTarget(ctx, &p.order); err != nil {
		return p, err
	}
	if view.RollbackTo != "" && s.trust.Threshold == 1 {
		back, err := l.rollback(ctx, p.order, view.RollbackTo)
		if err != nil {
			return p, fmt.Errorf("what takes it back was signed with it, and cannot be again: %w", err)
		}
		p.rollback = &back
	}
	revision, err := a.nextRevision(ctx, c, s, view.Deployment, true)
	if err != nil {
		return p, err
	}
	return p, a.revise(ctx, c, s, &p, revision)
}

// presentOrder reads the order of a live deployment. It must be the one that its view names, of this fleet, and
// signed by a deployer: with a key that may be revoked by now, since that may be why it is signed again.
func presentOrder(signed events.DeploymentOrder, s signer, view events.DeploymentView) (order.Order, error) {
	o, _, err := order.Open(signed.Envelope)
	if err == nil && (o.Deployment != view.Deployment || o.Fleet != s.trust.Fleet) {
		err = fmt.Errorf("what was read is an order of deployment %s of fleet %s", o.Deployment, o.Fleet)
	}
	if err == nil && !s.signedBefore(signed.Envelope) {
		err = fmt.Errorf("what was read as the order of deployment %s was never signed by a deployer: nothing was signed", o.Deployment)
	}
	return o, err
}

// signedBefore says whether a deployer signed an envelope, be his key revoked or not.
func (s signer) signedBefore(envelope []byte) bool {
	anybody := s.trust
	anybody.Threshold, anybody.Keys = 1, slices.Clone(s.trust.Keys)
	for _, k := range s.trust.Revoked {
		anybody.Keys = append(anybody.Keys, k.PublicKey)
	}
	_, signed, err := order.Signed(envelope, anybody)
	return err == nil && signed
}

var errNoOrder = errors.New("the signed order is not in EVENTS any more: create the deployment anew with deployment create --revise")

// orderPatience is how long a signed order is waited for: scheduling answers before it has told the event.
const orderPatience = 5 * time.Second

// signedOrder reads what scheduling said when it accepted a deployment's present order.
func signedOrder(ctx context.Context, c *client, view events.DeploymentView) (events.DeploymentOrder, error) {
	for deadline := time.Now().Add(orderPatience); ; {
		found, err := findOrder(ctx, c, view)
		switch {
		case err != nil:
			return events.DeploymentOrder{}, fmt.Errorf("read the order of deployment %s: %w", view.Deployment, err)
		case found != nil:
			return *found, nil
		}
		// One that was accepted long ago has been told long ago.
		if accepted := time.Since(view.At); accepted > orderPatience || time.Now().After(deadline) || !pause(ctx, 50*time.Millisecond) {
			return events.DeploymentOrder{}, fmt.Errorf("deployment %s: %w", view.Deployment, errNoOrder)
		}
	}
}

// findOrder is nil where EVENTS does not hold the order.
func findOrder(ctx context.Context, c *client, view events.DeploymentView) (found *events.DeploymentOrder, err error) {
	err = c.read(ctx, reading{stream: events.StreamEvents, filters: []string{events.DeploymentCreated.Subject(view.Deployment)}}, func(m jetstream.Msg) error {
		e, err := eventOf[events.DeploymentOrder](m)
		if err != nil {
			return err
		}
		if _, digest, err := order.Open(e.Data.Envelope); err == nil && digest == view.Order {
			found = &e.Data
		}
		return nil
	})
	return found, err
}
