package events

import (
	"strconv"
	"time"
)

// AccountKind says what an account is for.
type AccountKind string

// The kinds of account.
const (
	NetworkAccess        AccountKind = "network-access"
	SoftwareInstallation AccountKind = "software-installation"
	ClientTokenDomain    AccountKind = "client-token-domain"
)

// What an account is lent for.
const (
	LeaseToExecute = "execute" // a program runs by the account
	LeaseToRead    = "read"    // the account reaches an external source
	LeaseToTest    = "test"    // an administrator wants to know what the resource answers it
)

// How an account proves itself.
const (
	ByPassword          = "password"           // of a user: SMB, or basic authentication over https
	ByBearer            = "bearer"             // the secret is a token, over https
	ByClientCertificate = "client-certificate" // the secret is a certificate and its key in PEM, over https
)

// AccountNotice says that an account changed; never its secret.
type AccountNotice struct {
	Account string      `json:"account"`
	Kind    AccountKind `json:"kind"`
	User    string      `json:"user"`
	Method  string      `json:"method,omitempty"` // how it proves itself; "": by password
	// Resources it may reach, each an address that stands for itself and all below. A software installation account
	// without any reaches whatever the orders that name it do.
	Resources []string `json:"resources,omitempty"`
	// Collections whose deployments may use it, and Domain whose machines do; none and "": all. A machine says
	// itself which domain it is of, so that this chooses an account and protects none.
	Collections []string `json:"collections,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Version     int      `json:"version"` // of the secret
	// KeepUntil is until when those who were lent the version before go on with it.
	KeepUntil *time.Time `json:"keep_until,omitempty"`
	By        string     `json:"by"`
	At        time.Time  `json:"at"`
}

// LeaseNotice is the audit of a request for an account; never its secret.
type LeaseNotice struct {
	// Lease is the same however often it is renewed: a hash of job, account, resource and purpose. "" where
	// it was refused.
	Lease    string      `json:"lease,omitempty"`
	Agent    string      `json:"agent"`
	Job      string      `json:"job"`
	Attempt  int         `json:"attempt,omitempty"`
	Account  string      `json:"account,omitempty"`
	Kind     AccountKind `json:"kind,omitempty"`
	Version  int         `json:"version,omitempty"` // of the secret
	Resource string      `json:"resource"`
	Purpose  string      `json:"purpose"` // execute, read or test
	Order    string      `json:"order,omitempty"`
	Nonce    string      `json:"nonce,omitempty"` // of the request
	By       string      `json:"by,omitempty"`    // who withdrew it, or had it tested
	Reason   Reason      `json:"reason,omitempty"`
	Why      string      `json:"why,omitempty"`
	Expires  *time.Time  `json:"expires,omitempty"`
	At       time.Time   `json:"at"`
}

// LeaseUse says what came of using a lease for the first time, or of another answer than before; the agent says it.
type LeaseUse struct {
	Lease      string `json:"lease"`
	Agent      string `json:"agent"`
	Hostname   string `json:"hostname,omitempty"`
	Job        string `json:"job"`
	Deployment string `json:"deployment,omitempty"`
	Access
}

// ID of the event: the same statement said again is the same event.
func (u LeaseUse) ID() string {
	return DeriveID("credential.used", u.Lease, u.Agent, u.Resource, string(u.Reason), strconv.FormatInt(u.At.UnixNano(), 10))
}

// AccountTestNote asks an agent to try a resource once with an account that it asks for, and to say what was answered.
type AccountTestNote struct {
	Test     string    `json:"test"` // its id
	Agent    string    `json:"agent"`
	Account  string    `json:"account"`
	Resource string    `json:"resource"`
	Again    bool      `json:"again,omitempty"` // also where the agent remembers that the secret was refused
	By       string    `json:"by"`
	Until    time.Time `json:"until"` // afterwards it is too late
}

// AccountSuspension says that a version of an account's secret is lent no more, since machines were refused by it.
type AccountSuspension struct {
	Account string    `json:"account"`
	Version int       `json:"version"`
	Agents  []string  `json:"agents"` // that were refused
	Why     string    `json:"why"`
	At      time.Time `json:"at"`
}

// LeaseWithdrawal tells an agent that a lease is over: what it holds of it is to be cleared.
type LeaseWithdrawal struct {
	Agent string `json:"agent"`
	Lease string `json:"lease"`
	Why   string `json:"why,omitempty"`
}

var (
	exampleUse = LeaseUse{Lease: exampleLease.Lease, Agent: exampleAgent, Hostname: "ws-0412", Job: exampleLease.Job, Deployment: "hello-everywhere",
		Access: Access{Resource: "smb://files.example/software/hello", Identity: "network-access-account", Account: "corp-reader", User: `EXAMPLE\reader`, Version: 1, When: AccessContent,
			Reason: NetworkAccessDenied, Answer: "access denied (5/0x80070005)", At: exampleTime}}
	exampleAccount = AccountNotice{Account: "corp-reader", Kind: NetworkAccess, User: `EXAMPLE\reader`, Resources: []string{"smb://files.example/software/*"}, Version: 1, By: "admin", At: exampleTime}
	exampleLease   = LeaseNotice{Lease: DeriveID("lease", JobID("hello-everywhere", 1, exampleAgent, 0, ""), "corp-installer", "", LeaseToExecute), Agent: exampleAgent,
		Job: JobID("hello-everywhere", 1, exampleAgent, 0, ""), Attempt: 1, Account: "corp-installer", Kind: SoftwareInstallation, Version: 1, Purpose: LeaseToExecute,
		Expires: new(exampleTime.Add(10 * time.Minute)), At: exampleTime}
)

// Events about credentials.
var (
	AccountSet          = declare("account.set", StreamEvents, "event.account.set.<account>", "credentials", "an account was made, or its secret or scope changed", exampleAccount)
	AccountRemoved      = declare("account.removed", StreamEvents, "event.account.removed.<account>", "credentials", "an account was removed", exampleAccount)
	CredentialLeased    = declare("credential.leased", StreamEvents, "event.credential.leased.<agent>", "credentials", "an account was lent to an agent for one job, or for longer", exampleLease)
	CredentialRequested = declare("credential.requested", StreamEvents, "event.credential.requested.<agent>", "credentials", "an agent proved who it is and asked for an account", exampleLease)
	CredentialUsed      = declare("credential.used", StreamEvents, "event.credential.used.<agent>", "agent", "an agent reached a resource by a lent account, or was refused by it", exampleUse)
	CredentialRevoked   = declare("credential.revoked", StreamEvents, "event.credential.revoked.<agent>", "credentials", "a lease was withdrawn: its job or agent is done with, its account changed, or an administrator said so", exampleLease)
	CredentialExpired   = declare("credential.expired", StreamEvents, "event.credential.expired.<agent>", "credentials", "a lease reached its end without having been renewed", exampleLease)
	AccountTestAsked    = declare("credential.test", "", "credential.test.<agent>", "credentials", "an agent is asked to try a resource by an account once; not stored",
		AccountTestNote{Test: "t1", Agent: exampleAgent, Account: "corp-reader", Resource: "smb://files.example/software/hello", By: "admin", Until: exampleTime})
	LeaseWithdrawn = declare("credential.withdrawn", "", "credential.withdrawn.<agent>", "credentials", "a lease that an agent holds is over; not stored",
		LeaseWithdrawal{Agent: exampleAgent, Lease: exampleLease.Lease, Why: "an administrator revoked it"})
	AccountSuspended = declare("account.suspended", StreamEvents, "event.account.suspended.<account>", "credentials", "a version of an account's secret was refused by several machines and is lent no more, until it is set again",
		AccountSuspension{Account: "corp-reader", Version: 1, Agents: []string{exampleAgent}, Why: "version 1 of account corp-reader was rejected by 3 machines", At: exampleTime})
	LeaseDenied = declare("credential.denied", StreamEvents, "event.credential.denied.<agent>", "credentials", "an agent asked for a credential and was refused",
		LeaseNotice{Agent: exampleAgent, Job: JobID("hello-everywhere", 1, exampleAgent, 0, ""), Resource: "smb://files.example/software/hello", Purpose: "read", Reason: CredentialDenied, Why: "no account covers the resource", At: exampleTime})
)
