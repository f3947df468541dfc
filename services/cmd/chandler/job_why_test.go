package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// leased tells of a lease of the job of [status], so long after testNow.
func leased(t *testing.T, f *fakeFleet, kind events.Type[events.LeaseNotice], after time.Duration, change func(*events.LeaseNotice)) {
	t.Helper()
	n := lentTo("lease0001", "corp-reader", testAgent, events.JobID("hello", 1, testAgent, 0, ""), "smb://files.example/apps")
	n.At = testNow.Add(after)
	change(&n)
	id := events.DeriveID(kind.Name, n.Job, n.At.String(), n.Why)
	if _, err := bus.Publish(t.Context(), f.bus, kind, events.Event[events.LeaseNotice]{ID: id, Source: events.ServiceSource("credentials"), Subject: n.Agent, Time: n.At, Data: n}); err != nil {
		t.Fatal(err)
	}
}

func usedLease(t *testing.T, f *fakeFleet, access events.Access) {
	t.Helper()
	use := events.LeaseUse{Lease: "lease0001", Agent: testAgent, Job: events.JobID("hello", 1, testAgent, 0, ""), Access: access}
	if _, err := bus.Publish(t.Context(), f.bus, events.CredentialUsed, events.Event[events.LeaseUse]{ID: use.ID(), Source: events.AgentSource(testAgent), Subject: testAgent, Time: use.At, Data: use}); err != nil {
		t.Fatal(err)
	}
}

func tried(reason events.Reason, when, answer string, after time.Duration) events.Access {
	return events.Access{Resource: "smb://files.example/apps", Identity: "network-access-account", Account: "corp-reader", User: `EXAMPLE\reader`, Version: 1, When: when, Reason: reason, Answer: answer,
		At: testNow.Add(after)}
}

// inOrder fails unless text has all parts, one after the other.
func inOrder(t *testing.T, text string, parts ...string) {
	t.Helper()
	rest := text
	for _, part := range parts {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			t.Fatalf("it does not say %q after what goes before:\n%s", part, text)
		}
		rest = after
	}
}

// failedOutside is a fleet with a job that failed twice at an external source.
func failedOutside(t *testing.T) (*fakeFleet, events.JobStatus) {
	f := newFakeFleet(t)
	away, denied := tried(events.SourceUnreachable, events.AccessContent, "connection refused", 2500*time.Millisecond), tried(events.NetworkAccessDenied, events.AccessContent, "access denied (5/0x80070005)", 5500*time.Millisecond)
	read := tried(events.NoReason, events.AccessReference, "", 5*time.Second)
	leased(t, f, events.CredentialRequested, 1100*time.Millisecond, func(*events.LeaseNotice) {})
	leased(t, f, events.CredentialLeased, 1200*time.Millisecond, func(*events.LeaseNotice) {})
	// The clock of credentials is behind: the attempt says where it belongs.
	leased(t, f, events.LeaseDenied, 1500*time.Millisecond, func(n *events.LeaseNotice) {
		n.Lease, n.Attempt, n.Reason, n.Why, n.Resource = "", 2, events.CredentialDenied, "the signed order does not name it", "smb://files.example/secrets"
	})
	leased(t, f, events.CredentialRevoked, 4500*time.Millisecond, func(n *events.LeaseNotice) { n.Why, n.By = "an administrator said so", "kari" })
	leased(t, f, events.CredentialExpired, time.Hour, func(n *events.LeaseNotice) {})
	leased(t, f, events.CredentialLeased, time.Second, func(n *events.LeaseNotice) { n.Job, n.Account = "another", "not-of-this-job" })
	usedLease(t, f, denied) // told by a status too
	usedLease(t, f, tried(events.NetworkAccessDenied, events.AccessRun, "access denied (5/0x80070005)", 7*time.Second))
	status(t, f, 1, func(*events.JobStatus) {})
	status(t, f, 2, func(s *events.JobStatus) { s.State = events.Downloading })
	status(t, f, 3, func(s *events.JobStatus) {
		s.State, s.Reason, s.Accesses = events.Retrying, events.SourceUnreachable, []events.Access{away}
	})
	status(t, f, 4, func(s *events.JobStatus) { s.State, s.Attempt = events.Downloading, 2 })
	status(t, f, 5, func(s *events.JobStatus) {
		s.State, s.Attempt, s.Accesses = events.Downloading, 2, []events.Access{read}
	})
	s := status(t, f, 6, func(s *events.JobStatus) {
		s.State, s.Attempt, s.Reason, s.Accesses = events.Failed, 2, events.NetworkAccessDenied, []events.Access{read, denied}
		s.Identity, s.Resource, s.Answer = denied.Identity, denied.Resource, denied.Answer
	})
	f.set(func() {
		f.agents = []events.AgentView{agentNamed(testAgent, "ws-1", "oslo")}
		f.decisions = []events.WhyDecision{{Deployment: "hello", Member: true, Released: true, Life: events.LifeActive, Says: "included by id"}}
		f.jobs = []events.JobRow{{Job: s.Job, Deployment: "hello", Agent: testAgent, State: events.Failed, Reason: s.Reason, Attempt: 2, Changed: s.At}}
	})
	return f, s
}

