package integration

import (
	"strconv"
	"strings"
	"testing"

	"chandler/events"
)

// assignedPackage is of what restarts the machine by itself.
const assignedPackage = `api: chandler/v1
package: %s
version: "1.0"
programs:
  seen: {command: [restart.sh, seen], run: administrative, after: program-restarts, detect: [{file: /var/lib/restart-seen}]}
  unseen: {command: [restart.sh, unseen], run: administrative, after: program-restarts}
`

// restartProgram restarts the machine before it has said how it ended, as installers do.
const restartProgram = `#!/bin/sh
echo "$1 $CHANDLER_JOB" >> ` + records + `/restarts
touch "/var/lib/restart-$1"
systemctl --no-block reboot
exec sleep 600
`

// TestProgramsRunWhenTheyAreAssigned is about who comes and goes at a machine, and about restarts that programs make.
func TestProgramsRunWhenTheyAreAssigned(t *testing.T) {
	site := newSite(t)
	site.publishProbes()
	site.publish("assigned", assignedPackage, map[string]string{"restart.sh": restartProgram})
	m := site.newMachine("desk")
	defer explain(t, m)
	for _, user := range []string{"alice", "bob", "carol", "dora", "emil"} {
		m.AddUser(user)
	}
	s := story{site, m}
	s.part(t, "no user ever logs on", nobodyEver)
	s.part(t, "at a logon, not while somebody is logged on", atLogon)
	s.part(t, "at a logoff, when the last user has gone", atLogoff)
	s.part(t, "a user has no home", homeless)
	s.part(t, "a user is deleted while a program runs", deletedUser)
	s.part(t, "a user is disabled while a program runs", disabledUser)
	s.part(t, "a program restarts the machine, and detection tells that it succeeded", func(t *testing.T, s story) {
		s.restartsItself(t, "seen", events.Succeeded, events.NoReason)
	})
	s.part(t, "a program restarts the machine, and nobody knows how it ended", func(t *testing.T, s story) {
		s.restartsItself(t, "unseen", events.Failed, events.OutcomeUnknown)
	})
}

func nobodyEver(t *testing.T, s story) {
	const deployment = "desk-nobody-ever"
	s.create(t, deployment, s.m, "probe", "as-user", "--expires", "+5s")
	s.want(t, deployment, events.Waiting, events.WaitLogon)
	if job := s.want(t, deployment, events.Expired); job.Reason != events.DeploymentExpired {
		t.Errorf("it ended as %s", compact(job))
	}
	s.m.Login("alice")
	s.userRan(t, s.want(t, s.deploy(t, s.m, "as-user", "in-time"), events.Succeeded), "alice", advancedLog) // so her logon was seen
	if ran := recordsOf(t, s.m, "as-user"); len(ran) != 1 {
		t.Errorf("what had expired ran: %v", ran)
	}
}

// passes makes sure that the agent has looked at everything anew: another program has run meanwhile.
func (s story) passes(t *testing.T, why string) {
	t.Helper()
	s.want(t, s.deploy(t, s.m, "as-administrator", why), events.Succeeded)
}

// stillWaits makes sure that a deployment waits for that as before, once the agent has had the time to do otherwise.
func (s story) stillWaits(t *testing.T, deployment, why string, what events.WaitingFor) {
	t.Helper()
	s.passes(t, why+"-"+strconv.Itoa(len(deployment)))
	if now := s.state(t, deployment); now.State != events.Waiting || now.WaitingFor != what {
		t.Errorf("%s, and %s is %s", why, deployment, compact(now))
	}
}

func atLogon(t *testing.T, s story) {
	alice := s.m.Login("alice")
	const user, system = "desk-user-at-logon", "desk-system-at-logon"
	s.create(t, user, s.m, "probe", "as-user", "--at", "logon")
	s.create(t, system, s.m, "probe", "by-account", "--at", "logon")
	for _, deployment := range []string{user, system} {
		s.want(t, deployment, events.Waiting, events.WaitLogon)
		s.stillWaits(t, deployment, "on-before", events.WaitLogon)
	}
	alice.Logout()
	s.stillWaits(t, user, "logged-off", events.WaitLogon)
	s.m.Login("bob")
	s.userRan(t, s.want(t, user, events.Succeeded), "bob", advancedLog)
	job := s.want(t, system, events.Succeeded)
	wantSystem(t, recordOf(t, s.m, "by-account", job.Job))
}

