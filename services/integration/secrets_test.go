package integration

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"chandler/agent/identity"
	"chandler/events"
	"chandler/services/integration/machinetest"
)

// TestSecretsAreNowhere has accounts used in every way there is: for content and for references, by programs that end well,
// that are refused, that lose their agent and their server, with everything logged that can be. Then it searches whatever
// was written, and what processes were given, for what all the accounts' secrets begin with. The file server's own files
// are not the system's.
func TestSecretsAreNowhere(t *testing.T) {
	secret := "Pl4nted" + rand.Text()
	needles := needlesOf(secret)
	stop := watchProcesses(t, needles)
	allowCores(t)
	o := newOutside(t, secret)
	o.publishUsed(t)
	advanced, legacy := o.newMachine("advanced"), o.newMachine("legacy", "--client-kind", "legacy")
	for _, m := range []*machinetest.Machine{advanced, legacy} {
		m.WriteFile("/etc/chandler/agent.yaml", []byte("log: {level: debug}\n"), 0o600)
		m.WriteFile("/etc/systemd/system/chandler-agent.service.d/cores.conf", []byte("[Service]\nLimitCORE=infinity\n"), 0o644)
		m.Exec("systemctl", "daemon-reload")
		m.Exec("systemctl", "restart", agentService)
		defer explain(t, m)
	}
	a, l := outsideStory{story{o.site, advanced}, o}, outsideStory{story{o.site, legacy}, o}
	a.uses(t, "network", readerUser)
	l.uses(t, "installation", installerUser)
	for _, c := range []struct {
		s       outsideStory
		program string
		reason  events.Reason
	}{{a, "forgotten", events.CredentialRejected}, {a, "private", events.NetworkAccessDenied}, {l, "by-forgetful", events.CredentialRejected}} {
		if job := c.s.want(t, c.s.deployOf(t, c.s.m, "used-"+c.program, "run"), events.Failed); job.Reason != c.reason {
			t.Errorf("%s ended as %s", c.program, compact(job))
		}
	}
	o.changeAndTry(t, secret, advanced.Name)
	a.survives(t, "network", identity.NetworkAccess, readerUser)
	l.survives(t, "installation", identity.Installation, installerUser)
	stop()
	o.searchAll(t, needles, advanced, legacy)
}

// publishUsed publishes packages of everything that accounts are lent for.
func (o *outside) publishUsed(t *testing.T) {
	for program, run := range map[string]string{"network": "run: administrative", "installation": "run: administrative, installation-account: " + installerUser} {
		o.files.Write(software, "used/"+program, []byte("what is referred to"))
		o.files.Write(software, "used/"+program+"-later", []byte("what is referred to later"))
		at, path := o.files.Address(software, "used"), o.lab.Address()+"/"+software+"/used/"+program
		o.onShare(software, "used-"+program, `programs:
  run: {command: [visit.sh, `+program+`, `+path+`], `+run+`, references: [{url: "`+at+`"}]}
  later: {command: [visit.sh, `+program+`-later, `+path+`-later], `+run+`, references: [{url: "`+at+`"}]}
`)
	}
	for program, share := range map[string]string{"forgotten": forgotten, "private": private} {
		o.onShare(share, "used-"+program, "programs:\n  run: {command: [visit.sh, never], run: administrative}\n")
	}
	o.onShare(software, "used-by-forgetful", "programs:\n  run: {command: [visit.sh, never], run: administrative, installation-account: corpforgetful}\n")
}

// uses runs a program whose content and reference are read by an account, and looks at both processes that know it.
func (s outsideStory) uses(t *testing.T, program, user string) {
	t.Helper()
	letGo := hold(t, s.m, program)
	defer letGo()
	deployment := s.deployOf(t, s.m, "used-"+program, "run")
	s.want(t, deployment, events.Running)
	s.wantNoCores(t)
	letGo()
	s.wantRead(t, deployment, program)
	s.out.wantOpened(t, software, "used-"+program+"/visit.sh", user)
	s.out.wantOpened(t, software, "used/"+program, user)
}

// wantRead waits for a program's end and makes sure that it read its reference.
func (s outsideStory) wantRead(t *testing.T, deployment, tag string) {
	t.Helper()
	job := s.want(t, deployment, events.Succeeded)
	if r := recordOf(t, s.m, tag, job.Job); len(r["read"]) != 1 || len(r["refused"]) != 0 {
		t.Errorf("%s read %q and was refused %q", tag, r["read"], r["refused"])
	}
}

// allowCores lets this process and those that it starts write cores until the test ends, unless they do without.
func allowCores(t *testing.T) {
	t.Helper()
	limit := func(core string) {
		t.Helper()
		if out, err := exec.Command("prlimit", "--pid", strconv.Itoa(os.Getpid()), "--core="+core).CombinedOutput(); err != nil {
			lacking(t, "cores are allowed by prlimit: apt-get install util-linux; "+string(out))
		}
	}
	limit("1000000:")
	t.Cleanup(func() { limit("0:") })
}

