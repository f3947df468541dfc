package credentials

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/lease"
	"chandler/events/resource"
	"chandler/events/scope"
)

const (
	// testLife is how long an agent may take for a test, and hold the account for it.
	testLife = 2 * time.Minute
	// testWait is how long an administrator waits for its answer, less than a request may last.
	testWait = 25 * time.Second
	// testPoll is the pause between two looks for an answer, which may arrive at another replica.
	testPoll = 250 * time.Millisecond
)

// testRecord is the value of test.<id> in the bucket of leases: that an administrator wants an agent to try a resource
// by an account once, and what came of it.
type testRecord struct {
	outbox           // nothing is owed
	Agent  string    `json:"agent"`
	By     string    `json:"by"`
	Until  time.Time `json:"until"`
	// Access is what is known of it: the version once the account was lent, and what was answered at the end.
	Access   events.Access `json:"access"`
	Answered bool          `json:"answered,omitempty"`
}

func (r *testRecord) tell(context.Context, *bus.Bus) error { return nil }

// accountTest lets an agent try a resource by an account once, and waits for what was answered.
func (s *Service) accountTest(ctx context.Context, caller string, req events.AccountTestRequest) (events.AccountTestResult, error) {
	account, address, err := s.testable(ctx, req)
	if err != nil {
		return events.AccountTestResult{}, err
	}
	now := s.now().UTC()
	if none := scope.Admits(unscoped(account.AccountNotice), scope.Query{Resource: address}); none != nil {
		a := tested(account, address, now)
		a.Reason, a.Answer = none.Reason, none.Why
		return events.AccountTestResult{Access: a}, nil
	}
	id := strings.ToLower(rand.Text())
	t := testRecord{outbox: outbox{Told: true}, Agent: req.Agent, By: caller, Until: now.Add(testLife).Truncate(time.Second), Access: tested(account, address, now)}
	if err := s.leases.save(ctx, testKeys+id, t, 0); err != nil {
		return events.AccountTestResult{}, err
	}
	note := events.AccountTestNote{Test: id, Agent: t.Agent, Account: req.Account, Resource: address, Again: req.Again, By: t.By, Until: t.Until}
	e := events.Event[events.AccountTestNote]{ID: events.DeriveID(events.AccountTestAsked.Name, id), Subject: t.Agent, Time: now, Data: note}
	if err := bus.Send(ctx, s.bus, events.AccountTestAsked, e); err != nil {
		return events.AccountTestResult{}, bus.Unavailable(fmt.Errorf("ask agent %s: %w", t.Agent, err))
	}
	s.log.Info("account test asked for", "account", req.Account, "agent", t.Agent, "resource", address, "by", caller)
	return s.awaitTest(ctx, id)
}

// testable checks who is to try what, and gives the resource in its one form.
func (s *Service) testable(ctx context.Context, req events.AccountTestRequest) (account accountRecord, address string, err error) {
	if err := errors.Join(events.ValidAgent(req.Agent), events.ValidToken(req.Account)); err != nil {
		return account, "", bus.BadRequest(err)
	}
	r, err := resource.Parse(req.Resource)
	if err != nil {
		return account, "", bus.BadRequest(fmt.Errorf("resource %w", err))
	}
	revision, err := s.accounts.load(ctx, req.Account, &account)
	switch {
	case err != nil:
		return account, "", err
	case revision == 0 || account.Removed:
		return account, "", noAccount(req.Account)
	case account.Kind == events.ClientTokenDomain:
		return account, "", bus.BadRequest(fmt.Errorf("account %s is of kind %s, which runs programs and reaches no resources: there is nothing to test", req.Account, account.Kind))
	}
	if err := testedWhere(account, r); err != nil {
		return account, "", bus.BadRequest(err)
	}
	agent, err := s.enrolled(ctx, req.Agent, s.now())
	if err == nil && agent.Conferred.ClientKind == events.Legacy && account.Kind == events.NetworkAccess {
		return account, "", bus.Conflict(fmt.Errorf("agent %s is a legacy client, to which no network access account is ever lent: test it from an advanced one, or the installation account here", req.Agent))
	}
	if why, ok := errors.AsType[*denial](err); ok {
		err = bus.Conflict(fmt.Errorf("agent %s cannot try it: %s", req.Agent, why.why))
	}
	return account, r.String(), err
}

// testedWhere refuses a test that would read a machine's own disk, or by an account without resources: it would be shown
// to whatever host is named, and a broker that was taken over can ask in an administrator's name. Orders are signed.
func testedWhere(a accountRecord, r resource.Resource) error {
	switch {
	case r.Scheme == resource.File && r.Host == "":
		return fmt.Errorf("%s lies on the machine itself, where no account is needed", r)
	case len(a.Resources) == 0:
		return fmt.Errorf("account %s names no resources, so that a test would show it to any host: `chandler account set` it with what it may reach", a.Account)
	}
	return nil
}

