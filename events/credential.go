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

// LeaseNotice is the audit of a request for a credential.
type LeaseNotice struct {
	Agent    string    `json:"agent"`
	Job      string    `json:"job"`
	Account  string    `json:"account,omitempty"`
	Resource string    `json:"resource"`
	Purpose  string    `json:"purpose"`
	Reason   Reason    `json:"reason,omitempty"`
	Why      string    `json:"why,omitempty"`
	At       time.Time `json:"at"`
}

var exampleAccount = AccountNotice{Account: "corp-reader", Kind: NetworkAccess, User: `EXAMPLE\reader`, Resources: []string{"smb://files.example/software/*"}, Version: 1, By: "admin", At: exampleTime}

// Events about credentials.
var (
	AccountSet     = declare("account.set", StreamEvents, "event.account.set.<account>", "credentials", "an account was made, or its secret or scope changed", exampleAccount)
	AccountRemoved = declare("account.removed", StreamEvents, "event.account.removed.<account>", "credentials", "an account was removed", exampleAccount)
	LeaseDenied    = declare("credential.denied", StreamEvents, "event.credential.denied.<agent>", "credentials", "an agent asked for a credential and was refused",
		LeaseNotice{Agent: exampleAgent, Job: JobID("hello-everywhere", 1, exampleAgent, 0, ""), Resource: "smb://files.example/software/hello", Purpose: "read", Reason: CredentialDenied, Why: "no account covers the resource", At: exampleTime})
)