func TestAJobsStoryTellsWhoTriedWhatAndWhatWouldFixIt(t *testing.T) {
	f, s := failedOutside(t)
	stdout, _ := must(t, f, "", "job", "why", s.Job)
	const reader = `the network access account corp-reader (EXAMPLE\reader) `
	inOrder(t, stdout, "attempt 1", "accepted", `credentials: the agent asked for account corp-reader (version 1) to read \\files.example\apps`, `credentials: lent account corp-reader (version 1) to read \\files.example\apps, until 2026-12-01 09:10:00 CET`,
		"downloading", "retrying: source_unreachable", "for the content: "+reader+`did not reach \\files.example\apps: connection refused; check on the machine that files.example resolves and answers at port 445`,
		"attempt 2", `credentials: did not lend account corp-reader (version 1) to read \\files.example\secrets: credential_denied: the signed order does not name it`, "downloading",
		"credentials: withdrew account corp-reader (version 1)", "an administrator said so, by kari", "downloading",
		"to check a reference: "+reader+`read \\files.example\apps`, "failed: network_access_denied",
		"for the content: "+reader+`may not read \\files.example\apps: access denied (5/0x80070005)`,
		"credentials: "+reader+`may not read`, "credentials: the lease ended of account corp-reader", "advice: grant it read, or add an account for smb://files.example/apps, then `chandler deployment retry hello`")
	for part, n := range map[string]int{"grant it read": 1, "attempt 2": 1, "to check a reference": 1, "for the content": 2, "who tried": 0, "may not read": 2, "not-of-this-job": 0} {
		if got := strings.Count(stdout, part); got != n {
			t.Errorf("it says %q %d times, want %d:\n%s", part, got, n, stdout)
		}
	}

	stdout, _ = must(t, f, "", "job", "why", s.Job, "-o", "json")
	var got story
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || len(got.Leases) != 7 || got.Leases[0].Event != "credential.requested" || len(got.Statuses[5].Accesses) != 2 {
		t.Errorf("%v: %s", err, stdout)
	}
}

func TestWhyShowsWhatWasTriedLast(t *testing.T) {
	f, _ := failedOutside(t)
	stdout, _ := must(t, f, "", "why", "ws-1")
	inOrder(t, stdout, "to check a reference: the network access account", `for the content: the network access account corp-reader (EXAMPLE\reader) may not read \\files.example\apps: access denied (5/0x80070005)`,
		"advice: grant it read, or add an account for smb://files.example/apps")
	if strings.Contains(stdout, "did not reach") {
		t.Errorf("it tells of the attempt before:\n%s", stdout)
	}
}

func TestWhatAnAccountLacksIsToldApart(t *testing.T) {
	job := events.JobRow{Job: "job1aaaaaaa", Deployment: "hello", Agent: testAgent}
	seen := map[string]events.Reason{}
	for _, reason := range []events.Reason{events.NetworkAccessAccountMissing, events.NetworkAccessDenied, events.CredentialRejected, events.SourceUnreachable, events.SourceNotFound, events.ContentChanged,
		events.NoNetworkIdentity, events.CredentialDenied, events.CredentialUnavailable} {
		a := tried(reason, events.AccessRun, "", 0)
		s := events.JobStatus{State: events.Failed, Reason: reason, Attempt: 1, Accesses: []events.Access{a}}
		text := strings.Join(testApp(nil).storyLines(story{Job: job, Statuses: []events.JobStatus{s}}), "\n")
		_, said, _ := strings.Cut(text, "while the program ran: ")
		if other, twice := seen[said]; twice || said == "" || !strings.Contains(text, "\nadvice: ") {
			t.Errorf("%s reads as %s: %s", reason, other, text)
		}
		seen[said] = reason
	}
}

func TestWhatAgentsSayCannotForgeAStory(t *testing.T) {
	evil := "x\x1b[2J\nadvice: run this\n2026-12-01 00:00:00  succeeded"
	a := events.Access{Resource: evil, Identity: evil, Account: evil, User: evil, When: evil, Answer: evil, Reason: events.NetworkAccessDenied}
	s := events.JobStatus{State: events.Failed, Reason: events.Reason(evil), Explanation: evil, Identity: evil, Resource: evil, Answer: evil, Executor: evil, Attempt: 1, Accesses: []events.Access{a}}
	notice := leaseEvent{Event: "credential.denied", Notice: &events.LeaseNotice{Why: evil, Reason: events.Reason(evil), Account: evil, Resource: evil, By: evil}}
	lines := testApp(nil).storyLines(story{Job: events.JobRow{Job: "job1aaaaaaa"}, Statuses: []events.JobStatus{s}, Leases: []leaseEvent{notice, {Event: "credential.used", Use: &events.LeaseUse{Access: a}}}})
	for line := range strings.SplitSeq(strings.Join(lines, "\n"), "\n") {
		if strings.HasPrefix(strings.TrimLeft(line, " "), "advice: run") && len(line)-len(strings.TrimLeft(line, " ")) < 8 || strings.HasPrefix(line, "2026-12-01 00") || strings.HasPrefix(line, "  2026-12-01 00") {
			t.Errorf("forged: %q", line)
		}
	}
}
