package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/resource"
)

// leaseEvent is one event about an account that was asked for. Exactly one of Notice and Use is set.
type leaseEvent struct {
	Event  string              `json:"event"` // credential.leased
	Notice *events.LeaseNotice `json:"notice,omitempty"`
	Use    *events.LeaseUse    `json:"use,omitempty"`
}

func (e leaseEvent) at() time.Time {
	if e.Use != nil {
		return e.Use.At
	}
	return e.Notice.At
}

// attempt of the job that the event happened in; 0 where it does not say. A lease may end long after the attempt that it was
// made for.
func (e leaseEvent) attempt() int {
	if e.Use != nil || e.Event == shortType(events.CredentialRevoked.Name) || e.Event == shortType(events.CredentialExpired.Name) {
		return 0
	}
	return e.Notice.Attempt
}

// noticeTypes are the events that credentials tells.
func noticeTypes() []events.Type[events.LeaseNotice] {
	return []events.Type[events.LeaseNotice]{events.CredentialRequested, events.CredentialLeased, events.LeaseDenied, events.CredentialRevoked, events.CredentialExpired}
}

// leaseEvents reads from EVENTS what became of accounts for a job, in the order of their times.
func leaseEvents(ctx context.Context, c *client, job events.JobRow) ([]leaseEvent, error) {
	filters := []string{events.CredentialUsed.Subject(job.Agent)}
	for _, t := range noticeTypes() {
		filters = append(filters, t.Subject(job.Agent))
	}
	var found []leaseEvent
	err := c.read(ctx, reading{stream: events.StreamEvents, filters: filters}, func(m jetstream.Msg) error {
		if e, ok := leaseEventOf(plainMessage(m), job); ok { // what is no event is on the dead-letter stream, see doctor
			found = append(found, e)
		}
		return nil
	})
	slices.SortStableFunc(found, func(a, b leaseEvent) int { return a.at().Compare(b.at()) })
	return found, err
}

// leaseEventOf reads a message as an event about a job's leases.
func leaseEventOf(m *nats.Msg, job events.JobRow) (leaseEvent, bool) {
	if e, err := bus.Open(events.CredentialUsed, m); err == nil {
		return leaseEvent{Event: shortType(events.CredentialUsed.Name), Use: &e.Data}, e.Data.Agent == job.Agent && e.Data.Job == job.Job
	}
	for _, t := range noticeTypes() {
		if e, err := bus.Open(t, m); err == nil {
			return leaseEvent{Event: shortType(t.Name), Notice: &e.Data}, e.Data.Agent == job.Agent && e.Data.Job == job.Job
		}
	}
	return leaseEvent{}, false
}

// told says whether a status tells of the same access as an event does.
func told(e leaseEvent, statuses []events.JobStatus) bool {
	if e.Use == nil {
		return false
	}
	same := func(a events.Access) bool {
		return a.Resource == e.Use.Resource && a.Reason == e.Use.Reason && a.Account == e.Use.Account && a.Version == e.Use.Version && a.When == e.Use.When
	}
	return slices.ContainsFunc(statuses, func(s events.JobStatus) bool { return slices.ContainsFunc(s.Accesses, same) })
}

// leaseText is an event about a lease in a line.
func (a *app) leaseText(e leaseEvent, t telling) string {
	if e.Use != nil {
		text := "credentials: " + t.sentence(e.Use.Access, 0)
		if fix := t.fix(e.Use.Access); fix != "" && fix != t.advised {
			text += "; " + fix
		}
		return text
	}
	n := *e.Notice
	text := map[string]string{
		shortType(events.CredentialRequested.Name): "credentials: the agent asked for " + lentText(n),
		shortType(events.CredentialLeased.Name):    "credentials: lent " + lentText(n),
		shortType(events.LeaseDenied.Name):         "credentials: did not lend " + lentText(n),
		shortType(events.CredentialRevoked.Name):   "credentials: withdrew " + lentText(n),
		shortType(events.CredentialExpired.Name):   "credentials: the lease ended of " + lentText(n),
	}[e.Event]
	if n.Expires != nil && e.Event == shortType(events.CredentialLeased.Name) {
		text += ", until " + a.longTime(*n.Expires)
	}
	for _, part := range []struct{ before, text string }{{": ", string(n.Reason)}, {": ", readable(n.Why)}, {", by ", n.By}} {
		if part.text != "" {
			text += part.before + part.text
		}
	}
	return text
}

// lentText names the account, and what it was for.
func lentText(n events.LeaseNotice) string {
	text := "an account"
	switch {
	case n.Account != "":
		text = "account " + n.Account
	case n.Kind != "":
		text = fmt.Sprintf("an account of kind %s", n.Kind)
	}
	if n.Version > 0 {
		text += fmt.Sprintf(" (version %d)", n.Version)
	}
	text += map[string]string{events.LeaseToExecute: " to run the program", events.LeaseToRead: " to read", events.LeaseToTest: " to test"}[n.Purpose]
	if n.Resource != "" {
		text += " " + resource.Shown(n.Resource)
	}
	return text
}
