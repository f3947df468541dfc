package events

import "time"

// EveryService is the sender of event types that each service publishes about itself.
const EveryService = "every service"

// AuditRecord is one administrative request, also one that was refused. What the broker refuses for want of
// permission reaches no service; it is in the broker's log.
type AuditRecord struct {
	By      string `json:"by"`  // name of the caller, pinned by the broker
	Key     string `json:"key"` // public key that the caller's connection proved
	Service string `json:"service"`
	Verb    string `json:"verb"`
	About   string `json:"about,omitempty"` // deployment, package, agent … that the request names
	Request string `json:"request"`         // digest of the request's bytes
	// Before and After are digests of what the request changed, as the service keeps it; empty where there was,
	// or is, nothing, or the request changes nothing that is kept as one thing.
	Before string    `json:"before,omitempty"`
	After  string    `json:"after,omitempty"`
	Result string    `json:"result"` // ok, or the error's code
	Error  string    `json:"error,omitempty"`
	At     time.Time `json:"at"`
}

// Events of the audit.
var AuditRecorded = declare("audit.recorded", StreamEvents, "event.audit.recorded.<service>", EveryService, "an administrative request was carried out or refused",
	AuditRecord{By: "ada", Key: exampleKey, Service: "scheduling", Verb: "deployment_create", About: "hello-everywhere", Request: exampleDigest, After: exampleDigest, Result: "ok", At: exampleTime})
