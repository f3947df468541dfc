package events

import "time"

// Requests to credentials.
var (
	AccountSetCall  = call[AccountRequest, AccountNotice]("credentials", "account_set", ByAdministrator, "make or change an account; the secret goes in and never comes out")
	AccountList     = call[Nothing, AccountViews]("credentials", "account_list", ByViewer, "accounts without their secrets")
	AccountRemove   = call[Named, Nothing]("credentials", "account_remove", ByAdministrator, "remove an account")
	CredentialLease = call[LeaseRequest, LeaseAnswer]("credentials", "lease", ByAgent, "a credential for one job and one resource")
)

// AccountRequest makes or changes an account.
type AccountRequest struct {
	Account   string      `json:"account"`
	Kind      AccountKind `json:"kind"`
	User      string      `json:"user"`
	Resources []string    `json:"resources,omitempty"`
	Secret    []byte      `json:"secret"`
}

// AccountViews is every account.
type AccountViews struct {
	Accounts []AccountView `json:"accounts"`
}

// AccountView is an account without its secret.
type AccountView struct {
	AccountNotice
	Changed time.Time `json:"changed"`
}

// LeaseRequest asks for a credential; the agent is the caller token.
type LeaseRequest struct {
	Job      string `json:"job"`
	Attempt  int    `json:"attempt"`
	Resource string `json:"resource"`
	Purpose  string `json:"purpose"` // read or execute
	Order    []byte `json:"order"`   // the signed envelope that names account and resource
}

// LeaseAnswer says granted or denied; Denied always has a reason and words.
type LeaseAnswer struct {
	Denied bool   `json:"denied"`
	Reason Reason `json:"reason,omitempty"`
	Why    string `json:"why,omitempty"`
}
