package events

import "time"

// Requests to credentials.
var (
	AccountSetCall    = call[AccountRequest, AccountNotice]("credentials", "account_set", ByAdministrator, "make or change an account; the secret goes in and never comes out")
	AccountList       = call[Nothing, AccountViews]("credentials", "account_list", ByViewer, "accounts without their secrets")
	AccountRemove     = call[Named, Nothing]("credentials", "account_remove", ByAdministrator, "remove an account")
	AccountRotate     = call[AccountRotation, AccountNotice]("credentials", "account_rotate", ByAdministrator, "give an account its next secret, and keep the one before for a while")
	AccountTest       = call[AccountTestRequest, AccountTestResult]("credentials", "account_test", ByAdministrator, "let an agent try a resource by an account once")
	AccountTestAnswer = call[AccountTestReport, Nothing]("credentials", "account_test_answer", ByAgent, "what a resource answered when an agent tried it for an administrator")
	AccountRekey      = call[Nothing, AccountRekeyed]("credentials", "account_rekey", ByAdministrator, "encrypt all secrets at rest by a new key")
	LeaseList         = call[LeaseQuery, LeaseViews]("credentials", "lease_list", ByViewer, "what is lent to whom")
	LeaseRevoke       = call[LeaseQuery, LeaseViews]("credentials", "lease_revoke", ByAdministrator, "withdraw leases")
	CredentialLease   = call[LeaseRequest, LeaseAnswer]("credentials", "lease", ByAgent, "an account for one job and one purpose, sealed to the agent")
)

// AccountRequest makes or changes an account.
type AccountRequest struct {
	Account     string      `json:"account"`
	Kind        AccountKind `json:"kind"`
	User        string      `json:"user"`
	Method      string      `json:"method,omitempty"` // "": by password
	Resources   []string    `json:"resources,omitempty"`
	Collections []string    `json:"collections,omitempty"`
	Domain      string      `json:"domain,omitempty"`
	Secret      []byte      `json:"secret"`
	KeepOld     Duration    `json:"keep_old,omitempty"` // for how long the version before counts; 0: no longer
}

// AccountRotation gives an account its next secret and changes nothing else of it.
type AccountRotation struct {
	Account string   `json:"account"`
	Secret  []byte   `json:"secret"`
	KeepOld Duration `json:"keep_old,omitempty"`
}

// AccountTestRequest names who tries what.
type AccountTestRequest struct {
	Account  string `json:"account"`
	Resource string `json:"resource"`
	Agent    string `json:"agent"`
	// Again shows the host a secret that it refused this agent before.
	Again bool `json:"again,omitempty"`
}

// AccountTestResult is what was answered: Access.Reason "" if it could be read.
type AccountTestResult struct {
	Access Access `json:"access"`
}

// AccountTestReport is an agent's answer to an [AccountTestNote].
type AccountTestReport struct {
	Test   string `json:"test"`
	Access Access `json:"access"`
}

// AccountRekeyed says what was encrypted anew.
type AccountRekeyed struct {
	Accounts int    `json:"accounts"`
	Key      string `json:"key"`     // id of the new key in the keyset
	KeptBy   string `json:"kept_by"` // what encrypts the keyset: file, transit or command, and which
}

// LeaseQuery chooses leases: those that agree with all that is set. To revoke, something must be.
type LeaseQuery struct {
	Lease   string `json:"lease,omitempty"`
	Agent   string `json:"agent,omitempty"`
	Job     string `json:"job,omitempty"`
	Account string `json:"account,omitempty"`
}

// LeaseViews are leases that have not expired, by agent and time.
type LeaseViews struct {
	Leases []LeaseNotice `json:"leases"`
}

// AccountViews is every account.
type AccountViews struct {
	Accounts []AccountView `json:"accounts"`
}

// AccountView is an account without its secret.
type AccountView struct {
	AccountNotice
	Changed   time.Time `json:"changed"`
	Suspended string    `json:"suspended,omitempty"` // why this version is lent no more; "": it is
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
	Purpose    string      `json:"purpose"`        // execute, read, or test, which has no order
	Test       string      `json:"test,omitempty"` // of which an administrator asked, instead of a job
	Key        []byte      `json:"key"`            // public, made for this request: what the answer is sealed to
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
	User     string      `json:"user"`             // as the operating system or the domain names it
	Method   string      `json:"method,omitempty"` // how it proves itself; "": by password
	Version  int         `json:"version"`          // of the secret
	Resource string      `json:"resource,omitempty"`
	Purpose  string      `json:"purpose"`
	Expires  time.Time   `json:"expires"`
	Sealed   []byte      `json:"sealed"` // HPKE: encapsulated key and ciphertext of the secret
}
