package credentials

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/order"
	"chandler/events/scope"
	"chandler/events/sign"
	"chandler/events/trust"
)

// orderOf verifies the enclosed order as the agent does, by the newest trust bundle, and that it is the one the
// statement speaks of and its job one of this order's.
func (s *Service) orderOf(ctx context.Context, st events.LeaseStatement, envelope []byte, now time.Time) (order.Order, error) {
	if err := s.trust.refresh(ctx); err != nil {
		return order.Order{}, err
	}
	newest := s.trust.newest()
	if newest.Version == 0 {
		return order.Order{}, deny("this fleet has no trust bundle yet, by which orders are verified")
	}
	bundle, err := trust.Open(newest.Bundle)
	if err != nil {
		return order.Order{}, err
	}
	o, digest, err := order.Verify(envelope, bundle, now)
	if why, ok := errors.AsType[*sign.Refusal](err); ok {
		return order.Order{}, deny("the enclosed order is not accepted: %s", why.Text)
	}
	if err != nil {
		return order.Order{}, err
	}
	switch {
	case digest != st.Order:
		return order.Order{}, deny("the request speaks of order %.12s and encloses %.12s", st.Order, digest)
	case st.Job != events.JobID(o.Deployment, o.Revision, st.Agent, st.Occurrence, st.User) || !o.Standing() && st.Occurrence != o.Occurrence():
		return order.Order{}, deny("job %s is not one of deployment %s revision %d on agent %s", st.Job, o.Deployment, o.Revision, st.Agent)
	}
	return o, nil
}

// entitled is what the agent may have of what it asks for. The order, which deployers signed, and what an
// administrator conferred on the agent decide; what the agent says of itself does not.
func (s *Service) entitled(ctx context.Context, st events.LeaseStatement, o order.Order, agent agentRecord) (loan, error) {
	programs := administrative(o)
	if len(programs) == 0 {
		return loan{}, deny("the program of deployment %s runs as the logged-on user, who needs no account", o.Deployment)
	}
	if st.Purpose == events.LeaseToRead {
		return s.readable(ctx, st, o, programs, agent)
	}
	account, err := s.executor(ctx, st, o, programs, agent)
	return loan{account: account}, err
}

// administrative are the programs of an order that an account may be lent for: its own, and those that run first. Each has
// its own account and resources; what one names is of no use to another.
func administrative(o order.Order) []order.Step {
	own := order.Step{Package: o.Package, Version: o.Version, Program: o.Program, Run: o.Run, InstallationAccount: o.InstallationAccount, Resources: o.Resources}
	return slices.DeleteFunc(append([]order.Step{own}, o.First...), func(p order.Step) bool { return p.Run != events.RunAdministrative })
}

// executor is the account that a program may run by.
func (s *Service) executor(ctx context.Context, st events.LeaseStatement, o order.Order, programs []order.Step, agent agentRecord) (accountRecord, error) {
	var none accountRecord
	switch {
	case agent.Conferred.ClientKind == events.Advanced:
		return none, deny("an advanced client runs administrative programs as the system: `chandler agent set-kind` makes %s a legacy one", st.Agent)
	case agent.Conferred.ClientKind != events.Legacy: // an advanced one, until somebody says otherwise
		return none, deny("only legacy clients run programs by an account that is lent, and nobody said that %s is one: `chandler agent set-kind %s %s` does", agent.Agent, agent.Agent, events.Legacy)
	case st.Account != "":
		account, err := s.installation(ctx, st.Account, o, programs)
		if err != nil {
			return none, err
		}
		// Collections and domain bind what runs by the account too; its resources are what it reaches.
		if barred := scope.Serves(account.AccountNotice, scope.Query{Collection: o.Collection, Domain: agent.Facts.Domain}); barred != nil {
			return none, &denial{barred.Reason, barred.Why}
		}
		return account, nil
	case st.Kind == events.ClientTokenDomain:
		return s.domainToken(ctx, agent)
	}
	return none, refuseKind("the account of kind", st.Kind)
}

// installation is the software installation account that an order names for one of these programs.
func (s *Service) installation(ctx context.Context, name string, o order.Order, programs []order.Step) (accountRecord, error) {
	if !slices.ContainsFunc(programs, func(p order.Step) bool { return p.InstallationAccount == name }) {
		return accountRecord{}, deny("the order of deployment %s revision %d does not name account %s", o.Deployment, o.Revision, name)
	}
	var r accountRecord
	revision, err := s.accounts.load(ctx, name, &r)
	switch {
	case err != nil:
		return accountRecord{}, err
	case revision == 0 || r.Removed:
		return accountRecord{}, deny("there is no account %s: `chandler account set %s --kind %s --user USER` makes it", name, name, events.SoftwareInstallation)
	case r.Kind != events.SoftwareInstallation:
		return accountRecord{}, refuseKind("account "+name+" of kind", r.Kind)
	}
	return r, nil
}

// domainToken is the domain's copy of the client token account, for domain controllers.
func (s *Service) domainToken(ctx context.Context, agent agentRecord) (accountRecord, error) {
	if !agent.Conferred.DomainController {
		return accountRecord{}, deny("only domain controllers run programs by the domain's client token account, and nobody said that %s is one: `chandler agent set-kind %s legacy --domain-controller` does", agent.Agent, agent.Agent)
	}
	there, err := s.ofKind(ctx, events.ClientTokenDomain)
	if err != nil {
		return accountRecord{}, err
	}
	switch len(there) {
	case 0:
		return accountRecord{}, deny("there is no account of kind %s: `chandler account set NAME --kind %s --user USER` makes it", events.ClientTokenDomain, events.ClientTokenDomain)
	case 1:
		return there[0], nil
	}
	var names []string
	for _, r := range there {
		names = append(names, r.Account)
	}
	return accountRecord{}, deny("there are several accounts of kind %s, %s: remove all but one with `chandler account rm`", events.ClientTokenDomain, strings.Join(names, ", "))
}

func refuseKind(what string, kind events.AccountKind) error {
	return &denial{events.AccountRefused, what + " " + string(kind) + " must not run programs: `installation-account` names one of kind " + string(events.SoftwareInstallation)}
}
