package supervise_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/lending"
	"chandler/agent/source"
	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

const share = "smb://files.example/apps"

// references are a run with a mount, and the agent that lends to it.
type references struct {
	root, dir, socket string // of the sources, the run and the agent
	spec              supervise.Spec

	mu     sync.Mutex
	asked  []string
	refuse *source.Error
}

func withReferences(t *testing.T, argv []string) *references {
	t.Helper()
	if said, err := exec.Command("unshare", "--mount", "test", "-c", "/dev/fuse").CombinedOutput(); err != nil {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatalf("no mounts here: %v %s", err, said)
		}
		t.Skipf("run as root, with /dev/fuse and util-linux: %v %s", err, said)
	}
	top := supervisetest.TempDir(t)
	r := &references{root: filepath.Join(top, "sources"), dir: filepath.Join(top, "run"), socket: filepath.Join(top, "agent", "s"), spec: specOf(t, argv)}
	if err := os.Mkdir(filepath.Dir(r.socket), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a": "alpha", "b": "beta", "denied": "no", "pinned": "it was", "mute": "", "big": strings.Repeat("0123456789abcdef", 1<<19)} {
		r.write(t, name, text)
	}
	if err := os.Chmod(filepath.Join(r.root, "files.example/apps/denied"), 0); err != nil {
		t.Fatal(err)
	}
	r.spec.Net = &supervise.Net{
		Mount: filepath.Join(r.dir, "net"), Socket: r.socket, Resources: []string{share + "/*"}, Identity: "network-access-account",
		Pins: map[string]string{share + "/pinned": sum("it is")},
	}
	return r
}

func (r *references) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(r.root, "files.example/apps", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func sum(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// lend is the agent until stop.
func (r *references) lend(t *testing.T) (stop func()) {
	t.Helper()
	server, err := lending.Listen(lending.Options{
		Path: r.socket, Log: slog.New(slog.DiscardHandler),
		Supervisor: func(dir string) (int, error) {
			run, err := supervise.Attach(dir)
			if err != nil || dir != r.dir {
				return 0, errors.Join(err, errors.New("no such run"))
			}
			return run.Supervisor()
		},
		Lend: func(_ context.Context, _, address string) (lending.Loan, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.asked = append(r.asked, address)
			if r.refuse != nil {
				return lending.Loan{}, r.refuse
			}
			return lending.Loan{Identity: "network-access-account", Account: "corp-reader", User: supervisetest.User, Version: 2, Lease: "lease-1", Secret: []byte(supervisetest.Secret)}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func (r *references) asks() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

func (r *references) path(name string) string {
	return filepath.Join(r.spec.Net.Mount, "files.example/apps", name)
}

// begin starts the program by a supervisor that has sources.
func (r *references) begin(t *testing.T, start starter) *supervise.Run {
	t.Helper()
	run, err := start(supervisetest.SupervisorReading(r.root), r.dir, r.spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { settle(t, run, r.dir) })
	return run
}

// seen says which processes have something mounted at the mount point.
func (r *references) seen(t *testing.T) (pids []string) {
	t.Helper()
	tables, err := filepath.Glob("/proc/[0-9]*/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if data, err := os.ReadFile(table); err == nil && bytes.Contains(data, []byte(" "+r.spec.Net.Mount+" ")) {
			pids = append(pids, filepath.Base(filepath.Dir(table)))
		}
	}
	return pids
}

func accesses(t *testing.T, run *supervise.Run) []string {
	t.Helper()
	all, next, err := run.Accesses(0)
	if err != nil || next != len(all) {
		t.Fatalf("%d accesses, then %d: %v", len(all), next, err)
	}
	var told []string
	for _, a := range all {
		told = append(told, strings.TrimSpace(strings.Join([]string{string(a.Reason), a.Account, strings.TrimPrefix(a.Resource, "smb://")}, " ")))
	}
	return told
}

func TestAProgramReadsItsReferencesByAnAccountLentToItsSupervisor(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, start starter) {
		meeting := supervisetest.Meet(t)
		r := withReferences(t, meeting.Program("p"))
		r.lend(t)
		run := r.begin(t, start)
		guest := meeting.Guest(t, "p")
		guest.Do(t, "child q")
		child := meeting.Guest(t, "q")
		if asked := r.asks(); len(asked) != 0 {
			t.Errorf("asked before the first use: %q", asked)
		}
		for _, ask := range []struct{ order, want string }{
			{"list " + r.spec.Net.Mount, "ok"},
			{"list " + r.path(""), "ok"},
			{"read " + r.path("a"), sum("alpha")},
			{"read " + r.path("big"), sum(strings.Repeat("0123456789abcdef", 1<<19))},
			{"read " + r.path("denied"), "open " + r.path("denied") + ": permission denied"},
			{"read " + r.path("missing"), "open " + r.path("missing") + ": no such file or directory"},
			{"read " + r.path("pinned"), "open " + r.path("pinned") + ": input/output error"},
			{"list " + r.spec.Net.Mount + "/files.example/other", "open " + r.spec.Net.Mount + "/files.example/other: permission denied"},
		} {
			if got := guest.Ask(t, ask.order); got != ask.want {
				t.Errorf("%s: %q", ask.order, got)
			}
		}
		if got := child.Ask(t, "read "+r.path("b")); got != sum("beta") {
			t.Errorf("the child reads %q", got)
		}
		// In the namespace is not in the program.
		outside := exec.Command("nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", guest.PID), "cat", r.path("a"))
		outside.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
		if said, err := outside.CombinedOutput(); err == nil || !strings.Contains(string(said), "Permission denied") {
			t.Errorf("from outside: %q, %v", said, err)
		}
		if seen := r.seen(t); len(seen) != 2 || !slices.Contains(seen, fmt.Sprint(guest.PID)) || !slices.Contains(seen, fmt.Sprint(child.PID)) {
			t.Errorf("seen by %q, program %d and child %d", seen, guest.PID, child.PID)
		}
		if entries, err := os.ReadDir(r.spec.Net.Mount); err != nil || len(entries) != 0 {
			t.Errorf("seen from here: %v, %v", entries, err)
		}
		r.wantNoCores(t, guest)
		child.Exit(t, 0)
		guest.Exit(t, 3)
		if got := wait(t, run); got.ExitCode != 3 {
			t.Errorf("outcome %+v", got)
		}
		if asked := r.asks(); !slices.Equal(asked, []string{share + "/*"}) {
			t.Errorf("asked %q", asked)
		}
		want := []string{"corp-reader files.example/apps", "network_access_denied corp-reader files.example/apps/denied", "source_not_found corp-reader files.example/apps/missing",
			"content_changed corp-reader files.example/apps/pinned", "credential_denied  files.example/other"}
		if diff := cmp.Diff(want, accesses(t, run)); diff != "" {
			t.Error(diff)
		}
		r.wantNoSecret(t)
	})
}

// wantNoCores compares the limit of dumps of the supervisor with that of the program.
func (r *references) wantNoCores(t *testing.T, guest *supervisetest.Guest) {
	t.Helper()
	limit := func(pid int) string {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), "Max core file size")
		line, _, _ := strings.Cut(rest, "\n")
		return strings.Join(strings.Fields(line), " ")
	}
	if got := limit(supervise.SupervisorOf(t, r.dir).Pid); got != "0 0 bytes" {
		t.Errorf("the supervisor may dump %s", got)
	}
	if got, want := limit(guest.PID), limit(os.Getpid()); got != want {
		t.Errorf("the program may dump %s, want %s", got, want)
	}
}

