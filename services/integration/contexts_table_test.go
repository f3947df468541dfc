package integration

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"chandler/events"
	"chandler/services/integration/machinetest"
)

// Accounts by which legacy clients run programs: the agent's own, and the domain's copy of it.
const (
	clientToken = "SMSCliToknLocalAcct&"
	domainToken = "SMSCliToknAcct&"
)

const agentService = "chandler-agent"

// TestProgramsRunInTheContextTheyAreFor holds the table of who reads and who executes against whole machines, one
// for each kind of client: agents run as their unit runs them, users log on by logind, elevation is sudo's. What a
// program is and may do is told by a probe from inside, and by the machine from outside.
func TestProgramsRunInTheContextTheyAreFor(t *testing.T) {
	s := newSite(t)
	s.publishProbes()
	advanced := s.newMachine("advanced")
	legacy := s.newMachine("legacy", "--client-kind", "legacy")
	controller := s.newMachine("controller", "--client-kind", "legacy", "--domain-controller")
	for _, c := range []struct {
		machine *machinetest.Machine
		story   func(*testing.T, *site, *machinetest.Machine)
	}{{advanced, advancedClient}, {legacy, legacyClient}, {controller, domainController}} {
		t.Run(c.machine.Name, func(t *testing.T) {
			t.Parallel()
			m := c.machine.For(t)
			defer explain(t, m)
			c.story(t, s, m)
		})
	}
}

// story runs a part of a machine's story.
type story struct {
	*site
	m *machinetest.Machine
}

func (s story) part(t *testing.T, name string, part func(t *testing.T, s story)) {
	t.Run(name, func(t *testing.T) { part(t, story{s.site, s.m.For(t)}) })
}

// whose is what is expected of a run: who read, who ran it, and what that was raised to.
type whose struct {
	reader, executor, elevatedTo string
	log                          string
}

// wantContext holds what was told of a job, and what stands in the log, against the context.
func (s story) wantContext(t *testing.T, job events.JobStatus, want whose) {
	t.Helper()
	if job.Reader != want.reader || job.Executor != want.executor || job.ElevatedTo != want.elevatedTo {
		t.Errorf("%s: read by %q, run by %q elevated to %q; want %+v", job.Deployment, job.Reader, job.Executor, job.ElevatedTo, want)
	}
	executor := want.executor
	if want.elevatedTo != "" {
		executor += ", elevated to " + want.elevatedTo
	}
	wantLogged(t, s.m, want.log, job.Program+" runs as "+executor, "read by "+want.reader)
}

// wantUser makes sure that a run had a user's rights and surroundings, and no others.
func wantUser(t *testing.T, m *machinetest.Machine, r record, user string) {
	t.Helper()
	uid, home := uidOf(m, user), "/home/"+user
	want := map[string]string{
		"uid": uid, "user": user, "groups": m.Exec("id", "-Gn", user), "env.HOME": home, "env.USER": user, "env.LOGNAME": user, "env.SUDO_UID": "",
		"env.XDG_RUNTIME_DIR": "/run/user/" + uid, "env.DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/" + uid + "/bus",
	}
	for name, value := range want {
		if got := r.first(name); got != value {
			t.Errorf("%s of a program of %s is %q, want %q", name, user, got, value)
		}
	}
	for _, place := range []string{"/etc", "/usr/bin", "/var/lib/chandler-agent", "/var/lib/chandler-agent/logs", r.env("CHANDLER_PACKAGE")} {
		if r.may("writes", place) {
			t.Errorf("a program of %s can write to %s", user, place)
		}
	}
	if r.may("lists", "/var/lib/chandler-agent") || r.may("lists", "/var/lib/chandler-agent/logs") {
		t.Errorf("a program of %s sees what the agent keeps", user)
	}
	if !r.may("writes", home) || !r.may("writes", r.env("TMPDIR")) || !r.may("lists", r.env("CHANDLER_PACKAGE")) {
		t.Errorf("a program of %s can write to %q and list %q: want its home, its temporary directory and the package", user, r["writes"], r["lists"])
	}
	if r.first("cwd") != r.env("CHANDLER_PACKAGE") {
		t.Errorf("a program of %s starts in %s, its package is in %s", user, r.first("cwd"), r.env("CHANDLER_PACKAGE"))
	}
	if chain := regexp.MustCompile(`^probe\.sh ` + uid + `, (chandler-agent 0, )+systemd 0$`); !chain.MatchString(r.parents()) {
		t.Errorf("a program of %s has the parents %s", user, r.parents())
	}
}

