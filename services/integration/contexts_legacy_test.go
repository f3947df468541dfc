package integration

import (
	"strings"
	"testing"

	"chandler/events"
	"chandler/services/integration/machinetest"
)

const legacyLog = "SMSAPM32.log"

// legacyClient is the story of a machine whose administrative programs are run by accounts that are raised meanwhile.
func legacyClient(t *testing.T, site *site, m *machinetest.Machine) {
	s := story{site, m}
	m.AddUser("alice", "draughts")
	m.AddUser("corpinstaller")
	m.AddUser("corpstanding", "sudo")
	s.part(t, "a user's program runs as the user", legacyUser)
	s.part(t, "the client token account is made, raised for one program, and ordinary again", clientTokenAccount)
	s.part(t, "the client token account installs packages", legacyInstalls)
	s.part(t, "the agent reads what the programs of users and accounts need", readsForUserAndAccounts)
	s.part(t, "the agent is killed while a program of the client token account runs", killedWhileRaised)
	s.part(t, "the software installation account is raised for one program", installationAccount)
	s.part(t, "an installation account that is an administrator is warned about and stays one", standingAccount)
}

func legacyUser(t *testing.T, s story) {
	s.m.Login("alice")
	s.userRan(t, s.want(t, s.deploy(t, s.m, "as-user"), events.Succeeded), "alice", legacyLog)
}

func clientTokenAccount(t *testing.T, s story) {
	m := s.m
	if run(m, "id", clientToken) {
		t.Fatal("the account is there before the first program needs it")
	}
	s.elevatedRun(t, "as-administrator", clientToken, "client-token")
	made := s.notesOf(t, events.AgentAccountCreated, clientToken)
	if len(made) != 1 || made[0].Kind != "client-token" || made[0].Hostname != m.Name {
		t.Errorf("told was %s", compact(made))
	}
	if got := m.Exec("id", "-Gn", clientToken); strings.ContainsAny(got, " ") {
		t.Errorf("the account is in groups %s: a typical user is in its own alone", got)
	}
	if got := m.Exec("passwd", "--status", clientToken); !strings.HasPrefix(got, clientToken+" L ") {
		t.Errorf("the account is not locked: %s", got)
	}
	if got := m.Exec("getent", "passwd", clientToken); !strings.HasSuffix(got, "/nologin") {
		t.Errorf("the account can log in: %s", got)
	}
	s.elevatedRun(t, "as-administrator", clientToken, "client-token", "again")
	if made := s.notesOf(t, events.AgentAccountCreated, clientToken); len(made) != 1 {
		t.Errorf("made more than once: %s", compact(made))
	}
}

// notesOf gives what was told so far of an account, whatever the job.
func (s story) notesOf(t *testing.T, of events.Type[events.AccountNote], account string) (found []events.AccountNote) {
	t.Helper()
	list, _ := read[events.AccountNote](t, s.told, func(name string) bool { return name == of.Name })
	for _, n := range list {
		if n.Account == account && n.Hostname == s.m.Name {
			found = append(found, n)
		}
	}
	return found
}

func legacyInstalls(t *testing.T, s story) {
	s.installs(t, whose{"agent", clientToken, "root", legacyLog})
	job := s.want(t, s.deploy(t, s.m, "hello"), events.Succeeded)
	s.wantContext(t, job, whose{"agent", clientToken, "root", legacyLog})
	if got := s.m.Exec("hello"); got != "Hello, world!" {
		t.Errorf("hello says %q", got)
	}
}