func (r *references) wantNoSecret(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(r.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(supervisetest.Secret)) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAProgramOfAnotherUserReadsItsReferences(t *testing.T) {
	t.Parallel()
	r := withReferences(t, nil)
	r.spec.Argv, r.spec.Dir = []string{"/bin/cat", r.path("a")}, "/"
	r.spec.Credential = &supervise.Credential{UID: 65534, GID: 65534}
	r.lend(t)
	if err := errors.Join(os.Chmod(filepath.Dir(r.dir), 0o711), os.Mkdir(r.dir, 0o711)); err != nil {
		t.Fatal(err)
	}
	run := r.begin(t, supervise.Start)
	got := wait(t, run)
	output, err := os.ReadFile(run.OutputPath())
	if err != nil || string(output) != "alpha" || got.ExitCode != 0 {
		t.Errorf("%q, %v, %+v", output, err, got)
	}
}

func TestNothingIsLeftMountedHoweverTheRunEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, r *references, run *supervise.Run, program *supervisetest.Guest){
		"the program ends": func(t *testing.T, _ *references, run *supervise.Run, program *supervisetest.Guest) {
			program.Exit(t, 0)
			wait(t, run)
		},
		"the supervisor is killed": func(t *testing.T, r *references, run *supervise.Run, program *supervisetest.Guest) {
			if err := supervise.SupervisorOf(t, r.dir).Kill(); err != nil {
				t.Fatal(err)
			}
			if _, err := waitFor(t, run); !errors.Is(err, supervise.ErrLost) {
				t.Errorf("wait: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			meeting := supervisetest.Meet(t)
			r := withReferences(t, meeting.Program("p"))
			r.lend(t)
			run := r.begin(t, supervise.Start)
			program := meeting.Guest(t, "p")
			program.Do(t, "orphan q")
			daemon := meeting.Guest(t, "q")
			if got := daemon.Ask(t, "read "+r.path("a")); got != sum("alpha") {
				t.Fatalf("the daemon reads %q", got)
			}
			end(t, r, run, program)
			// Where the mount went, the folder is empty; where only its server did, nobody answers.
			got := daemon.Ask(t, "read "+r.path("a"))
			if !strings.HasSuffix(got, "no such file or directory") && !strings.HasSuffix(got, "transport endpoint is not connected") {
				t.Errorf("the daemon that is left reads %q", got)
			}
			daemon.Exit(t, 0)
			if r.seen(t) != nil && name == "the program ends" {
				t.Errorf("seen by %q", r.seen(t))
			}
			if err := run.Kill(); err != nil {
				t.Error(err)
			}
			if name == "the supervisor is killed" {
				program.Gone(t)
			}
			for deadline := time.Now().Add(supervisetest.Patience); r.seen(t) != nil; {
				if time.Now().After(deadline) {
					t.Fatalf("seen by %q", r.seen(t))
				}
			}
		})
	}
}

