package integration

import (
	"slices"
	"strings"
	"testing"

	"chandler/events"
	"chandler/services/integration/machinetest"
)

const advancedLog = "execmgr.log"

// advancedClient is the story of a machine whose administrative programs the system runs, and of its users.
func advancedClient(t *testing.T, site *site, m *machinetest.Machine) {
	s := story{site, m}
	m.AddUser("alice", "draughts", "chess")
	m.AddUser("bob")
	s.part(t, "a user's program waits for a logon, over a restart of the agent and of the machine", waitsForLogon)
	s.part(t, "the agent reads what the user's program and the system's need", readsForUserAndSystem)
	s.part(t, "a package is more than a user may install, and the system installs it", bothModes)
	s.part(t, "a program for when nobody is logged on waits for the logoff", waitsForLogoff)
	s.part(t, "a program for every user runs once for each", onceForEveryUser)
	s.part(t, "a user logs off while a program runs", logsOffMeanwhile)
	s.part(t, "a program is shown where the user sees it", isShown)
	s.part(t, "a program asks for a logoff", asksForLogoff)
	s.part(t, "a soft restart lets others go on, a hard one does not, and detection has the last word", restartsSoftAndHard)
	s.part(t, "the agent restarts the machine", agentRestarts)
}

func waitsForLogon(t *testing.T, s story) {
	m := s.m
	waiting := s.deploy(t, m, "as-user")
	job := s.want(t, waiting, events.Waiting, events.WaitLogon)
	// After each restart another job shows that the agent has taken up its work.
	m.Exec("systemctl", "restart", agentService)
	first := s.want(t, s.deploy(t, m, "as-administrator"), events.Succeeded)
	s.wantContext(t, first, whose{"agent", "root", "", advancedLog})
	wantSystem(t, recordOf(t, m, "as-administrator", first.Job))
	m.Reboot()
	second := s.want(t, s.deploy(t, m, "by-account"), events.Succeeded)
	s.wantContext(t, second, whose{"agent", "root", "", advancedLog})
	wantSystem(t, recordOf(t, m, "by-account", second.Job))
	wantIgnored(t, s, second)

	if now := s.state(t, waiting); now.State != events.Waiting || now.WaitingFor != events.WaitLogon || now.Job != job.Job {
		t.Errorf("nobody has logged on, and the job is %s", compact(now))
	}
	if ran := recordsOf(t, m, "as-user"); len(ran) > 0 {
		t.Errorf("nobody has logged on, and it ran: %v", ran)
	}
	m.Login("alice")
	s.userRan(t, s.want(t, waiting, events.Succeeded), "alice", advancedLog)
}

// wantIgnored makes sure that log and events say that an installation account is none of an advanced client's.
func wantIgnored(t *testing.T, s story, job events.JobStatus) {
	t.Helper()
	list, _ := read[events.JobStatus](t, s.told, isStatus)
	ignored := func(text string) bool {
		return strings.Contains(text, "installation account") && strings.Contains(text, "ignored")
	}
	if !slices.ContainsFunc(statuses(job.Deployment, list), func(j events.JobStatus) bool { return ignored(strings.ToLower(j.Explanation)) }) {
		t.Errorf("no event says that the installation account is ignored: %s", compact(statuses(job.Deployment, list)))
	}
	wantLogged(t, s.m, advancedLog, "nstallation account", "ignored")
}

func bothModes(t *testing.T, s story) {
	s.m.Login("alice")
	failed := s.want(t, s.deploy(t, s.m, "tool-as-user"), events.Failed)
	if failed.Reason != events.UserLacksRights || failed.Executor != "alice" || !strings.Contains(failed.Explanation, "alice") || !strings.Contains(failed.Explanation, "run: administrative") {
		t.Errorf("the user's installation ended as %s", compact(failed))
	}
	// dpkg's own words, of what it could not do
	if !strings.Contains(failed.Explanation, "requested operation requires superuser privilege") {
		t.Errorf("the operation is not named: %s", failed.Explanation)
	}
	if run(s.m, "dpkg", "--status", "probe-tool") {
		t.Error("the package is installed")
	}
	s.installs(t, whose{"agent", "root", "", advancedLog})
}

func waitsForLogoff(t *testing.T, s story) {
	alice := s.m.Login("alice")
	waiting := s.deploy(t, s.m, "nobody-on")
	if job := s.want(t, waiting, events.Waiting, events.WaitLogoff); !strings.Contains(job.Explanation, "alice") {
		t.Errorf("it waits because %q", job.Explanation)
	}
	alice.Logout()
	job := s.want(t, waiting, events.Succeeded)
	s.wantContext(t, job, whose{"agent", "root", "", advancedLog})
	wantSystem(t, recordOf(t, s.m, "nobody-on", job.Job))
}

