package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/lease"
)

// leaseLife is how long an account is lent for. Asking again while the job lives makes it longer.
const leaseLife = 10 * time.Minute

// maxNonces bounds the requests for one lease that are remembered.
const maxNonces = 64

// leaseRecord is the value of a lease's key, which is its id. It goes away when it has expired, and with it the
// nonces, which are of no use by then.
type leaseRecord struct {
	// A lease is told of before its secret is given, and nothing is given where that fails: nothing is owed.
	outbox
	events.LeaseNotice        // as it was granted last
	Nonces             []used `json:"nonces"`
}

// used is a request that was granted.
type used struct {
	Nonce string    `json:"nonce"`
	Until time.Time `json:"until"` // by when it is too old anyway
}

func (r *leaseRecord) tell(context.Context, *bus.Bus) error { return nil }

// denial is why there is no lease, for the agent and the audit.
type denial struct {
	reason events.Reason
	why    string
}

func (d *denial) Error() string { return d.why }

func deny(format string, args ...any) error {
	return &denial{events.CredentialDenied, fmt.Sprintf(format, args...)}
}

// lease lends an account, or denies it and leaves a trace of who asked for what.
func (s *Service) lease(ctx context.Context, agent string, req events.LeaseRequest) (events.LeaseAnswer, error) {
	now := s.now().UTC()
	st, err := lease.Read(req)
	if err != nil {
		return events.LeaseAnswer{}, bus.BadRequest(err)
	}
	if !s.limits.lends(agent, now) {
		s.metrics.leases.WithLabelValues("error").Inc()
		return events.LeaseAnswer{}, bus.Unavailable(fmt.Errorf("agent %s asks for accounts too often: at most once in %s in the long run", agent, leaseEvery))
	}
	grant, err := s.lend(ctx, agent, req, now)
	why, ok := errors.AsType[*denial](err)
	switch {
	case ok:
		s.metrics.leases.WithLabelValues("denied").Inc()
		s.tellDenial(ctx, agent, st, why, now)
		return events.LeaseAnswer{Denied: true, Reason: why.reason, Why: why.why}, nil
	case err != nil:
		s.metrics.leases.WithLabelValues("error").Inc()
		return events.LeaseAnswer{}, err
	}
	s.metrics.leases.WithLabelValues("granted").Inc()
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
	o, err := s.orderOf(ctx, st, req.Order, now)
	if err != nil {
		return events.LeaseGrant{}, err
	}
	account, err := s.entitled(ctx, st, o, known)
	if err != nil {
		return events.LeaseGrant{}, err
	}
	if err := s.alive(ctx, st, o); err != nil {
		return events.LeaseGrant{}, err
	}
	g := events.LeaseGrant{Lease: lease.ID(st.Job, account.Account, st.Resource, st.Purpose), Agent: agent, Job: st.Job, Account: account.Account, Kind: account.Kind,
		User: account.User, Version: account.Version, Resource: st.Resource, Purpose: st.Purpose, Expires: now.Add(leaseLife).Truncate(time.Second)}
	if g, err = s.seal(st, g, account); err != nil {
		return events.LeaseGrant{}, err
	}
	return g, s.keep(ctx, st, g, now)
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

func (s *Service) seal(st events.LeaseStatement, g events.LeaseGrant, account accountRecord) (events.LeaseGrant, error) {
	secret, err := s.sealer.open(account.Account, account.Version, account.Sealed)
	if err != nil {
		return g, bus.Unavailable(fmt.Errorf("the secret of account %s cannot be opened here: restore the keyset, or set the account again", account.Account))
	}
	defer clear(secret)
	sealed, err := lease.Seal(st, g, secret)
	if err != nil {
		return g, deny("%v", err)
	}
	return sealed, nil
}

// keep notes the lease, refuses a request that was granted before, on whichever replica, and tells of it.
func (s *Service) keep(ctx context.Context, st events.LeaseStatement, g events.LeaseGrant, now time.Time) error {
	notice := events.LeaseNotice{Lease: g.Lease, Agent: g.Agent, Job: g.Job, Attempt: st.Attempt, Account: g.Account, Kind: g.Kind, Version: g.Version,
		Resource: g.Resource, Purpose: g.Purpose, Expires: &g.Expires, At: now}
	_, err := change(ctx, s.leases, g.Lease, func(old leaseRecord, _ bool) (leaseRecord, error) {
		r := leaseRecord{outbox: outbox{Told: true}, LeaseNotice: notice}
		for _, u := range old.Nonces {
			if u.Nonce == st.Nonce {
				return old, deny("the request was granted before: it was sent again by somebody")
			}
			if now.Before(u.Until) {
				r.Nonces = append(r.Nonces, u)
			}
		}
		if len(r.Nonces) >= maxNonces {
			return old, bus.Unavailable(fmt.Errorf("lease %s was asked for %d times in %s", g.Lease, len(r.Nonces), lease.ClockTolerance))
		}
		r.Nonces = append(r.Nonces, used{st.Nonce, st.At.Add(lease.ClockTolerance + time.Second)})
		return r, nil
	})
	if err != nil {
		return err
	}
	id := events.DeriveID(events.CredentialLeased.Name, g.Lease, st.Nonce)
	if _, err := bus.Publish(ctx, s.bus, events.CredentialLeased, events.Event[events.LeaseNotice]{ID: id, Subject: g.Agent, Time: now, Data: notice}); err != nil {
		return bus.Unavailable(fmt.Errorf("tell of lease %s: %w", g.Lease, err))
	}
	s.log.Info("account leased", "account", g.Account, "version", g.Version, "agent", g.Agent, "job", g.Job, "purpose", g.Purpose, "lease", g.Lease, "expires", g.Expires)
	return nil
}

// tellDenial stores who was denied what: once an hour for each agent, wish and reason, and a bounded number of
// all together. The log and the metrics have all of them.
func (s *Service) tellDenial(ctx context.Context, agent string, st events.LeaseStatement, d *denial, now time.Time) {
	s.log.Warn("lease denied", "agent", agent, "job", st.Job, "account", st.Account, "kind", st.Kind, "purpose", st.Purpose, "reason", d.reason, "why", d.why)
	id := events.DeriveID(events.LeaseDenied.Name, agent, st.Job, strconv.Itoa(st.Attempt), st.Account, string(st.Kind), st.Resource, st.Purpose, string(d.reason), d.why, strconv.FormatInt(now.Unix()/3600, 10))
	if !s.limits.tellRefusal(id, now) {
		return
	}
	notice := events.LeaseNotice{Agent: agent, Job: st.Job, Attempt: st.Attempt, Account: st.Account, Kind: st.Kind, Resource: st.Resource, Purpose: st.Purpose,
		Reason: d.reason, Why: d.why, At: now}
	if _, err := bus.Publish(ctx, s.bus, events.LeaseDenied, events.Event[events.LeaseNotice]{ID: id, Subject: agent, Time: now, Data: notice}); err != nil {
		// The denial stands, whether or not its trace can be stored.
		s.log.Error("the denial of a lease could not be stored", "agent", agent, "job", st.Job, "error", err)
	}
}

// forgetLeases forgets those that have expired.
func (s *Service) forgetLeases(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.lookTime)
	defer cancel()
	now := s.now()
	over := map[string]uint64{}
	if err := s.leases.each(ctx, func(entry jetstream.KeyValueEntry) error {
		var r leaseRecord
		if err := json.Unmarshal(entry.Value(), &r); err != nil {
			s.log.Error("a lease cannot be read and is forgotten", "lease", entry.Key(), "error", err)
		}
		old := func(u used) bool { return !now.Before(u.Until) }
		if r.Expires == nil || !now.Before(*r.Expires) && !slices.ContainsFunc(r.Nonces, func(u used) bool { return !old(u) }) {
			over[entry.Key()] = entry.Revision()
		}
		return nil
	}); err != nil {
		return err
	}
	for id, revision := range over {
		if err := s.leases.drop(ctx, id, revision); err != nil {
			return err
		}
	}
	return nil
}
