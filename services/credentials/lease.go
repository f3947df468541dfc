package credentials

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/lease"
	"chandler/events/resource"
)

const (
	// leaseLife is how long an account is lent for. Asking again while the job lives makes it longer.
	leaseLife = 10 * time.Minute
	// formerLeast is how long the former version must still count for a lease to be made longer by it: agents renew a
	// minute before a lease ends.
	formerLeast = 2 * time.Minute
)

// denial is why there is no lease, for the agent and the audit.
type denial struct {
	reason events.Reason
	why    string
}

func (d *denial) Error() string { return d.why }

func deny(format string, args ...any) error {
	return &denial{events.CredentialDenied, fmt.Sprintf(format, args...)}
}

// loan is what a request is entitled to.
type loan struct {
	account  accountRecord
	resource string    // that the lease is of; "" to execute
	until    time.Time // at the longest; zero: for as long as leases last
	by       string    // the administrator who wants it; "": a job does
}

// lease lends an account, or denies it and leaves a trace of who asked for what.
func (s *Service) lease(ctx context.Context, agent string, req events.LeaseRequest) (events.LeaseAnswer, error) {
	now := s.now().UTC()
	st, err := lease.Read(req)
	if err != nil {
		s.metrics.leases.WithLabelValues("error", "").Inc()
		return events.LeaseAnswer{}, bus.BadRequest(err)
	}
	if !s.limits.lends(agent, now) {
		s.metrics.leases.WithLabelValues("error", "").Inc()
		return events.LeaseAnswer{}, bus.Unavailable(fmt.Errorf("agent %s asks for accounts too often: at most once in %s in the long run", agent, leaseEvery))
	}
	grant, err := s.lend(ctx, agent, req, now)
	why, ok := errors.AsType[*denial](err)
	switch {
	case ok:
		s.metrics.leases.WithLabelValues("denied", string(why.reason)).Inc()
		s.tellDenial(ctx, agent, st, why, now)
		return events.LeaseAnswer{Denied: true, Reason: why.reason, Why: why.why}, nil
	case err != nil:
		s.metrics.leases.WithLabelValues("error", "").Inc()
		return events.LeaseAnswer{}, err
	}
	s.metrics.leases.WithLabelValues("granted", "").Inc()
	return events.LeaseAnswer{Grant: &grant}, nil
}

// lend checks everything anew for each request, and gives the secret last. What it returns as a *denial is for
// the agent.
func (s *Service) lend(ctx context.Context, agent string, req events.LeaseRequest, now time.Time) (events.LeaseGrant, error) {
	known, err := s.enrolled(ctx, agent, now)
	if err != nil {
		return events.LeaseGrant{}, err
	}
	st, err := lease.Verify(req, known.Key)
	if err == nil {
		err = lease.Timely(st, now)
	}
	if err != nil {
		return events.LeaseGrant{}, deny("%v", err)
	}
	if err := s.tellRequest(ctx, st, now); err != nil {
		return events.LeaseGrant{}, err
	}
	if st.Purpose == events.LeaseToTest {
		l, err := s.takeTest(ctx, st, now)
		if err != nil {
			return events.LeaseGrant{}, err
		}
		return s.grant(ctx, st, l, now)
	}
	o, err := s.orderOf(ctx, st, req.Order, now)
	if err != nil {
		return events.LeaseGrant{}, err
	}
	l, err := s.entitled(ctx, st, o, known)
	if err != nil {
		return events.LeaseGrant{}, err
	}
	if why := l.account.suspended(); why != "" {
		return events.LeaseGrant{}, &denial{events.CredentialRejected, why}
	}
	if err := s.alive(ctx, st, o); err != nil {
		return events.LeaseGrant{}, err
	}
	return s.grant(ctx, st, l, now)
}

// enrolled is the agent's record, if it may have anything: one that was revoked or archived may still be
// connected.
func (s *Service) enrolled(ctx context.Context, agent string, now time.Time) (agentRecord, error) {
	var r agentRecord
	if s.signer == nil {
		return r, deny("this fleet has no identities, so that nobody can prove who asks for an account")
	}
	revision, err := s.enrolments.load(ctx, agentKeys+agent, &r)
	if err != nil {
		return r, err
	}
	if revision == 0 {
		return r, deny("no agent %s was ever enrolled here", agent)
	}
	if why, ok := errors.AsType[*refusal](r.barred(now, s.grace)); ok {
		return r, deny("%s", why.why)
	}
	return r, nil
}

