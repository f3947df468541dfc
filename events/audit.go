package events

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

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

// Abouter is a request that says in a few words what it is about, for its [AuditRecord]. Every request that
// changes something is one. The words never hold a secret; whoever records them bounds and cleans them.
type Abouter interface{ About() string }

// SecretHolder is a request with a secret in it. Its digest in the audit is that of the JSON of
// WithoutSecret: by the digest of the whole, whoever reads the audit could try guesses at the secret.
type SecretHolder interface{ WithoutSecret() any }

// aboutListed is how many of a request's ids its About tells.
const aboutListed = 5

// About is nothing.
func (Nothing) About() string { return "" }

// About is the name, and the version if there is one.
func (r Named) About() string {
	if r.Version == "" {
		return r.Name
	}
	return r.Name + "@" + r.Version
}

// About is the collection's name.
func (c Collection) About() string { return c.Name }

// About is the deployment that the envelope's payload names; empty where it names none.
func (r DeploymentRequest) About() string { return deploymentIn(r.Envelope) }

// About is the deployment that the envelope's payload names; empty where it names none.
func (r SignRequest) About() string { return deploymentIn(r.Envelope) }

// About is the deployment, and whether running programs are ended too.
func (r StopRequest) About() string {
	if r.Kill {
		return r.Deployment + " (kill)"
	}
	return r.Deployment
}

// About is the deployment.
func (r PlanRequest) About() string { return r.Deployment }

// About is the type and what it is about.
func (s Signal) About() string { return s.Type + " " + s.Subject }

// About is the limits.
func (l Limits) About() string {
	return fmt.Sprintf("in flight %d, per site %d, retries a minute %d", l.MaxInFlight, l.MaxInFlightPerSite, l.RetriesPerMinute)
}

// About is the scope and its name.
func (f Freeze) About() string { return strings.TrimSuffix(f.Scope+" "+f.Name, " ") }

// About counts what is to be stored.
func (r UploadRequest) About() string {
	var size int64
	for _, b := range r.Blobs {
		size += b.Size
	}
	return fmt.Sprintf("%d blobs, %d bytes", len(r.Blobs), size)
}

// About is the manifest's digest.
func (r CommitRequest) About() string { return r.Manifest }

// About is the account's name and kind.
func (r AccountRequest) About() string { return r.Account + " (" + string(r.Kind) + ")" }

// WithoutSecret is the request as it is digested for the audit.
func (r AccountRequest) WithoutSecret() any {
	r.Secret = nil
	return r
}

// About is the account's name.
func (r AccountRotation) About() string { return r.Account }

// WithoutSecret is the request as it is digested for the audit.
func (r AccountRotation) WithoutSecret() any {
	r.Secret = nil
	return r
}

// About is the account, what is tried and where.
func (r AccountTestRequest) About() string {
	return r.Account + " at " + r.Resource + " from " + r.Agent
}

// About is what chooses the leases.
func (q LeaseQuery) About() string {
	return strings.TrimSpace(strings.Join([]string{q.Lease, q.Account, q.Agent, q.Job}, " "))
}

// About is the token's name.
func (r TokenRequest) About() string { return r.Name }

// About is the first agents, and how many there are.
func (r AgentsRequest) About() string { return listed(r.Agents) }

// About is the kind, the first agents, and how many there are.
func (r SetKindRequest) About() string { return string(r.Kind) + ": " + listed(r.Agents) }

// About is the version of the bundle; empty where it names none.
func (r TrustRequest) About() string {
	var bundle struct {
		Fleet   string `json:"fleet"`
		Version int    `json:"version"`
	}
	if !payloadIn(r.Bundle, &bundle) {
		return ""
	}
	return fmt.Sprintf("%s version %d", bundle.Fleet, bundle.Version)
}

// About is the user's name and role.
func (u UserNotice) About() string { return u.User + " (" + u.Role + ")" }

func listed(ids []string) string {
	if len(ids) <= aboutListed {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s … (%d)", strings.Join(ids[:aboutListed], ", "), len(ids))
}

// deploymentIn reads the name of a deployment from an envelope that nobody has verified.
func deploymentIn(envelope []byte) string {
	var order struct {
		Deployment string `json:"deployment"`
	}
	if !payloadIn(envelope, &order) {
		return ""
	}
	return order.Deployment
}

// payloadIn reads the payload of a DSSE envelope without looking at its signatures.
func payloadIn(envelope []byte, to any) bool {
	var outer struct {
		Payload []byte `json:"payload"`
	}
	return json.Unmarshal(envelope, &outer) == nil && json.Unmarshal(outer.Payload, to) == nil
}
