package integration

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"chandler/events"
)

// request is a line of the content service's access log.
type request struct {
	at     time.Time
	values map[string]string
}

// requests gives those for a blob that came from one address, oldest first.
func (s *site) requests(t *testing.T, blob, address string) (list []request) {
	t.Helper()
	for line := range strings.Lines(s.log.String()) {
		if !strings.Contains(line, `msg="blob requested"`) || !strings.Contains(line, "blob="+blob) || !strings.Contains(line, "remote="+address+":") {
			continue
		}
		r := request{values: map[string]string{}}
		for _, field := range strings.Fields(line) {
			if name, value, ok := strings.Cut(field, "="); ok {
				r.values[name] = value
			}
		}
		var err error
		r.at, err = time.Parse(time.RFC3339Nano, r.values["time"])
		must(t, err)
		list = append(list, r)
	}
	return list
}

// agentReads deploys content that the machine has not yet. By the word of the server that gives it, it goes to the
// machine, once and whole, before the program is started and before anybody has the rights to. The machine lets
// nobody but root through to the server, whose content is read all the same: not the user, nor an account.
func (s story) agentReads(t *testing.T, pkg, program string, want whose) {
	t.Helper()
	text := ownText(pkg)
	blob := events.DigestOf([]byte(text))
	if early := s.requests(t, blob, s.m.Address); len(early) > 0 {
		t.Fatalf("the content of %s was asked for before: %v", pkg, early)
	}
	deployment := s.deployOf(t, s.m, pkg, program)
	job := s.want(t, deployment, events.Succeeded)
	s.wantContext(t, job, want)
	list, _ := read[events.JobStatus](t, s.told, isStatus)
	of := statuses(deployment, list)
	running := slices.IndexFunc(of, func(j events.JobStatus) bool { return j.State == events.Running })
	if running < 0 {
		t.Fatalf("it never ran: %s", compact(of))
	}
	started := of[running].At
	if want.elevatedTo != "" {
		started = s.notes(t, events.AgentAccountElevated, want.executor, job.Job, 1)[0].At
	}
	got := s.requests(t, blob, s.m.Address)
	if len(got) != 1 {
		t.Fatalf("the content of %s was asked for %d times: %v", pkg, len(got), got)
	}
	if v := got[0].values; v["method"] != "GET" || v["status"] != "200" || v["bytes_out"] != strconv.Itoa(len(text)) || v["cut"] != "false" {
		t.Errorf("the content of %s was given as %v", pkg, v)
	}
	if got[0].at.After(started) {
		t.Errorf("the content of %s was read at %s, and the program was started at %s", pkg, got[0].at, started)
	}
}

// onlyRootReads makes sure that a machine lets nobody else through to the server's content.
func onlyRootReads(t *testing.T, s story, user string) {
	t.Helper()
	connect := []string{"bash", "-c", ": < /dev/tcp/" + s.lab.Address() + "/" + contentPort}
	if out, err := s.m.Command(connect...).CombinedOutput(); err != nil {
		t.Errorf("root does not get through: %v\n%s", err, out)
	}
	as := []string{"setpriv", "--reuid=" + uidOf(s.m, user), "--regid=" + s.m.Exec("id", "-g", user), "--init-groups", "--"}
	if out, err := s.m.Command(append(as, connect...)...).CombinedOutput(); err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("%s gets through: %v\n%s", user, err, out)
	}
}

func readsForUserAndSystem(t *testing.T, s story) {
	onlyRootReads(t, s, "alice")
	s.m.Login("alice")
	s.agentReads(t, "first", "as-user", whose{"agent", "alice", "", advancedLog})
	s.agentReads(t, "second", "as-administrator", whose{"agent", "root", "", advancedLog})
}

func readsForUserAndAccounts(t *testing.T, s story) {
	onlyRootReads(t, s, "alice")
	s.m.Login("alice")
	s.agentReads(t, "first", "as-user", whose{"agent", "alice", "", legacyLog})
	s.agentReads(t, "second", "as-administrator", whose{"agent", clientToken, "root", legacyLog})
	s.agentReads(t, "third", "by-account", whose{"agent", "corpinstaller", "root", legacyLog})
	for _, account := range []string{clientToken, "corpinstaller"} {
		onlyRootReads(t, s, account)
	}
}

func readsForDomainAccount(t *testing.T, s story) {
	onlyRootReads(t, s, domainToken)
	s.agentReads(t, "first", "as-administrator", whose{"agent", domainToken, "root", legacyLog})
}
