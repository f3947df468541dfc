package dashboards

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/enrolment"
)

// fleet is a real server and real agents on this machine.
type fleet struct {
	t       *testing.T
	dir     string
	broker  string   // URL
	metrics []string // where processes serve /metrics, the server first
}

// startFleet builds the programs and runs them until the test ends.
func startFleet(t *testing.T, agents int) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir()}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", f.dir+string(filepath.Separator), "./services/cmd/chandler", "./agent/cmd/chandler-agent")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as they are shipped, also when the test itself needs cgo
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	server := f.start("chandler", "up", "--data", filepath.Join(f.dir, "server"), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-level", "info")
	up := server.await(t, `broker (nats://[0-9.:]+), .*metrics http://([0-9.:]+)/metrics`)
	f.broker, f.metrics = up[1], []string{up[2]}
	f.mustExit(0, "trust", "init")
	token := filepath.Join(f.dir, "token")
	f.mustExit(0, "token", "create", "dashboards", "--uses", fmt.Sprint(agents), "--out", token)
	for i := range agents {
		name := fmt.Sprintf("agent%d", i)
		agent := f.start("chandler-agent", "run", "--config", os.DevNull, "--token-file", token, "--state-dir", filepath.Join(f.dir, name), "--hostname", name, "--metrics", "127.0.0.1:0")
		f.metrics = append(f.metrics, agent.await(t, `serving /metrics and /healthz.* address="?(127[0-9.:]+)`)[1])
	}
	eventually(t, "every agent has reported", func() error {
		out, err := f.chandler("agent", "ls", "-o", "name").CombinedOutput()
		if n := bytes.Count(out, []byte("\n")); err != nil || n != agents {
			return fmt.Errorf("%d agents: %w\n%s", n, err, out)
		}
		return nil
	})
	return f
}

const samplePackage = `api: chandler/v1
package: sample
version: "1.0"
files: [payload]
programs:
  good: {command: ["true"], run: administrative}
  bad: {command: ["false"], run: administrative}
`

// deploy publishes one package with a program that succeeds and one that fails, and deploys both to all.
func (f *fleet) deploy() {
	f.t.Helper()
	source := filepath.Join(f.dir, "package")
	if err := os.Mkdir(source, 0o700); err != nil {
		f.t.Fatal(err)
	}
	for name, data := range map[string]string{"package.yaml": samplePackage, "payload": strings.Repeat("content\n", 10_000)} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(data), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	f.mustExit(0, "package", "publish", source)
	f.mustExit(0, "collection", "set", "everybody", "--where", "true")
	f.mustExit(0, "deployment", "create", "good", "--package", "sample", "--program", "good", "--to", "everybody", "--yes", "--watch")
	f.mustExit(2, "deployment", "create", "bad", "--package", "sample", "--program", "bad", "--to", "everybody", "--yes", "--watch")
}

// spoil publishes what is no event, where statuses of jobs belong, as an agent can that was taken over.
func (f *fleet) spoil() {
	f.t.Helper()
	identity := filepath.Join(f.dir, "server", "identity")
	seed, err := os.ReadFile(filepath.Join(identity, "agent-signing.nk"))
	if err != nil {
		f.t.Fatal(err)
	}
	signing, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		f.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(identity, "fleet.json"))
	if err != nil {
		f.t.Fatal(err)
	}
	var public struct{ Accounts map[access.Account]string }
	if err := json.Unmarshal(text, &public); err != nil {
		f.t.Fatal(err)
	}
	own, key, err := enrolment.NewKey()
	if err != nil {
		f.t.Fatal(err)
	}
	agent := events.AgentID([]byte(key))
	jwt, err := access.Mint(access.Agent, signing, public.Accounts[access.Agents], access.User{Name: agent, Key: key, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		f.t.Fatal(err)
	}
	nc, err := nats.Connect(f.broker, nats.UserJWTAndSeed(jwt, string(own)), nats.CustomInboxPrefix("_INBOX."+agent))
	if err != nil {
		f.t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Request("chandler.job.succeeded."+agent, []byte("no event"), 10*time.Second); err != nil {
		f.t.Fatalf("store what is no event: %v", err)
	}
}

func (f *fleet) chandler(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(f.t.Context(), filepath.Join(f.dir, "chandler"), args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(f.dir, "config"))
	return cmd
}

func (f *fleet) mustExit(code int, args ...string) {
	f.t.Helper()
	out, err := f.chandler(args...).CombinedOutput()
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got, err = exit.ExitCode(), nil
	}
	if err != nil || got != code {
		f.t.Fatalf("chandler %s: exit code %d, want %d (%v)\n%s", strings.Join(args, " "), got, code, err, out)
	}
}

// start runs a program of the fleet until the test ends.
func (f *fleet) start(program string, args ...string) *process {
	f.t.Helper()
	cmd := exec.Command(filepath.Join(f.dir, program), args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(f.dir, "config"))
	return startProcess(f.t, cmd)
}

// process is a program that runs until the test ends.
type process struct {
	name  string
	lines chan string // what it prints; closed at its end

	mu  sync.Mutex
	all bytes.Buffer
}

func startProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: filepath.Base(cmd.Path), lines: make(chan string, 1024)}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(r)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // a process that fails early is missed by await
		w.Close()
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err == nil {
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				t.Errorf("%s did not stop when it was told to", p.name)
			}
		}
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.name, p.text())
		}
	})
	return p
}

// read passes lines on to await, and keeps all of them.
func (p *process) read(r io.Reader) {
	defer close(p.lines)
	for scanner := bufio.NewScanner(r); scanner.Scan(); {
		p.mu.Lock()
		p.all.WriteString(scanner.Text() + "\n")
		p.mu.Unlock()
		select {
		case p.lines <- scanner.Text():
		default: // nobody awaits anything any more
		}
	}
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.String()
}

// await waits for a line that matches and gives its groups.
func (p *process) await(t *testing.T, pattern string) []string {
	t.Helper()
	want := regexp.MustCompile(pattern)
	late := time.After(time.Minute)
	for {
		select {
		case line, running := <-p.lines:
			if !running {
				t.Fatalf("%s ended before it printed %s:\n%s", p.name, pattern, p.text())
			}
			if found := want.FindStringSubmatch(line); found != nil {
				return found
			}
		case <-late:
			t.Fatalf("%s did not print %s:\n%s", p.name, pattern, p.text())
		}
	}
}

// eventually tries until there is no error, for a minute.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute: %v", what, err)
		}
	}
}
