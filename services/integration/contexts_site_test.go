package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chandler/events"
	"chandler/services/integration/machinetest"
)

// site is a server and an administrator at the lab's address, and what all their events say. Both programs are
// those that users get.
type site struct {
	t    *testing.T
	lab  *machinetest.Lab
	bin  string // directory of both programs
	home string // of the administrator's configuration
	data string // what the server keeps
	up   *exec.Cmd
	down <-chan struct{} // closed when up has ended
	told *told
	log  *logBuffer // of the server, with everything that it tells
}

// contentPort is where the server gives content.
const contentPort = "4280"

// newSite builds the programs, starts the server and makes its trust; everything ends with the test.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, lab: machinetest.NewLab(t), bin: t.TempDir(), home: t.TempDir(), told: &told{changed: make(chan struct{})}, log: &logBuffer{}}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", s.bin+string(filepath.Separator), "../cmd/chandler", "../../agent/cmd/chandler-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	s.data = filepath.Join(t.TempDir(), "data")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server said:\n%s", tail(s.log.String()))
		}
	})
	s.serve()
	s.cli(t, "trust", "init")
	s.listen()
	return s
}

// serve starts the server with what it keeps.
func (s *site) serve() {
	s.t.Helper()
	at := s.lab.Address()
	s.up = s.command("up", "--tls", "--tls-name", at, "--listen", at+":4222", "--http", at+":"+contentPort, "--data", s.data, "--log-level", "debug")
	s.up.Stderr = s.log
	s.down = s.start(s.up, func(line string) bool { return strings.HasPrefix(line, "chandler is up") })
}

// listen has all events told, from the first on.
func (s *site) listen() {
	s.t.Helper()
	all := s.command("events", "tail", "--output", "json", "--since", "24h")
	all.Stderr = s.log
	s.start(all, s.told.line)
}

// crash kills the server and starts it again.
func (s *site) crash() {
	s.t.Helper()
	must(s.t, s.up.Process.Kill())
	<-s.down
	s.serve()
	s.listen() // whoever listened before may have given up
}

// command prepares the administrator's CLI.
func (s *site) command(args ...string) *exec.Cmd {
	cmd := s.lab.Command(filepath.Join(s.bin, "chandler"), args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+s.home)
	return cmd
}

// cli does something as the administrator, who is told this.
func (s *site) cli(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("chandler %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start starts a program that runs until the test ends, and waits until a line of its output is taken. What it gives is
// closed when the program has ended.
func (s *site) start(cmd *exec.Cmd, take func(line string) bool) <-chan struct{} {
	s.t.Helper()
	stdout, err := cmd.StdoutPipe()
	must(s.t, err)
	must(s.t, cmd.Start())
	taken, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		first := sync.OnceFunc(func() { close(taken) })
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			if take(lines.Text()) {
				first()
			}
		}
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended with the test's context
		<-ended
		_ = cmd.Wait()
	})
	select {
	case <-taken:
	case <-ended:
		s.t.Fatalf("%q ended", cmd.Args)
	case <-time.After(time.Minute):
		s.t.Fatalf("%q says nothing that was waited for", cmd.Args)
	}
	return ended
}

// newMachine boots a machine, with a collection of that name for it alone, and makes it an agent by a token with
// these properties. Programs find a place to leave their records in. Nobody but root gets through to the server's
// content from there.
func (s *site) newMachine(name string, token ...string) *machinetest.Machine {
	s.t.Helper()
	m := s.lab.Start(name)
	m.Exec("install", "-d", "-m", "777", records)
	m.Exec("ip", "rule", "add", "uidrange", "1-4294967294", "ipproto", "6", "dport", contentPort, "prohibit")
	m.CopyIn(filepath.Join(s.bin, "chandler-agent"), "/root/chandler-agent", 0o755)
	file := filepath.Join(s.t.TempDir(), "token")
	s.cli(s.t, append([]string{"token", "create", name, "--out", file}, token...)...)
	m.CopyIn(file, "/root/chandler.token", 0o600)
	// So that stories wait less for it.
	m.WriteFile("/etc/systemd/system/chandler-agent.service.d/soon.conf", []byte("[Service]\nRestartSec=100ms\n"), 0o644)
	m.Exec("/root/chandler-agent", "install", "--token-file", "/root/chandler.token")
	s.cli(s.t, "collection", "set", name, "--where", fmt.Sprintf("agent.hostname == %q", name))
	await(s.t, s.told, name+" is known", func(name string) bool { return name == events.AgentReported.Name }, func(list []events.AgentReport) (none struct{}, ok bool) {
		return none, slices.ContainsFunc(list, func(r events.AgentReport) bool { return r.Facts.Hostname == name })
	})
	return m
}

