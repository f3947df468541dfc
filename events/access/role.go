package access

import (
	"slices"

	"chandler/events"
)

// Account is one NATS account of a fleet.
type Account string

// The accounts.
const (
	Fleet     Account = "fleet"
	Agents    Account = "agents"
	People    Account = "people"
	Enrolment Account = "enrolment"
	System    Account = "system"
)

// Accounts lists every account.
func Accounts() []Account { return []Account{Fleet, Agents, People, Enrolment, System} }

// Role is what a user of the broker is.
type Role string

// The roles, beside one for each service.
const (
	Agent         Role = "agent"
	Enrolling     Role = "enrolling" // a machine that has no identity yet, or an expired one
	Administrator Role = "administrator"
	Deployer      Role = "deployer"
	Viewer        Role = "viewer"
	Integrator    Role = "integrator"  // hears chosen events and can do nothing else
	Provisioner   Role = "provisioner" // makes streams and buckets, and copies all that they hold
	// SystemUser changes accounts on the broker. It has no signing key: see [MintSystem].
	SystemUser Role = "system"
	// Leaf is a site's leaf node. It is a user of several accounts, whose own keys sign it: see [MintLeaf].
	Leaf Role = "leaf"
)

// Service is the role of a service.
func Service(name string) Role { return Role("service-" + name) }

// Services lists the names of the services, sorted.
func Services() []string {
	var names []string
	for _, c := range events.Calls() {
		names = append(names, c.Service)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Roles lists every role that has a signing key.
func Roles() []Role {
	roles := []Role{Agent, Enrolling, Administrator, Deployer, Viewer, Integrator, Provisioner}
	for _, name := range Services() {
		roles = append(roles, Service(name))
	}
	return roles
}

// Account that the role's users belong to; see also [Role.Accounts].
func (r Role) Account() Account {
	switch r {
	case Agent:
		return Agents
	case Enrolling:
		return Enrolment
	case Administrator, Deployer, Viewer, Integrator:
		return People
	case SystemUser:
		return System
	}
	return Fleet
}

// Accounts in which the role's users are let in: those of a leaf node in several.
func (r Role) Accounts() []Account {
	if r == Leaf {
		return LeafAccounts()
	}
	return []Account{r.Account()}
}

// caller is the role as the calls name it; "" for one that makes no calls.
func (r Role) caller() events.Caller {
	switch r {
	case Agent:
		return events.ByAgent
	case Enrolling:
		return events.ByEnrolling
	case Administrator:
		return events.ByAdministrator
	case Deployer:
		return events.ByDeployer
	case Viewer:
		return events.ByViewer
	}
	return ""
}

// service is the name of the service whose role this is, "" if it is none's.
func (r Role) service() string {
	for _, name := range Services() {
		if r == Service(name) {
			return name
		}
	}
	return ""
}

// fixedName is the only name that users of the role may have, "" where they have names of their own.
func (r Role) fixedName() string {
	if r == Provisioner {
		return string(Provisioner)
	}
	return r.service()
}