func TestATimeOutEndsAProgramThatWaitsForAMuteHost(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, start starter) {
		r := withReferences(t, nil)
		r.spec.Argv, r.spec.MaxRunTime = []string{"/bin/cat", r.path(supervisetest.Mute)}, 2*time.Second
		r.lend(t)
		began := time.Now()
		got := wait(t, r.begin(t, start))
		if !got.TimedOut || !got.Killed || got.StillRunning || time.Since(began) > 8*time.Second {
			t.Errorf("after %v: %+v", time.Since(began), got)
		}
	})
}

func TestAnAgentThatRestartsLendsToTheRunsOfTheOneBefore(t *testing.T) {
	t.Parallel()
	meeting := supervisetest.Meet(t)
	r := withReferences(t, meeting.Program("p"))
	stop := r.lend(t)
	run := r.begin(t, supervise.Start)
	guest := meeting.Guest(t, "p")
	guest.Do(t, "list "+r.spec.Net.Mount)
	stop()
	listener, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() { read <- guest.Ask(t, "read "+r.path("a")) }()
	asks, err := listener.Accept() // an agent that ends while it is asked
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(listener.Close(), asks.Close()); err != nil {
		t.Fatal(err)
	}
	r.lend(t)
	if got := <-read; got != sum("alpha") {
		t.Errorf("read %q", got)
	}
	guest.Exit(t, 0)
	wait(t, run)
	if diff := cmp.Diff([]string{"corp-reader files.example/apps"}, accesses(t, run)); diff != "" {
		t.Error(diff)
	}
}

func TestNobodyButTheSupervisorIsLentTo(t *testing.T) {
	t.Parallel()
	meeting := supervisetest.Meet(t)
	r := withReferences(t, meeting.Program("p"))
	r.lend(t)
	run := r.begin(t, supervise.Start)
	guest := meeting.Guest(t, "p")
	refused := func(why string) {
		loan, err := lending.Dial(r.socket, r.dir).Login(t.Context(), share+"/a")
		var e *source.Error
		if !errors.As(err, &e) || e.Reason != events.CredentialDenied || len(loan.Secret) != 0 {
			t.Errorf("%s: %v, %v", why, loan, err)
		}
	}
	refused("a process of root")
	pid, err := run.Supervisor()
	if err != nil || pid != supervise.SupervisorOf(t, r.dir).Pid {
		t.Errorf("supervisor %d, %v", pid, err)
	}
	guest.Exit(t, 0)
	wait(t, run)
	if pid, err := run.Supervisor(); err == nil {
		t.Errorf("process %d watches over a run that has ended", pid)
	}
	if asked := r.asks(); len(asked) != 0 {
		t.Errorf("asked %q", asked)
	}
}

func TestAProgramWhoseReferencesCannotBeMountedIsNotStarted(t *testing.T) {
	t.Parallel()
	meeting := supervisetest.Meet(t)
	r := withReferences(t, meeting.Program("p"))
	if err := errors.Join(os.Mkdir(r.dir, 0o700), os.WriteFile(r.spec.Net.Mount, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	got := wait(t, r.begin(t, supervise.Start))
	if got.Started || got.ErrorKind != supervise.NoNetworkMount || !strings.Contains(got.Error, "not a directory") {
		t.Errorf("outcome %+v", got)
	}
	meeting.Absent(t, "p")
}