func onceForEveryUser(t *testing.T, s story) {
	m := s.m
	deployment := s.deploy(t, m, "each-user")
	s.want(t, deployment, events.Waiting, events.WaitLogon)
	alice := m.Login("alice")
	first := s.wantFor(t, deployment, "alice")
	alice.Logout()
	bob := m.Login("bob")
	second := s.wantFor(t, deployment, "bob")
	bob.Logout()
	if first.Job == second.Job {
		t.Errorf("one job, %s, for both", first.Job)
	}
	wantUser(t, m, recordOf(t, m, "each-user", first.Job), "alice")
	wantUser(t, m, recordOf(t, m, "each-user", second.Job), "bob")

	m.Login("alice")
	s.userRan(t, s.want(t, s.deploy(t, m, "as-user", "again"), events.Succeeded), "alice", advancedLog) // so her logon was seen
	if ran := recordsOf(t, m, "each-user"); len(ran) != 2 {
		t.Errorf("it ran %d times for two users", len(ran))
	}
}

// wantFor waits until a deployment's job for one user has succeeded.
func (s story) wantFor(t *testing.T, deployment, user string) events.JobStatus {
	t.Helper()
	return await(t, s.told, deployment+" has succeeded for "+user, isStatus, func(list []events.JobStatus) (events.JobStatus, bool) {
		for _, j := range statuses(deployment, list) {
			if j.User == user && j.State == events.Succeeded {
				return j, true
			}
		}
		return events.JobStatus{}, false
	})
}

func logsOffMeanwhile(t *testing.T, s story) {
	alice := s.m.Login("alice")
	defer hold(t, s.m, "as-user")()
	deployment := s.deploy(t, s.m, "as-user", "held")
	running := s.want(t, deployment, events.Running)
	recordOf(t, s.m, "as-user", running.Job)
	alice.Logout()
	failed := s.want(t, deployment, events.Failed)
	if failed.Reason != events.UserLoggedOff || failed.Executor != "alice" || !strings.Contains(failed.Explanation, "alice") {
		t.Errorf("it ended as %s", compact(failed))
	}
	if run(s.m, "pgrep", "-f", "probe.sh as-user") {
		t.Error("the program outlives the session")
	}
}

func isShown(t *testing.T, s story) {
	s.m.GraphicalLogin("bob")
	r := s.userRan(t, s.want(t, s.deploy(t, s.m, "shown"), events.Succeeded), "bob", advancedLog)
	if r.env("DISPLAY") != ":0" || r.env("XDG_SESSION_TYPE") != "x11" {
		t.Errorf("it is shown on display %q of type %q", r.env("DISPLAY"), r.env("XDG_SESSION_TYPE"))
	}
}

func asksForLogoff(t *testing.T, s story) {
	alice := s.m.Login("alice")
	s.want(t, s.deploy(t, s.m, "logs-off"), events.Succeeded)
	alice.AwaitEnd()
}

func restartsSoftAndHard(t *testing.T, s story) {
	m, boots := s.m, s.m.Boots()
	soft := s.deploy(t, m, "soft")
	if job := s.want(t, soft, events.RebootPending); job.Reason != events.RebootRequired || job.ExitCode == nil || *job.ExitCode != 30 {
		t.Errorf("it waits as %s", compact(job))
	}
	s.want(t, s.deployOf(t, m, "aside", "as-administrator"), events.Succeeded)
	vanishes := s.deployOf(t, m, "beside", "vanishes")
	s.want(t, vanishes, events.RebootPending)
	dependent := s.deploy(t, m, "as-administrator", "dependent") // of the same package
	s.want(t, dependent, events.Waiting, events.WaitReboot)

	hard := s.deployOf(t, m, "aside", "hard")
	s.want(t, hard, events.RebootPending)
	other := s.deployOf(t, m, "aside", "as-administrator", "after-hard")
	s.want(t, other, events.Waiting)
	if got := m.Boots(); got != boots {
		t.Errorf("the machine has restarted by itself: boot %d", got)
	}
	m.Reboot()
	for _, deployment := range []string{soft, hard, dependent, other} {
		s.want(t, deployment, events.Succeeded)
	}
	if job := s.want(t, vanishes, events.Failed); job.Reason != events.NotDetected {
		t.Errorf("what is gone after the restart ended as %s", compact(job))
	}
	for _, tag := range []string{"soft", "vanishes", "hard"} {
		if ran := recordsOf(t, m, tag); len(ran) != 1 {
			t.Errorf("%s ran %d times", tag, len(ran))
		}
	}
}

func agentRestarts(t *testing.T, s story) {
	boots := s.m.Boots()
	deployment := s.deploy(t, s.m, "restarts")
	await(t, s.told, deployment+" awaits the restart", isStatus, func(list []events.JobStatus) (none struct{}, ok bool) {
		of := statuses(deployment, list)
		if n := len(of); n > 0 && of[n-1].State.Terminal() {
			t.Fatalf("it ended without a restart: %s", compact(of[n-1]))
		}
		return none, slices.ContainsFunc(of, func(j events.JobStatus) bool { return j.State == events.RebootPending })
	})
	s.m.AwaitBoot(boots + 1)
	s.want(t, deployment, events.Succeeded)
	if ran := recordsOf(t, s.m, "restarts"); len(ran) != 1 || s.m.Boots() != boots+1 {
		t.Errorf("it ran %d times and the machine has restarted %d times", len(ran), s.m.Boots()-boots)
	}
	wantLogged(t, s.m, advancedLog, "Detection after the run", "/var/lib/probe-restarts")
}