// unscoped is an account as a test sees it, which is of no deployment: its resources bind it, who may use it does not.
func unscoped(a events.AccountNotice) events.AccountNotice {
	a.Collections, a.Domain = nil, ""
	return a
}

// tested begins the answer of a test by what this service knows itself.
func tested(account accountRecord, address string, now time.Time) events.Access {
	identity := "network-access-account"
	if account.Kind == events.SoftwareInstallation {
		identity = "installation-account"
	}
	return events.Access{Resource: address, Identity: identity, Account: account.Account, User: account.User, When: events.AccessTest, At: now}
}

// awaitTest looks for the answer until there is one, or it is too late.
func (s *Service) awaitTest(ctx context.Context, id string) (events.AccountTestResult, error) {
	ctx, cancel := context.WithTimeout(ctx, s.testWait)
	defer cancel()
	tick := time.NewTicker(testPoll)
	defer tick.Stop()
	var t testRecord
	for {
		var newest testRecord
		_, err := s.leases.load(ctx, testKeys+id, &newest)
		switch {
		case err == nil && newest.Answered:
			return events.AccountTestResult{Access: newest.Access}, nil
		case err == nil:
			t = newest
		case ctx.Err() == nil:
			return events.AccountTestResult{}, err
		}
		select {
		case <-ctx.Done():
			return events.AccountTestResult{}, unanswered(t, s.testWait)
		case <-tick.C:
		}
	}
}

// unanswered says how far a test came.
func unanswered(t testRecord, waited time.Duration) error {
	if t.Access.Version > 0 {
		return bus.Unavailable(fmt.Errorf("agent %s took the account and did not say within %s what %s answered: the resource may be slow; its log says more", t.Agent, waited, resource.Shown(t.Access.Resource)))
	}
	return bus.Unavailable(fmt.Errorf("agent %s was not heard within %s: it is off, away from the broker, or older than such tests; `chandler agent show %s` tells when it was last heard", t.Agent, waited, t.Agent))
}

// takeTest gives the account of a test to the agent that was asked for it, once.
func (s *Service) takeTest(ctx context.Context, st events.LeaseStatement, now time.Time) (loan, error) {
	var account accountRecord
	revision, err := s.accounts.load(ctx, st.Account, &account)
	if err != nil {
		return loan{}, err
	}
	t, err := change(ctx, s.leases, testKeys+st.Test, func(old testRecord, found bool) (testRecord, error) {
		switch {
		case !found || old.Agent != st.Agent || old.Access.Account != st.Account || old.Access.Resource != st.Resource:
			return old, deny("nobody asked agent %s for this test", st.Agent)
		case !now.Before(old.Until) || old.Answered:
			return old, deny("the test is over")
		case old.Access.Version > 0:
			return old, deny("the account was lent for this test before: a test is one try")
		case revision == 0 || account.Removed:
			return old, deny("account %s was removed", st.Account)
		}
		old.Access.User, old.Access.Version = account.User, account.Version
		return old, nil
	})
	return loan{account: account, resource: t.Access.Resource, until: t.Until, by: t.By}, err
}

// accountTestAnswer takes what an agent says of a test that it was asked for; the first word counts. Of whom and what
// it speaks is what this service knows.
func (s *Service) accountTestAnswer(ctx context.Context, agent string, req events.AccountTestReport) (events.Nothing, error) {
	if err := events.ValidToken(req.Test); err != nil {
		return events.Nothing{}, bus.BadRequest(fmt.Errorf("test: %w", err))
	}
	reason := req.Access.Reason
	if !reason.Known() {
		reason = events.OtherReason
	}
	now := s.now().UTC()
	t, err := change(ctx, s.leases, testKeys+req.Test, func(old testRecord, found bool) (testRecord, error) {
		switch {
		case !found || old.Agent != agent:
			return old, bus.NotFound(fmt.Errorf("nobody asked agent %s for test %s", agent, req.Test))
		case !now.Before(old.Until) || old.Answered:
			return old, bus.Conflict(fmt.Errorf("test %s is over", req.Test))
		}
		old.Access.Reason, old.Access.Answer, old.Access.At, old.Answered = reason, oneLine(req.Access.Answer, maxAnswer), now, true
		return old, nil
	})
	if err != nil {
		return events.Nothing{}, err
	}
	a := t.Access
	s.log.Info("account test answered", "account", a.Account, "agent", agent, "resource", a.Resource, "reason", a.Reason, "answer", a.Answer, "by", t.By)
	if a.Version > 0 {
		_, err = s.withdraw(ctx, lease.ID(req.Test, a.Account, a.Resource, events.LeaseToTest), "", "the test is done", func(leaseRecord) bool { return true })
	}
	return events.Nothing{}, err
}