func atLogoff(t *testing.T, s story) {
	const deployment = "desk-at-logoff"
	s.create(t, deployment, s.m, "probe", "nobody-on", "--at", "logoff")
	s.want(t, deployment, events.Waiting, events.WaitLogoff)
	s.stillWaits(t, deployment, "nobody-was-logged-on", events.WaitLogoff)
	alice, bob := s.m.Login("alice"), s.m.Login("bob")
	s.stillWaits(t, deployment, "two-are-logged-on", events.WaitLogoff)
	bob.Logout()
	s.stillWaits(t, deployment, "one-has-gone", events.WaitLogoff)
	alice.Logout()
	job := s.want(t, deployment, events.Succeeded)
	s.wantContext(t, job, whose{"agent", "root", "", advancedLog})
	wantSystem(t, recordOf(t, s.m, "nobody-on", job.Job))
}

func homeless(t *testing.T, s story) {
	s.m.Login("carol")
	s.m.Exec("mv", "/home/carol", "/home/away")
	job := s.want(t, s.deploy(t, s.m, "as-user", "homeless"), events.Failed)
	if job.Reason != events.HomeMissing || !strings.Contains(job.Explanation, "carol") || !strings.Contains(job.Explanation, "/home/carol") {
		t.Errorf("it ended as %s", compact(job))
	}
	s.m.Exec("mv", "/home/away", "/home/carol")
	s.userRan(t, s.want(t, s.deploy(t, s.m, "as-user", "at-home"), events.Succeeded), "carol", advancedLog)
}

// meanwhile starts a program of a user who is logged on, does something, and lets the program end.
func (s story) meanwhile(t *testing.T, user string, do ...string) events.JobStatus {
	t.Helper()
	s.m.Login(user)
	letGo := hold(t, s.m, "as-user")
	defer letGo()
	deployment := s.deploy(t, s.m, "as-user", "of-"+user)
	running := s.want(t, deployment, events.Running)
	wantUser(t, s.m, recordOf(t, s.m, "as-user", running.Job), user)
	s.m.Exec(do...)
	s.passes(t, user+"-is-gone")
	letGo()
	job := s.want(t, deployment, events.Succeeded)
	if job.Executor != user {
		t.Errorf("it was run by %s", job.Executor)
	}
	return job
}

func deletedUser(t *testing.T, s story) {
	s.meanwhile(t, "dora", "userdel", "--force", "dora")
	job := s.want(t, s.deploy(t, s.m, "as-user", "without-dora"), events.Failed)
	if job.Reason != events.AccountUnusable || !strings.Contains(job.Explanation, "dora") {
		t.Errorf("by a user that is deleted it ended as %s", compact(job))
	}
}

func disabledUser(t *testing.T, s story) {
	s.meanwhile(t, "emil", "usermod", "--lock", "--expiredate", "1", "emil")
	job := s.want(t, s.deploy(t, s.m, "as-user", "without-emil"), events.Failed)
	if job.Reason != events.AccountUnusable || !strings.Contains(job.Explanation, "emil") {
		t.Errorf("by a user that is disabled it ended as %s", compact(job))
	}
}

// restartsItself runs a program that restarts the machine: once, and with this end.
func (s story) restartsItself(t *testing.T, program string, state events.State, reason events.Reason) {
	t.Helper()
	boots := s.m.Boots()
	deployment := s.deployOf(t, s.m, "assigned", program)
	s.m.AwaitBoot(boots + 1)
	job := s.want(t, deployment, state)
	if job.Reason != reason {
		t.Errorf("it ended as %s", compact(job))
	}
	s.passes(t, "after-"+program)
	data, _ := s.m.ReadFile(records + "/restarts")
	if got := strings.Count(string(data), program+" "+job.Job); got != 1 || s.m.Boots() != boots+1 {
		t.Errorf("it ran %d times, and the machine has restarted %d times", got, s.m.Boots()-boots)
	}
}
