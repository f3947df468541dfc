// Package identity decides who reads a program's content, who runs it, and who it is on the network while it runs: one pure
// function, [Decide]. Its test is the table of who reads and who executes.
//
// It promises that every question has exactly one answer, which does not depend on what was tried before: an access that
// fails is reported, and never tried again as somebody else, since that is how accounts get locked out. The network access
// account never runs anything, whatever is asked. What makes no sense is refused with a reason, also where it was refused
// before: when the package was published and when a credential was asked for.
package identity

import (
	"fmt"

	"chandler/events"
)

// Who reads, runs, or is met on the network. The words stand in logs.
type Who string

// Everybody who can be an answer.
const (
	Nobody        Who = ""
	Agent         Who = "agent"                       // itself, from a distribution point, without any account
	User          Who = "user"                        // who is logged on
	System        Who = "system"                      // root or LocalSystem
	NetworkAccess Who = "network-access-account"      // of advanced clients: reads, never runs
	ClientToken   Who = "client-token-account"        // of legacy clients, local
	DomainToken   Who = "domain-client-token-account" // the domain's copy of it, on domain controllers
	Installation  Who = "installation-account"        // of legacy clients: reads and runs
)

// Everybody lists them all.
func Everybody() []Who {
	return []Who{Agent, User, System, NetworkAccess, ClientToken, DomainToken, Installation}
}

// Runner is the name of the runner that runs programs as w; "" for who never runs any.
func (w Who) Runner() string {
	switch w {
	case User:
		return "user"
	case System:
		return "system"
	case ClientToken, DomainToken:
		return "token"
	case Installation:
		return "installation"
	}
	return ""
}

// Place is where a program's content lies.
type Place string

// The places of content.
const (
	OnDP     Place = "distribution-point"
	External Place = "external-source"
)

// Question is what the answer depends on, and nothing else does.
type Question struct {
	Client              events.ClientKind
	Run                 events.RunMode
	Content             Place
	InstallationAccount string             // that the signed order names; "" if it names none
	AccountKind         events.AccountKind // of that account; "" while it is unknown
	DomainController    bool
}

// Answer says who does what.
type Answer struct {
	Reader   Who // reads the content
	Executor Who // runs the program
	// Network is who reads what the program refers to while it runs. Nobody: such an access fails as no_network_identity.
	Network  Who
	Elevated bool   // the executor is given an administrator's rights while the program runs, unless it has them anyway
	Note     string // what an administrator should know; "" if nothing
}

// Refusal says why nobody may run the program here.
type Refusal struct {
	Reason events.Reason
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

func refuse(reason events.Reason, format string, args ...any) (Answer, *Refusal) {
	return Answer{}, &Refusal{reason, fmt.Sprintf(format, args...)}
}

// Decide answers the question. Either the refusal is nil or the answer is empty. Compare the refusal with nil before it
// becomes an error.
func Decide(q Question) (Answer, *Refusal) {
	switch {
	case q.Client != events.Advanced && q.Client != events.Legacy:
		return refuse(events.ContextUnsupported, "client kind %q: known are %s and %s", q.Client, events.Advanced, events.Legacy)
	case q.Content != OnDP && q.Content != External:
		return refuse(events.ContextUnsupported, "content on %q: known are %s and %s", q.Content, OnDP, External)
	// Before who the client is: such an order is wrong everywhere.
	case q.InstallationAccount != "" && q.AccountKind != "" && q.AccountKind != events.SoftwareInstallation:
		return refuse(events.AccountRefused, "account %s is of kind %s, which must not run programs", q.InstallationAccount, q.AccountKind)
	}
	switch q.Run {
	case events.RunUser:
		return asUser(q)
	case events.RunAdministrative:
		if q.Client == events.Advanced {
			return advanced(q), nil
		}
		return legacy(q)
	}
	return refuse(events.ContextUnsupported, "run %q: known are %s and %s", q.Run, events.RunUser, events.RunAdministrative)
}

// asUser is the same for every kind of client.
func asUser(q Question) (Answer, *Refusal) {
	if q.InstallationAccount != "" {
		return refuse(events.ContextUnsupported, "the program runs as the logged-on user and names installation account %s: it can be only one of them", q.InstallationAccount)
	}
	return Answer{Reader: reads(q, User), Executor: User, Network: User}, nil
}

func advanced(q Question) Answer {
	a := Answer{Reader: reads(q, NetworkAccess), Executor: System, Network: NetworkAccess}
	if q.InstallationAccount != "" {
		a.Note = fmt.Sprintf("installation account %s is ignored: this is an advanced client, which runs administrative programs as the system", q.InstallationAccount)
	}
	return a
}

// legacy runs by an account that is an administrator only meanwhile. The client token account, also the domain's copy, has
// no identity on the network (domain-facts §2.2).
func legacy(q Question) (Answer, *Refusal) {
	switch {
	case q.InstallationAccount != "":
		return Answer{Reader: reads(q, Installation), Executor: Installation, Network: Installation, Elevated: true}, nil
	case q.Content == External:
		return refuse(events.NoNetworkIdentity, "the content is on an external source, and the client token account, which runs the programs of legacy clients, has no identity on the network: deploy a program with an installation-account")
	case q.DomainController:
		return Answer{Reader: Agent, Executor: DomainToken, Elevated: true}, nil
	}
	return Answer{Reader: Agent, Executor: ClientToken, Elevated: true}, nil
}

// reads is who reads the content: what is on a distribution point needs no account.
func reads(q Question, external Who) Who {
	if q.Content == OnDP {
		return Agent
	}
	return external
}