// wantSystem makes sure that a run was the machine's own: root without anybody's surroundings.
func wantSystem(t *testing.T, r record) {
	t.Helper()
	want := map[string]string{"uid": "0", "gid": "0", "user": "root", "groups": "root", "env.HOME": "/root", "env.SUDO_UID": "", "env.XDG_RUNTIME_DIR": "",
		"env.DBUS_SESSION_BUS_ADDRESS": "", "env.DISPLAY": "", "env.NOTIFY_SOCKET": "", "env.INVOCATION_ID": ""}
	for name, value := range want {
		if got := r.first(name); got != value {
			t.Errorf("%s of the system's program is %q, want %q", name, got, value)
		}
	}
	if !r.may("writes", "/etc") || !r.may("writes", "/usr/bin") {
		t.Errorf("the system's program can write to %q", r["writes"])
	}
	if chain := regexp.MustCompile(`^probe\.sh 0, (chandler-agent 0, )+systemd 0$`); !chain.MatchString(r.parents()) {
		t.Errorf("the system's program has the parents %s", r.parents())
	}
}

// wantElevated makes sure that a run was root's by way of an account.
func wantElevated(t *testing.T, m *machinetest.Machine, r record, account string) {
	t.Helper()
	want := map[string]string{"uid": "0", "user": "root", "env.SUDO_UID": uidOf(m, account), "env.SUDO_USER": account, "env.XDG_RUNTIME_DIR": "", "env.DISPLAY": ""}
	for name, value := range want {
		if got := r.first(name); got != value {
			t.Errorf("%s of a program by %s is %q, want %q", name, account, got, value)
		}
	}
	if !r.may("writes", "/etc") || !r.may("writes", "/usr/bin") || r.first("cwd") != r.env("CHANDLER_PACKAGE") {
		t.Errorf("a program by %s can write to %q and starts in %s", account, r["writes"], r.first("cwd"))
	}
	if chain := regexp.MustCompile(`^probe\.sh 0, (sudo 0, )+(chandler-agent 0, )+systemd 0$`); !chain.MatchString(r.parents()) {
		t.Errorf("a program by %s has the parents %s", account, r.parents())
	}
}

// sudo asks as an account, without a password, whether it may run a command as root: what the answer was.
func sudo(m *machinetest.Machine, account string, command ...string) (may bool, answer string) {
	gid := m.Exec("id", "-g", account)
	as := []string{"setpriv", "--reuid=" + uidOf(m, account), "--regid=" + gid, "--init-groups", "--", "sudo", "-n", "-l", "--"}
	out, err := m.Command(append(as, command...)...).CombinedOutput()
	return err == nil, strings.TrimSpace(string(out))
}

// wantRefused makes sure that sudo refuses the account, by its own word, also what it was given before.
func wantRefused(t *testing.T, m *machinetest.Machine, account string, commands ...[]string) {
	t.Helper()
	for _, command := range append(commands, []string{"/usr/bin/true"}) {
		may, answer := sudo(m, account, command...)
		if may || !regexp.MustCompile(`password is required|account.*expired|may not run sudo|not allowed|is not in the sudoers`).MatchString(answer) {
			t.Errorf("sudo lets %s run %q: %t, %s", account, command, may, answer)
		}
	}
}

// rules are the names of what stands in sudoers.d.
func rules(m *machinetest.Machine) string { return m.Exec("ls", "-A", "/etc/sudoers.d") }

