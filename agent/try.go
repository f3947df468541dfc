package agent

import (
	"context"
	"errors"
	"io"

	"chandler/agent/external"
	"chandler/agent/identity"
	"chandler/agent/lease"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/bus"
)

// try reads a little of a resource by an account, once, since an administrator wants to know what is answered.
func (a *Agent) try(ctx context.Context, n events.AccountTestNote) {
	a.tryFor(ctx, n, func(r events.AccountTestReport) error {
		_, err := bus.Request(ctx, a.bus, a.id, events.AccountTestAnswer, r)
		return err
	})
}

// tryFor tells what was answered. The account comes from the credential service, which alone knows whether anybody asked;
// nothing of what is read is kept.
func (a *Agent) tryFor(ctx context.Context, n events.AccountTestNote, tell func(events.AccountTestReport) error) {
	if n.Agent != a.id || !a.Clock().Before(n.Until) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.Until.Sub(a.Clock()))
	defer cancel()
	var said events.Access
	who := identity.NetworkAccess
	logins := &a.logins
	if n.Again { // also a secret that was refused here before
		logins = &external.Logins{}
	}
	reader := external.New(external.Options{
		Who: who, Resources: []string{n.Resource}, Sources: a.External, Logins: logins, Clock: a.Clock,
		Told: func(access events.Access, _ string) { said = access },
		Lend: func(ctx context.Context, resource string) (*lease.Lease, error) {
			l, err := a.borrow(ctx, lease.Query{Attempt: 1, Wanted: lease.Wanted{Account: n.Account}, Purpose: events.LeaseToTest, Resource: resource, Test: n.Test})
			if l != nil && l.Kind == events.SoftwareInstallation {
				who = identity.Installation
			}
			return l, err
		},
	})
	defer reader.Close()
	err := readALittle(ctx, reader, n.Resource)
	var failed *external.Error
	if errors.As(err, &failed) {
		said = failed.Access
	} else if err != nil {
		return // the agent stops
	}
	said.Identity = string(who)
	a.logins.Heard(said)
	a.log.InfoContext(ctx, "account tried for an administrator", "account", n.Account, "resource", n.Resource, "by", n.By, "reason", said.Reason, "answer", said.Answer)
	if err := tell(events.AccountTestReport{Test: n.Test, Access: said}); err != nil {
		a.log.WarnContext(ctx, "what a resource answered was not told", "test", n.Test, "error", err)
	}
}

func readALittle(ctx context.Context, reader *external.Reader, address string) error {
	var o source.Object
	o, err := reader.Open(ctx, address, events.AccessTest)
	if err != nil {
		return err
	}
	defer o.Close()
	if o.Info().Folder {
		_, err = o.List(ctx)
		return err
	}
	if _, err = o.ReadAt(ctx, make([]byte, 1), 0); errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
