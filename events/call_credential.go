package events

import "time"

// Requests to credentials.
var (
	AccountSetCall  = call[AccountRequest, AccountNotice]("credentials", "account_set", ByAdministrator, "make or change an account; the secret goes in and never comes out")
	AccountList     = call[Nothing, AccountViews]("credentials", "account_list", ByViewer, "accounts without their secrets")
	AccountRemove   = call[Named, Nothing]("credentials", "account_remove", ByAdministrator, "remove an account")
	CredentialLease = call[LeaseRequest, LeaseAnswer]("credentials", "lease", ByAgent, "an account for one job and one purpose, sealed to the agent")
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

// LeaseRequest asks for an account; the agent is the caller token. Package lease makes and reads it.
type LeaseRequest struct {
	Statement []byte `json:"statement"` // JSON of a LeaseStatement, signed as it stands here
	Signature []byte `json:"signature"` // by the agent's enrolled key
	Order     []byte `json:"order"`     // the signed envelope by which the job is carried out
}

// LeaseStatement says what is asked for. Exactly one of Account and Kind is set.
type LeaseStatement struct {
	Agent      string      `json:"agent"`
	Job        string      `json:"job"`
	Occurrence int64       `json:"occurrence,omitempty"` // of the job, as in its id
	User       string      `json:"user,omitempty"`       // of the job, as in its id
	Attempt    int         `json:"attempt"`
	Order      string      `json:"order"`             // digest of the enclosed one
	Account    string      `json:"account,omitempty"` // by its name
	Kind       AccountKind `json:"kind,omitempty"`    // the fleet's account of that kind
	Resource   string      `json:"resource,omitempty"`
	Purpose    string      `json:"purpose"` // execute or read
	Key        []byte      `json:"key"`     // public, made for this request: what the answer is sealed to
	Nonce      string      `json:"nonce"`
	At         time.Time   `json:"at"`
}

// LeaseAnswer says granted or denied: Denied always has a reason and words, else there is a Grant.
type LeaseAnswer struct {
	Denied bool        `json:"denied"`
	Reason Reason      `json:"reason,omitempty"`
	Why    string      `json:"why,omitempty"`
	Grant  *LeaseGrant `json:"grant,omitempty"`
}

// LeaseGrant is an account for a while. All that is readable here is bound to what is sealed.
type LeaseGrant struct {
	Lease    string      `json:"lease"`
	Agent    string      `json:"agent"`
	Job      string      `json:"job"`
	Account  string      `json:"account"`
	Kind     AccountKind `json:"kind"`
	User     string      `json:"user"`    // as the operating system or the domain names it
	Version  int         `json:"version"` // of the secret
	Resource string      `json:"resource,omitempty"`
	Purpose  string      `json:"purpose"`
	Expires  time.Time   `json:"expires"`
	Sealed   []byte      `json:"sealed"` // HPKE: encapsulated key and ciphertext of the secret
}
