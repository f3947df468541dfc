package events

import "time"

// Requests to credentials about who belongs to the fleet.
var (
	AgentEnrol  = call[EnrolRequest, EnrolAnswer]("credentials", "enrol", ByEnrolling, "become an agent of the fleet, by a token")
	AgentReturn = call[EnrolRequest, EnrolAnswer]("credentials", "return", ByEnrolling, "a new identity for an enrolled key whose last one has expired")
	AgentRenew  = call[RenewRequest, EnrolAnswer]("credentials", "renew", ByAgent, "a new identity before the present one expires")
	AgentTrust  = call[TrustQuery, TrustAnswer]("credentials", "trust", ByAgent, "trust bundles newer than the agent's")

	TokenCreate = call[TokenRequest, TokenView]("credentials", "token_create", ByAdministrator, "let machines enrol with the token of this key")
	TokenList   = call[Nothing, TokenViews]("credentials", "token_list", ByAdministrator, "enrolment tokens, without their secrets")
	TokenRemove = call[Named, TokenView]("credentials", "token_remove", ByAdministrator, "nobody enrols with this token any more")

	EnrolmentList = call[EnrolmentQuery, EnrolmentViews]("credentials", "enrolment_list", ByViewer, "the agents' identities")
	AgentApprove  = call[AgentsRequest, AgentsAnswer]("credentials", "agent_approve", ByAdministrator, "let agents in that wait for approval, lapsed or were archived")
	AgentRevoke   = call[AgentsRequest, AgentsAnswer]("credentials", "agent_revoke", ByAdministrator, "give agents no identity any more, for good")
	AgentArchive  = call[AgentsRequest, AgentsAnswer]("credentials", "agent_archive", ByAdministrator, "put away agents whose machines are gone; they need approval to come back")
	AgentSetKind  = call[SetKindRequest, AgentsAnswer]("credentials", "agent_set_kind", ByAdministrator, "change how agents realise administrative programs")

	TrustSet  = call[TrustRequest, TrustNotice]("credentials", "trust_set", ByAdministrator, "hand a signed trust bundle to the agents")
	TrustShow = call[TrustQuery, TrustAnswer]("credentials", "trust_show", ByViewer, "trust bundles, oldest first")

	UserAdd    = call[UserNotice, UserNotice]("credentials", "user_add", ByAdministrator, "note a user whose credentials were made")
	UserList   = call[Nothing, UserViews]("credentials", "user_list", ByViewer, "users, their roles and keys")
	UserRevoke = call[Named, UserNotice]("credentials", "user_revoke", ByAdministrator, "note that a user's credentials are revoked")
)

// EnrolRequest is a statement with the proof of who makes it.
type EnrolRequest struct {
	Statement []byte `json:"statement"` // JSON of [EnrolStatement]
	// Signature is by the agent's key, over the statement behind a prefix: what is signed must be nothing that a
	// broker could have had signed as its nonce. See package enrolment.
	Signature []byte `json:"signature"`
	// TokenSignature is by the token's key over the same; needed to enrol, not to return.
	TokenSignature []byte `json:"token_signature,omitempty"`
}

// EnrolStatement is what an agent states of itself. A stolen copy of it is worth nothing: the answer is an
// identity for the key that signed it.
type EnrolStatement struct {
	Purpose string `json:"purpose"` // the verb: enrol or return
	Key     string `json:"key"`     // public user nkey, made by the agent, whose id it derives
	Token   string `json:"token,omitempty"`
	Machine string `json:"machine"` // hash of the machine's own id; empty where the system does not tell one
	Facts   Facts  `json:"facts"`
	Nonce   string `json:"nonce"` // comes back in the answer
	Trust   int    `json:"trust"` // version of the bundle that the agent holds, 0: none
}

// RenewRequest is made over the agent's own connection.
type RenewRequest struct {
	Machine string `json:"machine"`
	Trust   int    `json:"trust"`
}

// EnrolRefusal says in one word why an agent gets no identity.
type EnrolRefusal string

// The refusals.
const (
	RefusedProof      EnrolRefusal = "bad_proof"        // a signature does not fit
	RefusedToken      EnrolRefusal = "token_unknown"    // no such token, or it was removed
	RefusedExpired    EnrolRefusal = "token_expired"    //
	RefusedSpent      EnrolRefusal = "token_spent"      // used as often as it may be
	RefusedUnknown    EnrolRefusal = "agent_unknown"    // returns and was never enrolled
	RefusedMachine    EnrolRefusal = "machine_differs"  // the key was enrolled by another machine: a copy
	RefusedPending    EnrolRefusal = "approval_pending" // an administrator has to approve
	RefusedLapsed     EnrolRefusal = "lapsed"           // away for longer than the grace of 90 days
	RefusedArchived   EnrolRefusal = "archived"         //
	RefusedRevoked    EnrolRefusal = "revoked"          // for good
	RefusedLater      EnrolRefusal = "later"            // asked too often; ask again after Later
	RefusedNotSetUp   EnrolRefusal = "not_set_up"       // the service holds no trust bundle or no signing key
	RefusedOtherError EnrolRefusal = "other"
)

