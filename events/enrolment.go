package events

import "time"

// TokenNotice is an enrolment token as it is known to all: never its secret.
type TokenNotice struct {
	Token     string    `json:"token"` // public key
	Name      string    `json:"name"`
	Uses      int       `json:"uses"` // 0: any number
	Expires   time.Time `json:"expires"`
	Approval  bool      `json:"approval,omitempty"`
	Conferred Conferred `json:"conferred"`
	By        string    `json:"by"`
	Why       string    `json:"why,omitempty"` // it was removed
	At        time.Time `json:"at"`
}

// EnrolmentNotice says what became of an agent's identity.
type EnrolmentNotice struct {
	Agent     string    `json:"agent"`
	Key       string    `json:"key"` // public user nkey
	Hostname  string    `json:"hostname"`
	Token     string    `json:"token,omitempty"` // name of the token it came by
	Conferred Conferred `json:"conferred"`
	By        string    `json:"by,omitempty"` // administrator
	Why       string    `json:"why,omitempty"`
	At        time.Time `json:"at"`
}

// EnrolmentRefusalNotice says that somebody was not let in.
type EnrolmentRefusalNotice struct {
	Agent    string       `json:"agent"`
	Hostname string       `json:"hostname,omitempty"` // as it said itself
	Token    string       `json:"token,omitempty"`    // public key
	Refused  EnrolRefusal `json:"refused"`
	Why      string       `json:"why"`
	At       time.Time    `json:"at"`
}

// UserNotice is a user of the fleet: a person or a program that speaks as one of the roles.
type UserNotice struct {
	User    string    `json:"user"`             // name, the last token of its requests
	Role    string    `json:"role"`             // administrator, deployer, viewer, integrator, or a service's name
	Key     string    `json:"key"`              // public user nkey
	Events  []string  `json:"events,omitempty"` // of an integrator: the event types that it may subscribe to
	Expires time.Time `json:"expires,omitzero"`
	Revoked bool      `json:"revoked,omitempty"`
	By      string    `json:"by"`
	Why     string    `json:"why,omitempty"` // it was revoked
	At      time.Time `json:"at"`
}

// TrustNotice carries a trust bundle as its roots signed it.
type TrustNotice struct {
	Fleet   string    `json:"fleet"`
	Version int       `json:"version"`
	Bundle  []byte    `json:"bundle"` // DSSE envelope, JSON
	By      string    `json:"by"`
	At      time.Time `json:"at"`
}

// TrustBeacon tells agents which version of the bundle is the newest; those that hold an older one ask.
type TrustBeacon struct {
	Version int       `json:"version"`
	At      time.Time `json:"at"`
}

const exampleKey = "UAHVPCZKDQ5NLTPWDJCZHVMQWUYSLCQMLXRSMWJ2UX6AYOL2VKYSPFLB"

var (
	exampleToken = TokenNotice{Token: exampleKey, Name: "oslo-office", Uses: 500, Expires: exampleTime.Add(24 * time.Hour),
		Conferred: Conferred{Tags: []string{"office"}, Site: "oslo", ClientKind: Advanced}, By: "admin", At: exampleTime}
	exampleEnrolment = EnrolmentNotice{Agent: exampleAgent, Key: exampleKey, Hostname: "ws-0412", Token: "oslo-office",
		Conferred: Conferred{Tags: []string{"office"}, Site: "oslo", ClientKind: Advanced}, At: exampleTime}
	exampleUser = UserNotice{User: "ada", Role: "deployer", Key: exampleKey, By: "admin", At: exampleTime}
)

// Events about who belongs to the fleet.
var (
	TokenCreated = declare("token.created", StreamEvents, "event.token.created.<token>", "credentials", "machines may enrol with a new token", exampleToken)
	TokenRemoved = declare("token.removed", StreamEvents, "event.token.removed.<token>", "credentials", "nobody enrols with the token any more", exampleToken)

	AgentEnrolled    = declare("agent.enrolled", StreamEvents, "event.agent.enrolled.<agent>", "credentials", "a machine became an agent of the fleet", exampleEnrolment)
	AgentPending     = declare("agent.pending", StreamEvents, "event.agent.pending.<agent>", "credentials", "a machine waits for approval", exampleEnrolment)
	AgentApproved    = declare("agent.approved", StreamEvents, "event.agent.approved.<agent>", "credentials", "an administrator let an agent in, or back", exampleEnrolment)
	AgentRevoked     = declare("agent.revoked", StreamEvents, "event.agent.revoked.<agent>", "credentials", "an agent gets no identity any more", exampleEnrolment)
	AgentArchived    = declare("agent.archived", StreamEvents, "event.agent.archived.<agent>", "credentials", "an agent was put away: its machine is gone", exampleEnrolment)
	AgentKindSet     = declare("agent.kind_set", StreamEvents, "event.agent.kind_set.<agent>", "credentials", "an administrator changed how an agent realises administrative programs", exampleEnrolment)
	EnrolmentRefused = declare("agent.refused", StreamEvents, "event.agent.refused.<agent>", "credentials", "somebody asked for an identity and was refused",
		EnrolmentRefusalNotice{Agent: exampleAgent, Hostname: "ws-0412", Refused: RefusedMachine, Why: "the key was enrolled by another machine", At: exampleTime})

	UserAdded   = declare("user.added", StreamEvents, "event.user.added.<user>", "credentials", "credentials were made for a user", exampleUser)
	UserRevoked = declare("user.revoked", StreamEvents, "event.user.revoked.<user>", "credentials", "a user's credentials were revoked", exampleUser)

	TrustChanged = declare("trust.changed", StreamEvents, "event.trust.changed.<fleet>", "credentials", "whose orders agents obey changed",
		TrustNotice{Fleet: "example", Version: 2, Bundle: []byte(`{"payloadType":"application/vnd.chandler.trust+json","payload":"e30=","signatures":[]}`), By: "admin", At: exampleTime})
	TrustAnnounced = declare("trust.announced", "", "trust", "credentials", "the version of the newest trust bundle; not stored", TrustBeacon{Version: 2, At: exampleTime})
)
