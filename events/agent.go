package events

import "time"

// ClientKind says how an agent realises administrative programs.
type ClientKind string

// The client kinds.
const (
	Advanced ClientKind = "advanced"
	Legacy   ClientKind = "legacy"
)

// Facts is what an agent says of its machine. CEL expressions see it as "agent" with the names of the
// JSON fields.
type Facts struct {
	ID               string     `json:"id"`
	Hostname         string     `json:"hostname"`
	Domain           string     `json:"domain"`
	OS               string     `json:"os"`         // linux, windows, darwin
	OSName           string     `json:"os_name"`    // debian, "Microsoft Windows Server 2025 …"
	OSVersion        string     `json:"os_version"` // 12.7
	Arch             string     `json:"arch"`       // amd64, arm64
	Kernel           string     `json:"kernel"`
	Addresses        []string   `json:"addresses"`
	Site             string     `json:"site"`
	Tags             []string   `json:"tags"`
	ClientKind       ClientKind `json:"client_kind"`
	DomainController bool       `json:"domain_controller"`
	MemoryBytes      int64      `json:"memory_bytes"`
	Version          string     `json:"version"`      // of the agent
	Privileged       bool       `json:"privileged"`   // runs as root or LocalSystem
	OfferFormat      int        `json:"offer_format"` // newest offer it reads
	Zone             string     `json:"zone"`         // IANA name of the machine's time zone
	BootID           string     `json:"boot_id"`
	Trust            int        `json:"trust,omitempty"`      // version of the trust bundle that it holds
	Incomplete       []string   `json:"incomplete,omitempty"` // facts that could not be read
}

// AgentReport carries the facts, at the agent's start and when they change.
type AgentReport struct {
	Facts Facts     `json:"facts"`
	At    time.Time `json:"at"`
}

// HeartbeatNote is what an agent says every few minutes on core NATS; it is not stored.
type HeartbeatNote struct {
	Agent   string    `json:"agent"`
	Version string    `json:"version"`
	Jobs    int       `json:"jobs"` // not ended
	At      time.Time `json:"at"`
	// Instance is 16 letters and digits, drawn at each start of the agent: who starts again never says the
	// old one again. Two that are heard in turns are two running agents.
	Instance string `json:"instance,omitempty"`
}

// TwinsNotice tells that several agents run with one identity: a state directory was copied, or a machine
// with it.
type TwinsNotice struct {
	Agent     string    `json:"agent"`
	Hostname  string    `json:"hostname"`  // of the one that reported last
	Instances []string  `json:"instances"` // two of those that run, sorted
	At        time.Time `json:"at"`        // they were heard in turns
}

const exampleInstance, exampleTwin = "5o3dkkqzy7vx2abt", "w6hq4mzp2c7rjt3f"

// Events about agents.
var (
	AgentReported = declare("agent.reported", StreamEvents, "event.agent.reported.<agent>", "agent", "an agent's facts, at its start and when they change",
		AgentReport{Facts: Facts{ID: exampleAgent, Hostname: "ws-0412", Domain: "example", OS: "linux", OSName: "debian", OSVersion: "12.7", Arch: "amd64",
			Addresses: []string{"192.0.2.17"}, Site: "oslo", Tags: []string{"office"}, ClientKind: Advanced, Version: "0.1.0", Privileged: true, OfferFormat: OfferFormat, Zone: "Europe/Oslo"}, At: exampleTime})
	Heartbeat  = declare("agent.heartbeat", "", "heartbeat.<agent>", "agent", "an agent is there; not stored", HeartbeatNote{Agent: exampleAgent, Version: "0.1.0", At: exampleTime, Instance: exampleInstance})
	AgentTwins = declare("agent.twins", StreamEvents, "event.agent.twins.<agent>", "scheduling", "several agents run with one identity; once an hour at most while they do",
		TwinsNotice{Agent: exampleAgent, Hostname: "ws-0412", Instances: []string{exampleInstance, exampleTwin}, At: exampleTime})
)
