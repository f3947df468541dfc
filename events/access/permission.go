package access

import (
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"

	"chandler/events"
)

// What the broker puts in place of these when a user connects.
const (
	itsName = "{{name()}}"
	itsKey  = "{{subject()}}"
	// itsEvents stands for each of the user's tags "event:…"; a user without one gets nothing.
	itsEvents = "{{tag(event)}}"
	eventTag  = "event:"
)

const (
	inboxes = "_INBOX."
	// enrolInbox is the inbox prefix of machines that enrol. They share one identity, and with it one inbox.
	enrolInbox = inboxes + "enrol"
	jsAPI      = "$JS.API."
	domainAPI  = "$JS." + Domain + ".API."
	control    = "$SRV.>" // asks services what they are and how they fare (NATS micro)
)

// Sizes of what a machine may send before it has an identity: a statement of 64 KiB in base64, with its
// signatures. An agent sends what a stream or a service takes, with headers.
const (
	enrolPayload = 128 << 10
	enrolSubs    = 4
	agentSubs    = 32
)

// grant is what the users of a role may publish and subscribe to; nothing else.
type grant struct {
	publish, subscribe []string
}

func (g *grant) pub(subjects ...string) { g.publish = append(g.publish, subjects...) }
func (g *grant) sub(subjects ...string) { g.subscribe = append(g.subscribe, subjects...) }

// template is the grant in the form of a scoped signing key, with the role's limits.
func template(r Role) jwt.UserPermissionLimits {
	g := grantOf(r)
	var t jwt.UserPermissionLimits
	t.NatsLimits = jwt.NatsLimits{Subs: jwt.NoLimit, Data: jwt.NoLimit, Payload: jwt.NoLimit}
	t.Pub, t.Sub = permission(g.publish), permission(g.subscribe)
	t.AllowedConnectionTypes = clientConnections()
	switch r {
	case Agent:
		t.Subs = agentSubs
	case Enrolling:
		t.BearerToken, t.Subs, t.Payload = true, enrolSubs, enrolPayload
	}
	return t
}

// clientConnections are those of clients. No leaf nodes and no MQTT: their connections ask for more than the
// subjects that are granted.
func clientConnections() jwt.StringList {
	return jwt.StringList{jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket, jwt.ConnectionTypeInProcess}
}

// permission allows these subjects. The broker reads an empty list as no limit, so that nothing must be
// denied.
func permission(subjects []string) jwt.Permission {
	if len(subjects) == 0 {
		return jwt.Permission{Deny: jwt.StringList{">"}}
	}
	return jwt.Permission{Allow: tidy(subjects)}
}

func tidy(subjects []string) []string { return slices.Compact(slices.Sorted(slices.Values(subjects))) }

func grantOf(r Role) grant {
	var g grant
	switch r {
	case Agent:
		grantAgent(&g)
	case Enrolling:
		grantCalls(&g, r, "*") // the agent's id is what its statement proves
		g.sub(enrolInbox + ".>")
	case Viewer, Deployer:
		grantPerson(&g, r)
	case Administrator:
		grantPerson(&g, r)
		g.pub(jsInfo)
		g.pub(examining()...)
	case Integrator:
		g.sub(events.Prefix + itsEvents)
	case Provisioner:
		grantProvisioner(&g)
	default:
		grantService(&g, r.service())
	}
	return g
}

// grantCalls lets the role make its calls in the given name.
func grantCalls(g *grant, r Role, name string) {
	for _, c := range events.Calls() {
		if r.caller().Includes(c.By) {
			g.pub(c.Subject(itsKey, name))
		}
	}
}

// grantAgent lets an agent speak of itself, read the sequence of its own newest offer, and hear what is for
// it or for all.
func grantAgent(g *grant) {
	grantCalls(g, Agent, itsName)
	for _, d := range events.Types() {
		switch {
		case d.Sender == "agent":
			g.pub(published(d, itsName))
		case d.Stream == "" && strings.HasSuffix(d.Pattern, "<agent>"):
			g.sub(d.Subject(itsName)) // for it alone
		case d.Stream == "":
			g.sub(d.Subject("*"))
		}
	}
	g.pub(newestOffer(jsAPI, itsName), newestOffer(domainAPI, itsName))
	g.sub(events.AgentInbox(itsName), inboxes+itsName+".>")
}

