package events

import "time"

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
)

// AccountNotice says that an account changed; never its secret.
type AccountNotice struct {
	Account   string      `json:"account"`
	Kind      AccountKind `json:"kind"`
	User      string      `json:"user"`
	Resources []string    `json:"resources,omitempty"`
	Version   int         `json:"version"`
	By        string      `json:"by"`
	At        time.Time   `json:"at"`
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
	Purpose  string      `json:"purpose"` // execute or read
	Reason   Reason      `json:"reason,omitempty"`
	Why      string      `json:"why,omitempty"`
	Expires  *time.Time  `json:"expires,omitempty"`
	At       time.Time   `json:"at"`
}

var (
	exampleAccount = AccountNotice{Account: "corp-reader", Kind: NetworkAccess, User: `EXAMPLE\reader`, Resources: []string{"smb://files.example/software/*"}, Version: 1, By: "admin", At: exampleTime}
	exampleLease   = LeaseNotice{Lease: DeriveID("lease", JobID("hello-everywhere", 1, exampleAgent, 0, ""), "corp-installer", "", LeaseToExecute), Agent: exampleAgent,
		Job: JobID("hello-everywhere", 1, exampleAgent, 0, ""), Attempt: 1, Account: "corp-installer", Kind: SoftwareInstallation, Version: 1, Purpose: LeaseToExecute,
		Expires: new(exampleTime.Add(10 * time.Minute)), At: exampleTime}
)

// Events about credentials.
var (
	AccountSet       = declare("account.set", StreamEvents, "event.account.set.<account>", "credentials", "an account was made, or its secret or scope changed", exampleAccount)
	AccountRemoved   = declare("account.removed", StreamEvents, "event.account.removed.<account>", "credentials", "an account was removed", exampleAccount)
	CredentialLeased = declare("credential.leased", StreamEvents, "event.credential.leased.<agent>", "credentials", "an account was lent to an agent for one job, or for longer", exampleLease)
	LeaseDenied      = declare("credential.denied", StreamEvents, "event.credential.denied.<agent>", "credentials", "an agent asked for a credential and was refused",
		LeaseNotice{Agent: exampleAgent, Job: JobID("hello-everywhere", 1, exampleAgent, 0, ""), Resource: "smb://files.example/software/hello", Purpose: "read", Reason: CredentialDenied, Why: "no account covers the resource", At: exampleTime})
)
