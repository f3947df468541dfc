package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// bygone is the age at which an event concerns no lease any more.
const bygone = time.Hour

// past says whether an event was stored too long ago to concern a lease: a reader that starts anew sees all that
// EVENTS holds.
func (s *Service) past(stored time.Time) bool { return s.now().Sub(stored) > bygone }

// handleEvents withdraws the leases of jobs that ended, and hears what came of leases.
func (s *Service) handleEvents(ctx context.Context) error {
	return s.bus.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: serviceName, Workers: 8},
		bus.On(events.JobFinished, s.onFinished), bus.On(events.CredentialUsed, s.onUsed))
}

// onFinished withdraws what was lent for a job's attempt, or an earlier one. Nothing is lent for it afterwards: see
// alive.
func (s *Service) onFinished(ctx context.Context, e events.Event[events.JobEnd], m bus.Meta) error {
	if s.past(m.Stored) {
		return nil
	}
	end := e.Data
	found, err := s.lent.chosen(ctx, events.LeaseQuery{Agent: end.Agent, Job: end.Job}, s.now())
	if err != nil {
		return err
	}
	for _, r := range found {
		why := fmt.Sprintf("attempt %d of the job has ended: %s", end.Attempt, end.State)
		_, err := s.withdraw(ctx, r.Lease, "", why, func(r leaseRecord) bool { return r.Attempt <= end.Attempt })
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) leaseList(ctx context.Context, _ string, q events.LeaseQuery) (events.LeaseViews, error) {
	if err := checkQuery(q); err != nil {
		return events.LeaseViews{}, bus.BadRequest(err)
	}
	found, err := s.lent.chosen(ctx, q, s.now())
	views := events.LeaseViews{Leases: []events.LeaseNotice{}}
	for _, r := range found {
		views.Leases = append(views.Leases, r.LeaseNotice)
	}
	return views, err
}

// leaseRevoke withdraws what a person chose. Such a lease is not granted again before it would have expired, also
// to a job that lives on.
func (s *Service) leaseRevoke(ctx context.Context, caller string, q events.LeaseQuery) (events.LeaseViews, error) {
	if q == (events.LeaseQuery{}) {
		return events.LeaseViews{}, bus.BadRequest(errors.New("say which leases: of which agent, job or account, or one by its id"))
	}
	if err := checkQuery(q); err != nil {
		return events.LeaseViews{}, bus.BadRequest(err)
	}
	found, err := s.lent.chosen(ctx, q, s.now())
	if err != nil {
		return events.LeaseViews{}, err
	}
	views := events.LeaseViews{Leases: []events.LeaseNotice{}}
	for _, r := range found {
		ended, err := s.withdraw(ctx, r.Lease, caller, "an administrator revoked it", func(leaseRecord) bool { return true })
		if err != nil {
			return views, fmt.Errorf("%d of %d leases are revoked, ask again: %w", len(views.Leases), len(found), err)
		}
		if ended {
			views.Leases = append(views.Leases, r.LeaseNotice)
		}
	}
	if len(views.Leases) > 0 {
		bus.NoteChange(ctx, views, nil)
	}
	return views, nil
}

func checkQuery(q events.LeaseQuery) error {
	for what, value := range map[string]string{"lease": q.Lease, "job": q.Job, "account": q.Account} {
		if value != "" && events.ValidToken(value) != nil {
			return fmt.Errorf("%s: %w", what, events.ValidToken(value))
		}
	}
	if q.Agent != "" {
		return events.ValidAgent(q.Agent)
	}
	return nil
}

// withdraw ends a lease that is lent and of which still holds what the caller saw, tells of it, and tells its agent.
// by is who wants it; "": the service itself.
func (s *Service) withdraw(ctx context.Context, id, by, why string, still func(leaseRecord) bool) (ended bool, err error) {
	r, err := change(ctx, s.leases, id, func(old leaseRecord, _ bool) (leaseRecord, error) {
		now := s.now().UTC()
		if ended = old.lent(now) && still(old); !ended {
			return old, errKeep
		}
		old.Withdrawn = &withdrawal{By: by, Why: why, At: now}
		old.owe()
		return old, nil
	})
	if err != nil || !ended {
		return false, err
	}
	s.log.Info("lease withdrawn", "lease", r.Lease, "account", r.Account, "agent", r.Agent, "job", r.Job, "by", by, "why", why)
	note := events.LeaseWithdrawal{Agent: r.Agent, Lease: r.Lease, Why: why}
	e := events.Event[events.LeaseWithdrawal]{ID: events.DeriveID(events.LeaseWithdrawn.Name, r.Lease, strconv.FormatInt(r.Withdrawn.At.UnixNano(), 10)), Subject: r.Agent, Time: r.Withdrawn.At, Data: note}
	if err := bus.Send(ctx, s.bus, events.LeaseWithdrawn, e); err != nil {
		s.log.Warn("an agent could not be told that a lease is withdrawn", "agent", r.Agent, "lease", r.Lease, "error", err)
	}
	if err := announce(ctx, s.leases, r.Lease, r); err != nil {
		s.log.Warn("a withdrawn lease could not be told of and will be later", "lease", r.Lease, "error", err)
	}
	return true, nil
}

// reviewLeases forgets leases and tests whose time is over, withdraws those whose account or agent counts no longer,
// and tells what is owed.
func (s *Service) reviewLeases(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.lookTime)
	defer cancel()
	now := s.now().UTC()
	over, there := map[string]uint64{}, []leaseRecord{}
	if err := s.leases.each(ctx, func(entry jetstream.KeyValueEntry) error {
		r, keep := s.readKept(entry, now)
		if !keep {
			over[entry.Key()] = entry.Revision()
		}
		if r.Lease != "" {
			there = append(there, r)
		}
		return nil
	}); err != nil {
		return err
	}
	// Accounts and agents are read after the leases: one that is unknown then is gone, not new.
	accounts, err := s.known.all(ctx)
	if err == nil {
		err = s.mirror.refresh(ctx)
	}
	if err != nil {
		return err
	}
	byName := map[string]accountRecord{}
	for _, a := range accounts {
		byName[a.Account] = a
	}
	var failures []error
	for _, r := range there {
		failures = append(failures, s.review(ctx, r, byName, now))
	}
	if err := errors.Join(failures...); err != nil {
		return err // what is owed of them is told before they are forgotten
	}
	for id, revision := range over {
		if err := s.leases.drop(ctx, id, revision); err != nil {
			return err
		}
	}
	s.lent.prune(now)
	return nil
}