// wantNoCores makes sure that no core is written of the server, the agent or a supervisor that crashes.
func (s outsideStory) wantNoCores(t *testing.T) {
	t.Helper()
	said := map[string]string{}
	eventually(t, "the limits of the server, an agent and a supervisor can be read", func() bool {
		pids := strings.Fields(s.m.Exec("pidof", "chandler-agent"))
		files := map[string]string{"server": "/proc/" + strconv.Itoa(s.up.Process.Pid) + "/limits"}
		for i, pid := range pids {
			files["agent or supervisor "+strconv.Itoa(i)] = filepath.Join(s.m.Files(), "proc", pid, "limits")
		}
		clear(said)
		for who, file := range files {
			data, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				return false // the supervisor of an earlier program has just ended
			}
			must(t, err)
			said[who] = string(data)
		}
		return len(pids) > 1
	})
	for who, limits := range said {
		found := false
		for line := range strings.Lines(limits) {
			if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
				found = strings.Fields(rest)[0] == "0"
			}
		}
		if !found {
			t.Errorf("a core may be written of the %s:\n%s", who, limits)
		}
	}
}

// changeAndTry gives an account another secret, and has an agent try accounts that may and may not read.
func (o *outside) changeAndTry(t *testing.T, secret, agent string) {
	t.Helper()
	next := filepath.Join(t.TempDir(), "next")
	must(t, os.WriteFile(next, []byte(secret+"-next\n"), 0o600))
	o.files.SetPassword(readerUser, secret+"-next")
	o.cli(t, "account", "rotate", readerUser, "--secret-file", next)
	o.cli(t, "account", "test", readerUser, "--resource", o.files.Address(software, "used/network"), "--agent", agent)
	out, err := o.command("account", "test", readerUser, "--resource", o.files.Address(private, "used-private"), "--agent", agent).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte(deniedCode)) || bytes.Contains(out, []byte(secret)) {
		t.Errorf("a test of what may not be read: %v, %s", err, out)
	}
}

// survives kills the agent and then the server while a program runs that has read nothing yet.
func (s outsideStory) survives(t *testing.T, program string, who identity.Who, user string) {
	t.Helper()
	tag := program + "-later"
	letGo := hold(t, s.m, tag)
	defer letGo()
	deployment := s.deployOf(t, s.m, "used-"+program, "later")
	s.want(t, deployment, events.Running)
	said := func() string { return s.m.Exec("journalctl", "--no-pager", "--unit", agentService, "--output", "cat") }
	connected := func() int { return strings.Count(said(), "broker connected") }
	before := connected()
	s.m.Exec("systemctl", "kill", "--kill-whom=main", "--signal=SIGABRT", agentService) // at which it tells all that it does
	eventually(t, "the agent is back", func() bool { return connected() > before })
	if !strings.Contains(said(), "SIGABRT: abort") {
		t.Errorf("the agent did not tell what it did:\n%s", tail(said()))
	}
	s.m.Kill9(agentService)
	eventually(t, "the agent is back again", func() bool { return connected() > before+1 })
	s.crash()
	eventually(t, "the agent has found the server again", func() bool { return connected() > before+2 })
	letGo()
	s.wantRead(t, deployment, tag)
	s.out.wantOpened(t, software, "used/"+tag, user)
}

// searchAll searches what server, administrator and machines keep, and everything that was told. That something would be
// found there is told by what is: one file on each machine that the test has put there.
func (o *outside) searchAll(t *testing.T, needles []needle, machines ...*machinetest.Machine) {
	t.Helper()
	dirs := map[string]int{o.data: 10, o.home: 3} // with how many files there are at least
	planted := map[string]bool{}
	for i, m := range machines {
		const file = "/var/lib/chandler-agent/planted"
		m.WriteFile(file, needles[i].text, 0o600)
		planted[filepath.Join(m.Files(), file)] = false
		for _, dir := range []string{"etc", "home", "root", "run", "srv", "tmp", "var"} {
			dirs[filepath.Join(m.Files(), dir)] = 0
		}
	}
	for dir, least := range dirs {
		found, files := searchFiles(t, dir, needles)
		if files < least {
			t.Errorf("there are %d files in %s: is it the right place?", files, dir)
		}
		for path, forms := range found {
			if _, there := planted[path]; !there {
				t.Errorf("%s holds the secret %s", path, strings.Join(forms, "; "))
			}
			planted[path] = true
		}
	}
	for path, found := range planted {
		if !found {
			t.Errorf("%s was not found", path)
		}
	}
	o.told.mu.Lock()
	all, err := json.Marshal(o.told.all)
	o.told.mu.Unlock()
	must(t, err)
	for what, text := range map[string]string{"the server's log": o.log.String(), "what events tell": string(all)} {
		forms, err := search(strings.NewReader(text), needles)
		must(t, err)
		if len(forms) > 0 || len(text) < 10_000 {
			t.Errorf("%s (%d bytes) holds the secret %s", what, len(text), strings.Join(forms, "; "))
		}
	}
	for _, account := range []string{readerUser, installerUser, "forgetful", "corpforgetful"} {
		if !strings.Contains(string(all), `"account":"`+account+`"`) {
			t.Errorf("no event tells of account %s, so nothing was shown of it", account)
		}
	}
}