// grant seals the secret, notes the lease and tells of it, in this order: what is not noted and told is not given.
func (s *Service) grant(ctx context.Context, st events.LeaseStatement, l loan, now time.Time) (events.LeaseGrant, error) {
	subject := st.Job
	if st.Purpose == events.LeaseToTest {
		subject = st.Test
	}
	id := lease.ID(subject, l.account.Account, l.resource, st.Purpose)
	var held leaseRecord
	if _, err := s.leases.load(ctx, id, &held); err != nil {
		return events.LeaseGrant{}, err
	}
	proof, until := l.account.current(), now.Add(leaseLife)
	if former, counts := l.account.former(now); counts && held.lent(now) && held.Version == former.Version && l.account.KeepUntil.Sub(now) >= formerLeast {
		proof, until = former, earlier(until, *l.account.KeepUntil)
	}
	if !l.until.IsZero() {
		until = earlier(until, l.until)
	}
	g := events.LeaseGrant{Lease: id, Agent: st.Agent, Job: st.Job, Account: l.account.Account, Kind: l.account.Kind, User: proof.User, Method: proof.Method, Version: proof.Version,
		Resource: st.Resource, Purpose: st.Purpose, Expires: until.Truncate(time.Second)}
	g, err := s.seal(ctx, st, g, proof)
	if err != nil {
		return events.LeaseGrant{}, err
	}
	notice := wishOf(st, now)
	notice.Lease, notice.Account, notice.Kind, notice.Version = g.Lease, g.Account, g.Kind, g.Version
	notice.Resource, notice.By, notice.Expires = l.resource, l.by, &g.Expires
	return g, s.keep(ctx, st, notice, now)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (s *Service) seal(ctx context.Context, st events.LeaseStatement, g events.LeaseGrant, proof login) (events.LeaseGrant, error) {
	secret, err := s.sealer.Unseal(ctx, g.Account, proof.Version, proof.Sealed)
	if err != nil {
		return g, bus.Unavailable(fmt.Errorf("the secret of account %s cannot be opened here: restore the keyset, or set the account again", g.Account))
	}
	defer clear(secret)
	sealed, err := lease.Seal(st, g, secret)
	if err != nil {
		return g, deny("%v", err)
	}
	return sealed, nil
}

// keep notes the lease, refuses a request that was granted before, on whichever replica, and tells of it.
func (s *Service) keep(ctx context.Context, st events.LeaseStatement, notice events.LeaseNotice, now time.Time) error {
	_, err := change(ctx, s.leases, notice.Lease, func(old leaseRecord, _ bool) (leaseRecord, error) {
		if w := old.Withdrawn; w != nil && w.By != "" && old.unexpired(now) {
			return old, deny("%s revoked this lease: the job may ask for it again at %s", w.By, old.Expires.UTC().Format(time.RFC3339))
		}
		r := leaseRecord{outbox: outbox{Told: true, Change: old.Change + 1}, LeaseNotice: notice}
		for _, u := range old.Nonces {
			if u.Nonce == st.Nonce {
				return old, deny("the request was granted before: it was sent again by somebody")
			}
			if now.Before(u.Until) {
				r.Nonces = append(r.Nonces, u)
			}
		}
		if len(r.Nonces) >= maxNonces {
			return old, bus.Unavailable(fmt.Errorf("lease %s was asked for %d times in %s", notice.Lease, len(r.Nonces), lease.ClockTolerance))
		}
		r.Nonces = append(r.Nonces, used{st.Nonce, st.At.Add(lease.ClockTolerance + time.Second)})
		return r, nil
	})
	if err != nil {
		return err
	}
	id := events.DeriveID(events.CredentialLeased.Name, notice.Lease, st.Nonce)
	if _, err := bus.Publish(ctx, s.bus, events.CredentialLeased, events.Event[events.LeaseNotice]{ID: id, Subject: notice.Agent, Time: now, Data: notice}); err != nil {
		return bus.Unavailable(fmt.Errorf("tell of lease %s: %w", notice.Lease, err))
	}
	s.log.Info("account leased", "account", notice.Account, "version", notice.Version, "agent", notice.Agent, "job", notice.Job, "purpose", notice.Purpose, "resource", notice.Resource,
		"lease", notice.Lease, "expires", notice.Expires)
	return nil
}

// wishOf is what a statement says, for the audit; a resource that is no address is left out, since nobody knows what
// it holds.
func wishOf(st events.LeaseStatement, now time.Time) events.LeaseNotice {
	n := events.LeaseNotice{Agent: st.Agent, Job: st.Job, Attempt: st.Attempt, Account: st.Account, Kind: st.Kind, Purpose: st.Purpose, Order: st.Order, Nonce: st.Nonce, At: now}
	if r, err := resource.Parse(st.Resource); err == nil {
		n.Resource = r.String()
	}
	return n
}

// tellRequest stores that an agent asked, once it proved who it is: what is not told is not decided.
func (s *Service) tellRequest(ctx context.Context, st events.LeaseStatement, now time.Time) error {
	id := events.DeriveID(events.CredentialRequested.Name, st.Agent, st.Nonce)
	e := events.Event[events.LeaseNotice]{ID: id, Subject: st.Agent, Time: now, Data: wishOf(st, now)}
	if _, err := bus.Publish(ctx, s.bus, events.CredentialRequested, e); err != nil {
		return bus.Unavailable(fmt.Errorf("tell of a request of agent %s: %w", st.Agent, err))
	}
	return nil
}

// tellDenial stores who was denied what: once an hour for each agent, wish and reason. The log and the metrics have
// all of them.
func (s *Service) tellDenial(ctx context.Context, agent string, st events.LeaseStatement, d *denial, now time.Time) {
	notice := wishOf(st, now)
	notice.Agent, notice.Reason, notice.Why = agent, d.reason, d.why // who the broker says it is
	s.log.Warn("lease denied", "agent", agent, "job", st.Job, "account", st.Account, "kind", st.Kind, "purpose", st.Purpose, "resource", notice.Resource, "reason", d.reason, "why", d.why)
	id := events.DeriveID(events.LeaseDenied.Name, agent, st.Job, strconv.Itoa(st.Attempt), st.Account, string(st.Kind), st.Resource, st.Purpose, string(d.reason), d.why, strconv.FormatInt(now.Unix()/3600, 10))
	if !s.limits.tellDenial(id) {
		return
	}
	if _, err := bus.Publish(ctx, s.bus, events.LeaseDenied, events.Event[events.LeaseNotice]{ID: id, Subject: agent, Time: now, Data: notice}); err != nil {
		// The denial stands, whether or not its trace can be stored.
		s.log.Error("the denial of a lease could not be stored", "agent", agent, "job", st.Job, "error", err)
	}
}
