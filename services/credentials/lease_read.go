package credentials

import (
	"context"
	"fmt"
	"slices"

	"chandler/events"
	"chandler/events/advice"
	"chandler/events/order"
	"chandler/events/resource"
	"chandler/events/scope"
)

// readable is what a request to read is entitled to: one account, for the resource of one of the order's programs that
// covers what was asked for, so that one lease serves a whole source. Who reads follows from what an administrator conferred on the
// agent, as package identity of the agent decides it; there is never a second account to try.
func (s *Service) readable(ctx context.Context, st events.LeaseStatement, o order.Order, programs []order.Step, agent agentRecord) (loan, error) {
	readers := slices.DeleteFunc(slices.Clone(programs), func(p order.Step) bool { return resource.Longest(p.Resources, st.Resource) == "" })
	named := longest(readers, st.Resource)
	if named == "" {
		return loan{}, deny("%s: deployment %s revision %d, %s", advice.NotNamed, o.Deployment, o.Revision, resource.Shown(st.Resource))
	}
	q := scope.Query{Resource: named, Collection: o.Collection, Domain: agent.Facts.Domain}
	var account accountRecord
	var err error
	if agent.Conferred.ClientKind == events.Legacy {
		own := slices.DeleteFunc(slices.Clone(readers), func(p order.Step) bool { return p.InstallationAccount != st.Account })
		if len(own) > 0 {
			named = longest(own, st.Resource)
			q.Resource = named
		}
		account, err = s.installationReader(ctx, st, o, readers, q)
	} else { // an advanced one, until somebody says otherwise
		account, err = s.networkReader(ctx, st, q)
	}
	return loan{account: account, resource: named}, err
}

// longest is the resource of programs that covers an address most closely.
func longest(programs []order.Step, address string) string {
	var all []string
	for _, p := range programs {
		all = append(all, p.Resources...)
	}
	return resource.Longest(all, address)
}

// networkReader is the network access account that reads for an advanced client. The agent cannot choose which.
func (s *Service) networkReader(ctx context.Context, st events.LeaseStatement, q scope.Query) (accountRecord, error) {
	if st.Account != "" || st.Kind != events.NetworkAccess {
		return accountRecord{}, deny("agent %s is an advanced client, which reads by the network access account that is chosen here, and asks for another", st.Agent)
	}
	there, err := s.ofKind(ctx, events.NetworkAccess)
	if err != nil {
		return accountRecord{}, err
	}
	accounts, records := make([]events.AccountNotice, len(there)), map[string]accountRecord{}
	for i, r := range there {
		accounts[i], records[r.Account] = r.AccountNotice, r
	}
	chosen, none := scope.Choose(accounts, q)
	if none != nil {
		return accountRecord{}, &denial{none.Reason, none.Why} // what would mend it says whoever shows it
	}
	return records[chosen.Account], nil
}

// installationReader is the software installation account that reads for a legacy client, which also runs the program. It
// is that of a program which names the resource.
func (s *Service) installationReader(ctx context.Context, st events.LeaseStatement, o order.Order, readers []order.Step, q scope.Query) (accountRecord, error) {
	switch {
	case !slices.ContainsFunc(readers, func(p order.Step) bool { return p.InstallationAccount != "" }):
		return accountRecord{}, &denial{events.NoNetworkIdentity, fmt.Sprintf("agent %s is a legacy client, whose client token account has no identity on the network, and deployment %s names no installation account: "+
			"publish the program with an installation-account, or `chandler agent set-kind %s %s`", st.Agent, o.Deployment, st.Agent, events.Advanced)}
	case st.Account == "":
		return accountRecord{}, deny("agent %s is a legacy client, which reads by the installation account that the order names, and asks for one of kind %s", st.Agent, st.Kind)
	}
	account, err := s.installation(ctx, st.Account, o, readers)
	if err != nil {
		return account, err
	}
	if none := scope.Admits(account.AccountNotice, q); none != nil {
		return account, &denial{none.Reason, none.Why}
	}
	return account, nil
}