// elevatedRun runs a program that is elevated by an account and looks before, while and after it runs. An account that
// is not there yet is the agent's to make.
func (s story) elevatedRun(t *testing.T, program, account, kind string, again ...string) {
	t.Helper()
	m := s.m
	before := rules(m)
	groups := ""
	if run(m, "id", account) {
		wantRefused(t, m, account)
		groups = m.Exec("id", "-Gn", account)
	}
	letGo := hold(t, m, program)
	defer letGo()
	deployment := s.deploy(t, m, program, again...)
	running := s.want(t, deployment, events.Running)
	r := recordOf(t, m, program, running.Job)
	wantElevated(t, m, r, account)
	command := strings.Fields(r.env("SUDO_COMMAND"))
	if may, answer := sudo(m, account, command...); !may {
		t.Errorf("while it runs, sudo does not let %s run %q, which makes the refusals of no worth: %s", account, command, answer)
	}
	for _, other := range [][]string{{"/usr/bin/true"}, append(slices.Clone(command), "more"), {command[0], "other"}} {
		if may, answer := sudo(m, account, other...); may {
			t.Errorf("while it runs, sudo lets %s run %q: %s", account, other, answer)
		}
	}
	letGo()
	job := s.want(t, deployment, events.Succeeded)
	s.wantContext(t, job, whose{"agent", account, "root", legacyLog})
	s.wantRaised(t, job, account, kind)
	wantRefused(t, m, account, command)
	if after := rules(m); after != before {
		t.Errorf("sudoers.d held %q before and holds %q after", before, after)
	}
	if after := m.Exec("id", "-Gn", account); groups != "" && after != groups {
		t.Errorf("%s was in %s and is in %s", account, groups, after)
	}
}

// wantRaised makes sure that events told once that the account was given rights for the job, and that they were taken back.
func (s story) wantRaised(t *testing.T, job events.JobStatus, account, kind string) {
	t.Helper()
	given := s.notes(t, events.AgentAccountElevated, account, job.Job, 1)
	returned := s.notes(t, events.AgentAccountReturned, account, job.Job, 1)
	if len(given) != 1 || len(returned) != 1 || returned[0].At.Before(given[0].At) {
		t.Errorf("what was told of %s: given %s, returned %s", account, compact(given), compact(returned))
	}
	for _, n := range slices.Concat(given, returned) {
		if n.Kind != kind || n.ElevatedTo != "root" || n.Deployment != job.Deployment || n.Attempt != 1 || n.Hostname != s.m.Name || n.Standing {
			t.Errorf("told was %s", compact(n))
		}
	}
}

// run says whether a program of the machine ends well.
func run(m *machinetest.Machine, args ...string) bool { return m.Command(args...).Run() == nil }

// installs deploys the Debian package and makes sure whose installation it was.
func (s story) installs(t *testing.T, want whose) {
	t.Helper()
	job := s.want(t, s.deploy(t, s.m, "tool"), events.Succeeded)
	s.wantContext(t, job, want)
	if got := s.m.Exec("probe-tool"); got != "tool" {
		t.Errorf("the installed program says %q", got)
	}
	if got := s.m.Exec("stat", "-c", "%U:%G", "/usr/bin/probe-tool", "/var/lib/dpkg/status"); got != "root:root\nroot:root" {
		t.Errorf("the installed program and dpkg's database belong to %q", got)
	}
	r := recordOf(t, s.m, "postinst", job.Job)
	by := ""
	if want.elevatedTo != "" {
		by = uidOf(s.m, want.executor)
	}
	if r.first("uid") != "0" || r.env("SUDO_UID") != by {
		t.Errorf("the package's script ran as %s, SUDO_UID %q, want %q", r.first("uid"), r.env("SUDO_UID"), by)
	}
}

// userRan makes sure that a run was a user's and that what was told says so too.
func (s story) userRan(t *testing.T, job events.JobStatus, user, log string) record {
	t.Helper()
	s.wantContext(t, job, whose{"agent", user, "", log})
	r := recordOf(t, s.m, job.Program, job.Job)
	wantUser(t, s.m, r, user)
	if _, made := s.m.ReadFile(path.Join("/var/lib", "probe-"+job.Program)); made {
		t.Errorf("%s's program made a file in /var/lib", user)
	}
	return r
}