// newestOffer is where an agent asks for its newest offer, at the hub's own API or by its domain. Without the
// subject at its end the body of the request would choose whose.
func newestOffer(api, agent string) string {
	return api + "DIRECT.GET." + events.StreamJobs + "." + events.OfferStored(agent)
}

// grantPerson lets people make their calls, read what is stored and hear what happens.
func grantPerson(g *grant, r Role) {
	grantCalls(g, r, itsName)
	g.pub(reading()...)
	g.pub(control)
	g.sub(eventSubjects()...)
	g.sub(inboxes + itsName + ".>")
}

// unread are the streams that people have no business in.
func unread() []string {
	return []string{
		events.StreamTimers, // the services' alarm clocks
		events.StreamFold,   // execution's own records
	}
}

// reading is how people read the streams: without consumers, which would be kept by the broker.
func reading() []string {
	var subjects []string
	for _, s := range events.Streams() {
		if s.Direct && !slices.Contains(unread(), s.Name) {
			subjects = append(subjects, jsAPI+"DIRECT.GET."+s.Name)
		}
	}
	return subjects
}

// examining is how an administrator looks at everything that the broker keeps for the services, but for what
// is in the buckets, and without readers of its own: it can neither take away the services' nor have messages
// delivered anywhere.
func examining() []string {
	var subjects []string
	for _, what := range []string{"STREAM.NAMES", "STREAM.LIST", "STREAM.INFO.*", "CONSUMER.NAMES.*", "CONSUMER.LIST.*", "CONSUMER.INFO.*.*"} {
		subjects = append(subjects, jsAPI+what)
	}
	for _, s := range events.Streams() {
		subjects = append(subjects, jsAPI+"DIRECT.GET."+s.Name, jsAPI+"STREAM.MSG.GET."+s.Name)
	}
	return subjects
}

// grantProvisioner lets streams and buckets be made, widened and backed up, never removed or emptied.
func grantProvisioner(g *grant) {
	names := []string{}
	for _, s := range events.Streams() {
		names = append(names, s.Name)
	}
	for _, b := range events.Buckets() {
		names = append(names, bucketStream(b))
	}
	for _, name := range names {
		for _, verb := range []string{"CREATE", "UPDATE", "INFO"} {
			g.pub(jsAPI + "STREAM." + verb + "." + name)
		}
	}
	g.pub(jsInfo) // the client asks what the broker can before it makes a bucket
	grantBackup(g, names)
	g.sub(inboxes + string(Provisioner) + ".>")
}

// bucketStream is the name of the stream that keeps a bucket.
func bucketStream(b events.Bucket) string {
	if b.Objects {
		return "OBJ_" + b.Name
	}
	return "KV_" + b.Name
}

// published is where events of type d about token are published. Types that fill a stream of their own
// share its subject, which keeps the lists of agents short.
func published(d events.Declaration, token string) string {
	subject := streamSubject(d)
	if stem, ok := strings.CutSuffix(subject, ".*"); ok {
		return stem + "." + token
	}
	return d.Subject(token)
}

// streamSubject is the subject of its stream that takes events of type d; "" if it is not stored.
func streamSubject(d events.Declaration) string {
	for _, s := range events.Streams() {
		if s.Name != d.Stream {
			continue
		}
		for _, subject := range s.Subjects {
			if jwt.Subject(d.Subject("*")).IsContainedIn(jwt.Subject(subject)) {
				return subject
			}
		}
	}
	return ""
}

// taken is the subject on which the stream of type d takes it among others, or its own if none stores it.
func taken(d events.Declaration) string {
	if subject := streamSubject(d); subject != "" {
		return subject
	}
	return d.Subject("*")
}

// eventSubjects is where events of every type are published.
func eventSubjects() []string {
	var subjects []string
	for _, d := range events.Types() {
		subjects = append(subjects, taken(d))
	}
	return tidy(subjects)
}
