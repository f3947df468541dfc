package main

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// fakeLending is what a fakeFleet answers about accounts and what is lent, and what it was asked.
type fakeLending struct {
	accountsSet []events.AccountRequest
	rotations   []events.AccountRotation
	tests       []events.AccountTestRequest
	answer      events.Access // of every test
	leases      []events.LeaseNotice
	revocations []events.LeaseQuery
}

func (f *fakeFleet) lending() []bus.Endpoint {
	return []bus.Endpoint{
		with(f, events.AccountSetCall, func(r events.AccountRequest) (events.AccountNotice, error) {
			r.Secret = bytes.Clone(r.Secret)
			f.accountsSet = append(f.accountsSet, r)
			return events.AccountNotice{Account: r.Account, Version: len(f.accountsSet)}, nil
		}),
		with(f, events.AccountRotate, func(r events.AccountRotation) (events.AccountNotice, error) {
			r.Secret = bytes.Clone(r.Secret)
			f.rotations = append(f.rotations, r)
			n := events.AccountNotice{Account: r.Account, Version: 2}
			if r.KeepOld > 0 {
				n.KeepUntil = new(testNow.Add(24 * time.Hour))
			}
			return n, nil
		}),
		with(f, events.AccountTest, func(r events.AccountTestRequest) (events.AccountTestResult, error) {
			f.tests = append(f.tests, r)
			return events.AccountTestResult{Access: f.answer}, nil
		}),
		with(f, events.LeaseList, func(q events.LeaseQuery) (events.LeaseViews, error) {
			return events.LeaseViews{Leases: f.lent(q, true)}, nil
		}),
		with(f, events.LeaseRevoke, func(q events.LeaseQuery) (events.LeaseViews, error) {
			gone := f.lent(q, true)
			f.revocations = append(f.revocations, q)
			if f.leases = f.lent(q, false); len(gone) == 0 {
				return events.LeaseViews{}, bus.NotFound(os.ErrNotExist)
			}
			return events.LeaseViews{Leases: gone}, nil
		}),
	}
}

// lent are the leases that agree with a query, or those that do not.
func (f *fakeFleet) lent(q events.LeaseQuery, agree bool) []events.LeaseNotice {
	return slices.DeleteFunc(slices.Clone(f.leases), func(l events.LeaseNotice) bool {
		agrees := (q.Lease == "" || q.Lease == l.Lease) && (q.Agent == "" || q.Agent == l.Agent) && (q.Job == "" || q.Job == l.Job) && (q.Account == "" || q.Account == l.Account)
		return agrees != agree
	})
}

// lentTo makes a lease of a fleet.
func lentTo(id, account, agent, job, address string) events.LeaseNotice {
	return events.LeaseNotice{Lease: id, Account: account, Kind: events.NetworkAccess, Version: 1, Agent: agent, Job: job, Attempt: 1, Resource: address, Purpose: events.LeaseToRead,
		Expires: new(testNow.Add(10 * time.Minute)), At: testNow}
}

// must runs a command that has to end well.
func must(t *testing.T, f *fakeFleet, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := command(t, f.app, stdin, args...)
	if code != 0 {
		t.Fatalf("%q: exit code %d: %s%s", args, code, stdout, stderr)
	}
	return stdout, stderr
}