// explain shows the machine's side of a test that failed.
func explain(t *testing.T, m *machinetest.Machine) {
	if !t.Failed() {
		return
	}
	t.Logf("%s's agent said:\n%s", m.Name, tail(m.Exec("journalctl", "--no-pager", "--unit", agentService, "--output", "cat")))
	for _, name := range []string{advancedLog, legacyLog} {
		if text, there := m.ReadFile(jobLogs + name); there {
			t.Logf("%s of %s:\n%s", name, m.Name, tail(string(text)))
		}
	}
}

// deploy runs a program of the package on one machine's collection, as the deployment's name says, with a further word
// where it is deployed again.
func (s *site) deploy(t *testing.T, m *machinetest.Machine, program string, again ...string) (deployment string) {
	t.Helper()
	return s.deployOf(t, m, "probe", program, again...)
}

// deployOf does so with another package.
func (s *site) deployOf(t *testing.T, m *machinetest.Machine, pkg, program string, again ...string) (deployment string) {
	t.Helper()
	deployment = strings.Join(append([]string{m.Name, pkg, program}, again...), "-")
	s.create(t, deployment, m, pkg, program)
	return deployment
}

// create does so by a name and with further options.
func (s *site) create(t *testing.T, deployment string, m *machinetest.Machine, pkg, program string, options ...string) {
	t.Helper()
	s.cli(t, append([]string{"deployment", "create", deployment, "--package", pkg, "--program", program, "--to", m.Name, "--rerun", "always", "--yes"}, options...)...)
}

// told is what the events say so far.
type told struct {
	mu      sync.Mutex
	all     []event
	changed chan struct{} // closed and replaced with every event
}

type event struct {
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// line takes a line of events tail.
func (h *told) line(text string) bool {
	var e event
	if json.Unmarshal([]byte(text), &e) != nil || e.Type == "" {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, e)
	close(h.changed)
	h.changed = make(chan struct{})
	return true
}

// read gives the data of all events of some types so far, and what is closed when there is another event of any.
func read[T any](t *testing.T, h *told, is func(name string) bool) (list []T, changed <-chan struct{}) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.all {
		if !is(e.Type) {
			continue
		}
		var data T
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatalf("%s: %v: %s", e.Type, err, e.Data)
		}
		list = append(list, data)
	}
	return list, h.changed
}

// await waits until the events of some types hold what is looked for.
func await[T, R any](t *testing.T, h *told, what string, is func(name string) bool, look func([]T) (R, bool)) R {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		list, changed := read[T](t, h, is)
		if found, ok := look(list); ok {
			return found
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("waited a minute in vain: %s; told was %+v", what, list)
		}
	}
}

// isStatus are the types of statuses.
func isStatus(name string) bool {
	return slices.ContainsFunc(events.States(), func(s events.State) bool {
		t, ok := events.StatusType(s)
		return ok && t.Name == name
	})
}

// statuses gives what was told of a deployment's jobs, oldest first, each transition once.
func statuses(deployment string, list []events.JobStatus) (of []events.JobStatus) {
	for _, s := range list {
		told := slices.ContainsFunc(of, func(o events.JobStatus) bool { return o.StatusID() == s.StatusID() })
		if s.Deployment == deployment && !told {
			of = append(of, s)
		}
	}
	return of
}

// want waits until the newest status of a deployment's only job is the one that is looked for. Another end is a
// failure at once.
func (s *site) want(t *testing.T, deployment string, state events.State, waitingFor ...events.WaitingFor) events.JobStatus {
	t.Helper()
	what := fmt.Sprintf("%s is %s %v", deployment, state, waitingFor)
	return await(t, s.told, what, isStatus, func(list []events.JobStatus) (events.JobStatus, bool) {
		of := statuses(deployment, list)
		if len(of) == 0 {
			return events.JobStatus{}, false
		}
		last := of[len(of)-1]
		if last.State.Terminal() && last.State != state {
			t.Fatalf("%s is %s (%s), not %s: %s", deployment, last.State, last.Reason, state, last.Explanation)
		}
		return last, last.State == state && (len(waitingFor) == 0 || last.WaitingFor == waitingFor[0])
	})
}

// state is the newest state told of a deployment's only job.
func (s *site) state(t *testing.T, deployment string) events.JobStatus {
	t.Helper()
	list, _ := read[events.JobStatus](t, s.told, isStatus)
	of := statuses(deployment, list)
	if len(of) == 0 {
		t.Fatalf("nothing was told of %s", deployment)
	}
	return of[len(of)-1]
}

// notes waits until so many events of one type were told of an account.
func (s *site) notes(t *testing.T, of events.Type[events.AccountNote], account, job string, count int) []events.AccountNote {
	t.Helper()
	return await(t, s.told, fmt.Sprintf("%d %s of %s for job %s", count, of.Name, account, job), func(name string) bool { return name == of.Name },
		func(list []events.AccountNote) (found []events.AccountNote, ok bool) {
			for _, n := range list {
				if n.Account == account && n.Job == job {
					found = append(found, n)
				}
			}
			return found, len(found) >= count
		})
}
