package integration

import (
	"os"
	"slices"
	"strings"
	"testing"

	"chandler/agent/identity"
	"chandler/agent/source/sambatest"
	"chandler/events"
	"chandler/services/integration/machinetest"
)

// TestALoggedOnUserReadsByTheirOwnTicket: on a machine of a realm of Kerberos, whoever is logged on is known to the file
// server, and reads as themselves; on the same machine one without a ticket reads nothing, and neither is lent an account.
func TestALoggedOnUserReadsByTheirOwnTicket(t *testing.T) {
	s := newSite(t)
	realm := sambatest.NewRealmAt(t, s.lab.Address(), s.lab.Prefix()...)
	o := s.outside("by-ticket", realm.Settings...)
	o.files.User("alice", "not-used-here")
	config, err := os.ReadFile(realm.Config)
	must(t, err)
	ticket, err := os.ReadFile(realm.Ticket("alice", "1h"))
	must(t, err)
	machines := []*machinetest.Machine{o.newMachine("advanced"), o.newMachine("legacy", "--client-kind", "legacy")}
	for _, m := range machines {
		m.AddUser("bob")
		m.WriteFile("/etc/krb5.conf", config, 0o644)
		cache := "/tmp/krb5cc_" + uidOf(m, "alice")
		m.WriteFile(cache, ticket, 0o600)
		m.Exec("chown", "alice", cache)
		for _, pkg := range []string{"open", "closed", "hers"} {
			o.onShare(software, m.Name+"-"+pkg, "programs:\n  visit: {command: [visit.sh, "+pkg+"], run: user}\n")
		}
		o.files.Deny(software, m.Name+"-closed/visit.sh", "alice")
	}
	for i, log := range []string{advancedLog, legacyLog} {
		t.Run(machines[i].Name, func(t *testing.T) {
			t.Parallel()
			m := machines[i].For(t)
			defer explain(t, m)
			outsideStory{story{s, m}, o}.readsByTicket(t, log)
		})
	}
}

func (s outsideStory) readsByTicket(t *testing.T, log string) {
	alice := s.m.Login("alice")
	open, closed, hers := s.m.Name+"-open", s.m.Name+"-closed", s.m.Name+"-hers"
	job := s.want(t, s.deployOf(t, s.m, open, "visit"), events.Succeeded)
	s.wantContext(t, job, whose{string(identity.User), "alice", "", log})
	if r := recordOf(t, s.m, "open", job.Job); r.first("user") != "alice" {
		t.Errorf("it ran as %s", r.first("user"))
	}
	s.out.wantOpened(t, software, open+"/visit.sh", "alice")
	if len(job.Accesses) != 1 || job.Accesses[0].Resource != s.out.files.Address(software, open) || job.Accesses[0].Identity != string(identity.User) || job.Accesses[0].User != "alice" || job.Accesses[0].Account != "" || job.Accesses[0].Reason != "" {
		t.Errorf("it tells of these accesses: %s", compact(job.Accesses))
	}
	s.wantNothingLent(t, job)

	job = s.want(t, s.deployOf(t, s.m, closed, "visit"), events.Failed)
	s.wantDenial(t, job, denial{reason: events.NetworkAccessDenied, who: identity.User, when: events.AccessContent, code: deniedCode, resource: s.out.files.Address(software, closed+"/visit.sh"), log: log})
	if refused := s.out.files.Refused(software, closed+"/visit.sh"); !slices.Equal(refused, []string{"alice"}) || job.Executor != "" {
		t.Errorf("the file server refused the file to %q, not to alice alone: %s", refused, compact(job))
	}
	s.out.wantOpened(t, software, closed+"/visit.sh")
	s.wantNothingLent(t, job)
	alice.Logout()

	s.m.Login("bob") // who has no ticket, and does not read by hers
	job = s.want(t, s.deployOf(t, s.m, hers, "visit"), events.Failed)
	line := s.wantDenial(t, job, denial{reason: events.NoNetworkIdentity, who: identity.User, when: events.AccessContent, resource: s.out.files.Address(software, hers+"/visit.sh"), log: log})
	if !strings.Contains(line, "ticket of Kerberos for the server") {
		t.Errorf("what would help is told as %s", line)
	}
	s.out.wantOpened(t, software, hers+"/visit.sh")
	s.wantNothingLent(t, job)
}

// wantNothingLent makes sure that nobody asked for an account for a job.
func (s story) wantNothingLent(t *testing.T, job events.JobStatus) {
	t.Helper()
	asked := func(name string) bool {
		return name == events.CredentialRequested.Name || name == events.LeaseDenied.Name || name == events.CredentialLeased.Name
	}
	if list, _ := read[events.LeaseNotice](t, s.told, asked); slices.ContainsFunc(list, func(n events.LeaseNotice) bool { return n.Job == job.Job }) {
		t.Errorf("an account was asked for, for a user's own program: %s", compact(list))
	}
}
