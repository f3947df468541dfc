package agent

import (
	"context"
	"slices"
	"time"

	"chandler/agent/external"
	"chandler/agent/fetch"
	"chandler/agent/identity"
	"chandler/agent/journal"
	"chandler/agent/lease"
	"chandler/agent/logon"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/advice"
	"chandler/events/manifest"
)

// reacher is who reads outside: one identity, and where that is a user, in one session.
type reacher struct {
	who     identity.Who
	session string
	user    string
	since   time.Time
}

func (t *task) reacher() reacher {
	r := reacher{who: t.who.Network}
	if t.who.Network == identity.User && t.session != nil {
		r.session, r.user, r.since = t.session.ID, t.session.User, t.session.Since
	}
	return r
}

// outside is the reader of external sources of this attempt, in the one identity that it has on the network; a reader
// is made when it is first needed, and anew for another identity, user or session.
func (t *task) outside() (*external.Reader, error) {
	if t.reach != nil && t.reachOf == t.reacher() {
		return t.reach, nil
	}
	t.leaveOutside()
	sources, done, err := t.sourcesOf()
	if err != nil {
		return nil, err
	}
	o := external.Options{Who: t.who.Network, User: t.reacher().user, Resources: t.part().Resources, Sources: sources, Logins: &t.a.logins, Clock: t.a.Clock, Told: t.accessed}
	switch t.who.Network {
	case identity.NetworkAccess:
		o.Lend = t.toRead(lease.Wanted{Kind: events.NetworkAccess})
	case identity.Installation:
		o.Lend = t.toRead(lease.Wanted{Account: t.part().InstallationAccount})
	}
	t.reach, t.reachOf, t.reachDone = external.New(o), t.reacher(), done
	t.a.lends(t.job.Offer.Job, t.runDir(), t.reach)
	return t.reach, nil
}

// leaveOutside ends what this attempt could read outside.
func (t *task) leaveOutside() {
	if t.reach != nil {
		t.a.lends(t.job.Offer.Job, "", nil)
		t.reach.Close()
		t.reachDone()
		t.reach, t.checked = nil, time.Time{}
	}
}

// sourcesOf are the drivers that read as the task's identity: as the logged-on user they are in a process of his.
func (t *task) sourcesOf() (map[string]source.Source, func(), error) {
	if t.who.Network != identity.User {
		return t.a.External, func() {}, nil
	}
	if t.a.UserSources == nil || t.session == nil {
		return nil, nil, end(events.Failed, events.ContextUnsupported, "this agent has nothing that reads external sources as a logged-on user")
	}
	return t.a.UserSources(*t.session)
}

// toRead asks for an account that reads a resource of the order.
func (t *task) toRead(wanted lease.Wanted) func(context.Context, string) (*lease.Lease, error) {
	return func(ctx context.Context, resource string) (*lease.Lease, error) {
		return t.borrow(ctx, wanted, events.LeaseToRead, resource)
	}
}

// contentOutside says where the package's files lie outside, and reads them there.
func (t *task) contentOutside() (fetch.Outside, error) {
	if !manifest.External(t.manifest) {
		return fetch.Outside{}, nil
	}
	reader, err := t.outside()
	return fetch.Outside{Address: func(f events.File) string { return manifest.Address(t.manifest, f) }, Source: external.Content{Reader: reader}, Identity: string(t.who.Reader)}, err
}

// checkedFor is how long it is believed that references can be read.
const checkedFor = 5 * time.Minute

// referencesChecked says that the reader of now has found what the program needs, not long ago.
func (t *task) referencesChecked() bool {
	if len(t.needed()) == 0 {
		return true
	}
	return t.reach != nil && t.reachOf == t.reacher() && t.a.Clock().Sub(t.checked) < checkedFor
}

// checkReferences makes sure, shortly before the start, that what the program needs to read can be read, and is what it
// was to be.
func (t *task) checkReferences(ctx context.Context) error {
	for _, r := range t.needed() {
		reader, err := t.outside()
		if err != nil {
			return err
		}
		if err := reader.Check(ctx, r); err != nil {
			return err
		}
	}
	t.checked = t.a.Clock()
	return nil
}

// readerLeft says that reading failed since the user, who reads, has logged off: then the job waits for one again.
func (t *task) readerLeft(ctx context.Context, failed error) bool {
	if t.who.Network != identity.User || t.session == nil || failed == nil || ctx.Err() != nil {
		return false
	}
	switch asEnding(failed).reason {
	case events.SourceUnreachable, events.UserLoggedOff, events.CouldNotStart:
		return t.sessionEnds(ctx, t.session)
	}
	return false
}

// needed are the references without which the program does not start.
func (t *task) needed() []events.Reference {
	return slices.DeleteFunc(slices.Clone(t.program.References), func(r events.Reference) bool { return r.Optional })
}

// readsAsUser says that the content is read by the logged-on user, who must be there for it.
func (t *task) readsAsUser() bool {
	return t.who.Reader == identity.User && manifest.External(t.manifest)
}

// accessed takes in what came of an access: for the status, the log, the metrics and, where an account was lent for it,
// the audit.
func (t *task) accessed(a events.Access, leased string) {
	t.a.metrics.accesses.WithLabelValues(a.Identity, string(a.Reason)).Inc()
	t.accesses.add(a)
	if a.Reason == events.NoReason { // a failure is told with what came of it: see judge and tell
		t.say(info, "Access: %s", advice.Sentence(a))
	}
	if leased == "" {
		return
	}
	use := events.LeaseUse{Lease: leased, Agent: t.a.id, Hostname: t.facts.Hostname, Job: t.job.Offer.Job, Deployment: t.deployment, Access: a}
	if err := t.a.journal.Notify(journal.Notice{Type: events.CredentialUsed.Name, Use: &use}); err != nil {
		t.a.log.Error("use of a lease not journalled", "job", t.job.Offer.Job, "lease", leased, "error", err)
		return
	}
	t.a.reporter.Wake()
}

// accessEnding ends an attempt for want of something outside.
func accessEnding(e *external.Error) *ending {
	text := advice.Sentence(e.Access)
	if fix := advice.For(e.Access); fix != "" {
		text += "; " + fix
	}
	return &ending{events.Failed, e.Reason, status{explanation: text, identity: e.Identity, resource: e.Resource, answer: e.Answer}}
}

// UserSources gives the drivers that read as a logged-on user, by scheme, and what ends them.
type UserSources func(logon.Session) (map[string]source.Source, func(), error)