// Final says whether asking again without an administrator's help is in vain.
func (r EnrolRefusal) Final() bool {
	switch r {
	case RefusedPending, RefusedLater, RefusedNotSetUp, RefusedLapsed, RefusedArchived, RefusedOtherError:
		return false
	}
	return true
}

// EnrolAnswer is an identity, or why there is none.
type EnrolAnswer struct {
	Nonce   string       `json:"nonce,omitempty"` // of the statement
	Refused EnrolRefusal `json:"refused,omitempty"`
	Why     string       `json:"why,omitempty"`
	Later   Duration     `json:"later,omitempty"` // ask again after; 0: by the agent's own pace

	Agent     string     `json:"agent,omitempty"`
	JWT       string     `json:"jwt,omitempty"` // of a NATS user, for the agent's key
	Expires   time.Time  `json:"expires,omitzero"`
	Bundles   [][]byte   `json:"bundles,omitempty"` // signed trust bundles newer than the agent's, oldest first
	Conferred *Conferred `json:"conferred,omitempty"`
}

// Conferred is what the fleet says of a machine, beside what the machine says of itself.
type Conferred struct {
	Tags             []string   `json:"tags,omitempty"`
	Site             string     `json:"site,omitempty"`
	ClientKind       ClientKind `json:"client_kind,omitempty"`
	DomainController bool       `json:"domain_controller,omitempty"`
}

// TokenRequest makes a token. Its secret key stays with whoever asks; the service learns the public one.
type TokenRequest struct {
	Token     string    `json:"token"` // public user nkey
	Name      string    `json:"name"`
	Uses      int       `json:"uses"` // 0: any number
	Expires   time.Time `json:"expires"`
	Approval  bool      `json:"approval,omitempty"` // agents wait for an administrator
	Conferred Conferred `json:"conferred"`
}

// TokenView is a token without its secret.
type TokenView struct {
	TokenNotice
	Used int `json:"used"` // machines enrolled with it
	// EnrolmentJWT is the bearer identity with which machines speak before they have one of their own. It lets
	// them enrol and nothing else, and is part of every token.
	EnrolmentJWT string `json:"enrolment_jwt,omitempty"`
}

// TokenViews lists tokens by name.
type TokenViews struct {
	Tokens []TokenView `json:"tokens"`
}

// EnrolmentState of an agent's identity.
type EnrolmentState string

// The states.
const (
	EnrolmentPending  EnrolmentState = "pending" // waits for approval
	EnrolmentActive   EnrolmentState = "active"
	EnrolmentLapsed   EnrolmentState = "lapsed" // its last identity expired more than 90 days ago
	EnrolmentArchived EnrolmentState = "archived"
	EnrolmentRevoked  EnrolmentState = "revoked"
)

// EnrolmentQuery selects identities; all empty: every one.
type EnrolmentQuery struct {
	Agents []string       `json:"agents,omitempty"`
	State  EnrolmentState `json:"state,omitempty"`
	After  string         `json:"after,omitempty"` // agent id to go on from
	Limit  int            `json:"limit,omitempty"` // 0: 1000
}

// EnrolmentView is one agent's identity.
type EnrolmentView struct {
	EnrolmentNotice
	State   EnrolmentState `json:"state"`
	Facts   Facts          `json:"facts"` // at its enrolment
	Expires time.Time      `json:"expires,omitzero"`
	Renewed time.Time      `json:"renewed,omitzero"`
	Trust   int            `json:"trust"` // version of the bundle it last said it holds
}

// EnrolmentViews lists identities by agent id; More: go on after the last.
type EnrolmentViews struct {
	Enrolments []EnrolmentView `json:"enrolments"`
	More       bool            `json:"more,omitempty"`
}

// AgentsRequest is about these agents, by id; at most 1,000.
type AgentsRequest struct {
	Agents []string `json:"agents"`
	Why    string   `json:"why,omitempty"`
}

// SetKindRequest changes the client kind of agents; at most 1,000.
type SetKindRequest struct {
	Agents []string   `json:"agents"`
	Kind   ClientKind `json:"kind"`
	// DomainController marks the machines as domain controllers or takes the mark away; nil leaves it.
	DomainController *bool  `json:"domain_controller,omitempty"`
	Why              string `json:"why,omitempty"`
}

// AgentsAnswer lists whose identity was changed, with it, and who was unknown or needed no change.
type AgentsAnswer struct {
	Changed   []EnrolmentView `json:"changed"`
	Unchanged []string        `json:"unchanged,omitempty"`
	Unknown   []string        `json:"unknown,omitempty"`
}

// TrustRequest hands over a bundle that roots have signed.
type TrustRequest struct {
	Bundle []byte `json:"bundle"` // DSSE envelope, JSON
}

// TrustQuery asks for bundles of a higher version than Have.
type TrustQuery struct {
	Have int `json:"have"`
}

// TrustAnswer holds signed bundles, oldest first; More: ask again with the last one's version.
type TrustAnswer struct {
	Bundles [][]byte `json:"bundles"`
	More    bool     `json:"more,omitempty"`
}

// UserViews lists users by name.
type UserViews struct {
	Users []UserNotice `json:"users"`
}