func killedWhileRaised(t *testing.T, s story) {
	m := s.m
	before := rules(m)
	letGo := hold(t, m, "as-administrator")
	defer letGo()
	deployment := s.deploy(t, m, "as-administrator", "killed")
	running := s.want(t, deployment, events.Running)
	command := strings.Fields(recordOf(t, m, "as-administrator", running.Job).env("SUDO_COMMAND"))
	if may, answer := sudo(m, clientToken, command...); !may {
		t.Errorf("while it runs, the account may not run it: %s", answer)
	}
	m.Kill9(agentService)
	restored := s.notes(t, events.AgentAccountRestored, clientToken, running.Job, 1)
	if n := restored[0]; n.Kind != "client-token" || n.ElevatedTo != "root" || n.Deployment != deployment || n.Hostname != m.Name || n.Standing {
		t.Errorf("told was %s", compact(n))
	}
	wantRefused(t, m, clientToken, command)
	if after := rules(m); after != before {
		t.Errorf("sudoers.d held %q before and holds %q after", before, after)
	}
	if !run(m, "pgrep", "-f", "probe.sh as-administrator") {
		t.Error("the program has ended with the agent")
	}
	letGo()
	job := s.want(t, deployment, events.Succeeded)
	if job.ExitCode == nil || *job.ExitCode != 0 || job.Job != running.Job {
		t.Errorf("it ended as %s", compact(job))
	}
	s.wantContext(t, job, whose{"agent", clientToken, "root", legacyLog})
	recordOf(t, m, "as-administrator", job.Job) // it ran once
	wantRefused(t, m, clientToken, command)
}

func installationAccount(t *testing.T, s story) {
	s.elevatedRun(t, "by-account", "corpinstaller", "software-installation")
	const found = "/var/tmp/found" // what shows that the search finds something
	s.m.WriteFile(found, []byte(accountSecret), 0o600)
	search := "grep --recursive --files-with-matches --no-messages --devices=skip " + accountSecret + " /var/lib/chandler-agent /etc /run /tmp /var/tmp /home || true"
	if got := s.m.Exec("sh", "-c", search); got != found {
		t.Errorf("the account's secret stands in %s", got)
	}
}

func standingAccount(t *testing.T, s story) {
	m := s.m
	before := rules(m)
	for _, killed := range []bool{false, true} {
		name := "kept"
		if killed {
			name = "killed"
		}
		letGo := hold(t, m, "by-standing")
		defer letGo()
		deployment := s.deploy(t, m, "by-standing", name)
		running := s.want(t, deployment, events.Running)
		wantElevated(t, m, recordOf(t, m, "by-standing", running.Job), "corpstanding")
		if killed {
			m.Kill9(agentService)
		}
		letGo()
		job := s.want(t, deployment, events.Succeeded)
		s.wantContext(t, job, whose{"agent", "corpstanding", "root", legacyLog})
		given := s.notes(t, events.AgentAccountElevated, "corpstanding", job.Job, 1)
		if n := given[0]; n.Kind != "software-installation" || !n.Standing {
			t.Errorf("told was %s", compact(n))
		}
		wantLogged(t, m, legacyLog, "corpstanding", "already", "keeps")
		if groups := m.Exec("id", "-Gn", "corpstanding"); groups != "corpstanding sudo" {
			t.Errorf("an administrator became a member of %s (agent killed: %t)", groups, killed)
		}
		if after := rules(m); after != before {
			t.Errorf("sudoers.d held %q before and holds %q after (agent killed: %t)", before, after, killed)
		}
	}
}

// domainController is the story of a machine that has the domain's copy of the client token account.
func domainController(t *testing.T, site *site, m *machinetest.Machine) {
	s := story{site, m}
	m.Exec("useradd", "--shell", "/usr/sbin/nologin", domainToken)
	s.part(t, "the domain's copy of the client token account is raised for one program", func(t *testing.T, s story) {
		s.elevatedRun(t, "as-administrator", domainToken, "client-token-domain")
		if run(s.m, "id", clientToken) {
			t.Error("a domain controller has a local token account of its own")
		}
		if made := s.notesOf(t, events.AgentAccountCreated, domainToken); len(made) > 0 {
			t.Errorf("the domain's account was made: %s", compact(made))
		}
	})
	s.part(t, "the agent reads what the program of the domain's account needs", readsForDomainAccount)
}
