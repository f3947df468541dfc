package elevate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"chandler/agent/account"
	"chandler/agent/account/accounttest"
	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

// asAgent makes this binary an agent that dies at a step.
const asAgent = "elevate-test-agent"

// TestMain gives the tests an /etc of their own, so that the machine's accounts and rules stay as they are.
func TestMain(m *testing.M) {
	supervisetest.Main()
	if len(os.Args) > 2 && os.Args[1] == asAgent {
		os.Exit(dyingAgent(os.Args[2]))
	}
	accounttest.Main()
	os.Exit(m.Run())
}

// machine is this one, with an account, a run's directory and a keeper.
type machine struct {
	*testing.T
	options Options
	keeper  *Keeper
	who     account.Account
	run     string // the run's directory
	content string // in it, root's alone
	told    []string
	notes   []events.AccountNote
	deaf    bool // nobody takes notes
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	accounttest.Need(t)
	m := &machine{T: t, options: Options{Dir: filepath.Join(t.TempDir(), "records"), Log: slog.New(slog.DiscardHandler)}}
	m.run = filepath.Join(t.TempDir(), "run")
	m.content = filepath.Join(m.run, "content")
	m.must(os.MkdirAll(m.content, 0o700))
	m.who = m.user("tok&en"+strconv.Itoa(os.Getpid()), "-e", "1970-01-02")
	m.restart()
	return m
}

// restart is a new agent on the same machine.
func (m *machine) restart() {
	m.Helper()
	var err error
	if m.keeper, err = New(m.options); err != nil {
		m.Fatal(err)
	}
	m.keeper.Tell(func(event events.Type[events.AccountNote], note events.AccountNote) error {
		if m.deaf {
			return errors.New("nobody listens")
		}
		m.told = append(m.told, event.Name)
		m.notes = append(m.notes, note)
		return nil
	})
}

func (m *machine) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// user makes an account that lives as long as the test.
func (m *machine) user(name string, options ...string) account.Account {
	m.Helper()
	// A number that nothing else on this machine has: processes are not private.
	number := strconv.Itoa(100_000_000 + 100*os.Getpid() + len(options))
	args := append([]string{"-M", "-U", "-u", number, "-s", "/usr/sbin/nologin"}, options...)
	if out, err := exec.Command("useradd", append(args, "--", name)...).CombinedOutput(); err != nil {
		m.Fatalf("useradd: %v: %s", err, out)
	}
	m.Cleanup(func() {
		if out, err := exec.Command("userdel", "-f", "--", name).CombinedOutput(); err != nil && !strings.Contains(string(out), "does not exist") {
			m.Errorf("userdel: %v: %s", err, out)
		}
	})
	made, err := user.Lookup(name)
	m.must(err)
	uid, err := strconv.ParseUint(made.Uid, 10, 32)
	m.must(err)
	gid, err := strconv.ParseUint(made.Gid, 10, 32)
	m.must(err)
	return account.Account{Name: name, UID: uint32(uid), GID: uint32(gid), Groups: []uint32{uint32(gid)}, Home: "/nonexistent", Local: true}
}

func (m *machine) grant() Grant {
	return Grant{Dir: m.run, Account: m.who, Kind: ClientToken, Job: "job1", Deployment: "hello", Program: "hello 1 install", Attempt: 1}
}

func (m *machine) spec(argv ...string) supervise.Spec {
	return supervise.Spec{Job: "job1", Attempt: 1, Argv: argv, Dir: m.content, OutputLimit: 1 << 20,
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "CHANDLER_PACKAGE=" + m.content}}
}

// file of the package.
func (m *machine) file(name, text string, mode os.FileMode) string {
	m.Helper()
	path := filepath.Join(m.content, name)
	m.must(os.WriteFile(path, []byte(text), mode))
	m.must(os.Chmod(path, mode))
	return path
}

// start runs a spec to its end.
func (m *machine) start(spec supervise.Spec) (supervise.Outcome, string) {
	m.Helper()
	run, err := supervise.Start(supervisetest.Supervisor(), m.run, spec)
	m.must(err)
	outcome, err := run.Wait(m.Context())
	m.must(err)
	output, err := os.ReadFile(run.OutputPath())
	m.must(err)
	return outcome, string(output)
}

// bySudo is what the account itself gets from sudo.
func (m *machine) bySudo(argv ...string) (string, error) {
	return m.asAccount(append([]string{"sudo", "-n", "--"}, argv...)...)
}

func (m *machine) asAccount(argv ...string) (string, error) {
	cmd := exec.CommandContext(m.Context(), argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: m.who.UID, Gid: m.who.GID, Groups: m.who.Groups}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ordinary fails unless the account has no rights, and nothing is left of any that it had.
func (m *machine) ordinary(argv ...string) {
	m.Helper()
	if out, err := m.bySudo(argv...); err == nil {
		m.Errorf("the account may still run %q: %s", argv, out)
	}
	if day, found, err := expiryDay(m.who.Name); err != nil || found && day != endedDay {
		m.Errorf("the account expires on day %d, %v", day, err)
	}
	left, err := filepath.Glob("/etc/sudoers.d/chandler*")
	m.must(err)
	records, err := os.ReadDir(m.options.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.Fatal(err)
	}
	for _, record := range records {
		left = append(left, record.Name())
	}
	if len(left) > 0 {
		m.Errorf("still there: %q", left)
	}
}

// order is what a dying agent is told.
type order struct {
	Records, Step, Run string
	Grant              Grant
	Spec               supervise.Spec
	Return             bool // after the grant
	Start              bool // the program, before the death
}

// dyingAgent does what an agent does until the step, and is killed there.
func dyingAgent(text string) int {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return 2
	}
	die := func() { syscall.Kill(os.Getpid(), syscall.SIGKILL) }
	k, err := New(Options{Dir: o.Records, Log: slog.New(slog.DiscardHandler), reached: func(step string) {
		if step == o.Step {
			die()
		}
	}})
	if err != nil {
		return 3
	}
	spec, err := k.Grant(context.Background(), o.Grant, o.Spec)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	if o.Start {
		if _, err := supervise.Start(supervisetest.Supervisor(), o.Run, spec); err != nil {
			return 5
		}
		die()
	}
	if err := k.Return(context.Background(), o.Grant.Dir); err != nil {
		return 6
	}
	return 0
}

// dies runs an agent that is killed as the order says.
func (m *machine) dies(o order) {
	m.Helper()
	o.Records, o.Run, o.Grant = m.options.Dir, m.run, m.grant()
	text, err := json.Marshal(o)
	m.must(err)
	out, err := exec.CommandContext(m.Context(), "/proc/self/exe", asAgent, string(text)).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		m.Fatalf("the agent was not killed at step %q: %v: %s", o.Step, err, strings.TrimSpace(string(out)))
	}
}