// readKept reads what the bucket of leases keeps, a lease or a test; keep is false of what is to be forgotten.
func (s *Service) readKept(entry jetstream.KeyValueEntry, now time.Time) (r leaseRecord, keep bool) {
	if strings.HasPrefix(entry.Key(), testKeys) {
		var t testRecord
		err := json.Unmarshal(entry.Value(), &t)
		return leaseRecord{}, err == nil && now.Before(t.Until)
	}
	if err := json.Unmarshal(entry.Value(), &r); err != nil || r.Expires == nil {
		s.log.Error("a lease cannot be read and is forgotten", "lease", entry.Key(), "error", err)
		return leaseRecord{}, false
	}
	return r, !r.forgettable(now)
}

// review does what is due for one lease, also for one that is forgotten next.
func (s *Service) review(ctx context.Context, r leaseRecord, accounts map[string]accountRecord, now time.Time) error {
	switch {
	case !r.Told:
		return announce(ctx, s.leases, r.Lease, r)
	case r.Withdrawn != nil:
		return nil
	case r.forgettable(now):
		return s.tellExpiry(ctx, r)
	case !r.lent(now):
		return nil
	}
	account, known := accounts[r.Account]
	state := s.mirror.stateOf(r.Agent, now)
	why := ""
	switch {
	case !known || account.Removed:
		why = fmt.Sprintf("account %s was removed", r.Account)
	case !account.counts(r.Version, now):
		why = fmt.Sprintf("account %s was given another secret", r.Account)
	case state != events.EnrolmentActive:
		why = strings.TrimSpace(fmt.Sprintf("the agent is not active any more: %s", state))
	default:
		return nil
	}
	_, err := s.withdraw(ctx, r.Lease, "", why, func(newest leaseRecord) bool { return newest.Version == r.Version })
	return err
}

// tellExpiry tells of a lease that ran out. It is told before it is forgotten, under an id that stays the same.
func (s *Service) tellExpiry(ctx context.Context, r leaseRecord) error {
	id := events.DeriveID(events.CredentialExpired.Name, r.Lease, strconv.FormatInt(r.Expires.UnixNano(), 10))
	_, err := bus.Publish(ctx, s.bus, events.CredentialExpired, events.Event[events.LeaseNotice]{ID: id, Subject: r.Agent, Time: *r.Expires, Data: r.LeaseNotice})
	return err
}
