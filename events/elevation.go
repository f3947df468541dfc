package events

import (
	"strconv"
	"time"
)

// AccountNote says what an agent did with a local account of its machine: made it, gave it the rights that a
// program needs while it runs, took them back, or found and took back what a killed agent had left.
type AccountNote struct {
	Agent      string `json:"agent"`
	Hostname   string `json:"hostname,omitempty"`
	Account    string `json:"account"`               // as the operating system names it
	Kind       string `json:"kind"`                  // client-token, client-token-domain or software-installation
	ElevatedTo string `json:"elevated_to,omitempty"` // root, Administrators
	// Standing: the account had these rights before, and keeps them.
	Standing   bool      `json:"standing,omitempty"`
	Job        string    `json:"job,omitempty"`
	Deployment string    `json:"deployment,omitempty"`
	Attempt    int       `json:"attempt,omitempty"`
	Program    string    `json:"program,omitempty"` // package, version and program, for people
	Means      string    `json:"means,omitempty"`   // what was changed on the machine, for people
	At         time.Time `json:"at"`
}

// ID of the note's event: the same statement said again is the same event.
func (n AccountNote) ID(name string) string {
	return DeriveID(name, n.Agent, n.Account, n.Job, strconv.Itoa(n.Attempt), strconv.FormatInt(n.At.UnixNano(), 10))
}

var exampleAccountNote = AccountNote{Agent: exampleAgent, Hostname: "ws-0412", Account: "SMSCliToknLocalAcct&", Kind: "client-token", ElevatedTo: "root",
	Job: JobID("hello-everywhere", 1, exampleAgent, 0, ""), Deployment: "hello-everywhere", Attempt: 1, Program: "hello 2.10-3 install",
	Means: "rule in sudoers.d for this command alone", At: exampleTime}

// Events about accounts that programs run by.
var (
	AgentAccountCreated  = declare("agent.account.created", StreamEvents, "event.agent.account_created.<agent>", "agent", "the agent made the local account that programs of a legacy client run by", exampleAccountNote)
	AgentAccountElevated = declare("agent.account.elevated", StreamEvents, "event.agent.account_elevated.<agent>", "agent", "an account was given rights for one run of one program", exampleAccountNote)
	AgentAccountReturned = declare("agent.account.returned", StreamEvents, "event.agent.account_returned.<agent>", "agent", "the run is over and the account has no more rights than before", exampleAccountNote)
	AgentAccountRestored = declare("agent.account.restored", StreamEvents, "event.agent.account_restored.<agent>", "agent", "the agent found rights that a killed agent had left to an account, and took them back", exampleAccountNote)
)

// AccountNoteType is the type of an event about accounts, by its name.
func AccountNoteType(name string) (Type[AccountNote], bool) {
	for _, t := range []Type[AccountNote]{AgentAccountCreated, AgentAccountElevated, AgentAccountReturned, AgentAccountRestored} {
		if t.Name == name {
			return t, true
		}
	}
	return Type[AccountNote]{}, false
}
