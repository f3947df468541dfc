//go:build unix

package userrunner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/account"
	"chandler/agent/account/accounttest"
	"chandler/agent/execute"
	"chandler/agent/execute/runnertest"
	"chandler/agent/logon"
	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

func TestMain(m *testing.M) {
	supervisetest.Main()
	accounttest.Main()
	os.Exit(m.Run())
}

func sessionOf(user account.Account) *logon.Session {
	return &logon.Session{ID: "none of logind's", User: user.Name, UID: user.UID, Type: "tty"}
}

func TestRunnerAsTheAgentsOwnUser(t *testing.T) {
	own, err := account.LookupUID(t.Context(), uint32(os.Geteuid()))
	if err != nil {
		t.Fatal(err)
	}
	runnertest.Run(t, func(*testing.T) execute.Runner { return New(Options{}) }, runnertest.Options{
		UID: os.Getuid(), Complete: func(req *execute.Request) { req.Session = sessionOf(own) },
	})
}

func TestRunnerAsAnotherUser(t *testing.T) {
	base, user := throwaway(t)
	runnertest.Run(t, func(*testing.T) execute.Runner { return New(Options{}) }, runnertest.Options{
		UID: int(user.UID), Base: base, Complete: func(req *execute.Request) { req.Session = sessionOf(user) },
	})
}

// throwaway makes a user of this machine, in a group of its own besides, and a directory that everybody may pass, in which
// the user's home is. Both go with the test.
func throwaway(t *testing.T) (base string, user account.Account) {
	t.Helper()
	accounttest.Need(t)
	base, err := os.MkdirTemp("", "userrunner-")
	if err == nil {
		err = os.Chmod(base, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	name := fmt.Sprintf("chandlertest%d", os.Getpid())
	accounttest.Do(t, "groupadd", name+"g")
	t.Cleanup(func() { accounttest.Do(t, "groupdel", name+"g") })
	accounttest.User(t, name, "--create-home", "--home-dir", filepath.Join(base, "home of Älva"), "--groups", name+"g", "--shell", "/bin/bash")
	if user, err = account.Lookup(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return base, user
}

func TestAProgramHasTheUsersRightsAndNoMore(t *testing.T) {
	base, user := throwaway(t)
	executor, err := execute.New(execute.Options{
		Supervisor: supervisetest.Supervisor(), Runners: map[string]execute.Runner{"user": New(Options{})},
	})
	if err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(base, "root's")
	if err := os.WriteFile(closed, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	execution, err := executor.Start(t.Context(), execute.Request{
		Job: "job1", Attempt: 1, As: "user", Dir: filepath.Join(base, "run"), Session: sessionOf(user),
		Command: execute.Command{Shell: execute.Sh, Line: `id -u; id -G; echo "$HOME|$USER|$LOGNAME|$SHELL"; cd && touch written && echo home
cat "` + closed + `" 2>/dev/null || echo refused; cat /proc/self/loginuid >/dev/null; umask`},
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := execution.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	output, err := os.ReadFile(result.OutputPath)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(output), "\n")
	if len(lines) < 6 {
		t.Fatalf("output %q", output)
	}
	groups := strings.Fields(lines[1])
	slices.Sort(groups)
	var want []string
	for _, gid := range user.Groups {
		want = append(want, strconv.Itoa(int(gid)))
	}
	slices.Sort(want)
	if len(want) != 2 {
		t.Errorf("the user is in groups %v, want its own and another", want)
	}
	if diff := cmp.Diff(want, groups); diff != "" {
		t.Errorf("groups: %s", diff)
	}
	lines[1] = ""
	if diff := cmp.Diff([]string{
		strconv.Itoa(int(user.UID)), "", user.Home + "|" + user.Name + "|" + user.Name + "|/bin/bash", "home", "refused", "0022", "",
	}, lines); diff != "" {
		t.Error(diff)
	}
	if result.Executor != user.Name || result.Meaning != execute.Success {
		t.Errorf("result %+v", result)
	}
}

// runnerFor knows one user only.
func runnerFor(user account.Account, err error) *Runner {
	return New(Options{Lookup: func(context.Context, string) (account.Account, error) { return user, err }})
}

func TestWhatIsNotCertainRefusesTheProgram(t *testing.T) {
	uid := uint32(os.Getuid())
	home := t.TempDir()
	file := filepath.Join(home, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	alice := account.Account{Name: "alice", UID: uid, GID: uid, Groups: []uint32{uid}, Home: home, Shell: "/bin/sh"}
	homeless := func(path string) account.Account {
		other := alice
		other.Home = path
		return other
	}
	stranger := alice
	stranger.UID++
	for _, test := range []struct {
		name    string
		user    account.Account
		lookup  error
		session *logon.Session
		own     int
		reason  events.Reason
		answer  string
	}{
		{"no session", alice, nil, nil, 0, events.UserLoggedOff, "no user is logged on"},
		{"a user that the system does not know", account.Account{}, account.ErrNotFound, sessionOf(alice), 0, events.AccountUnusable, "no such user"},
		{"an expired user", alice, &account.Unusable{Name: "alice", Why: "has expired"}, sessionOf(alice), 0, events.AccountUnusable, "has expired"},
		{"a session of another number", alice, nil, sessionOf(stranger), 0, events.AccountUnusable, fmt.Sprint(uid + 1)},
		{"a home that is missing", homeless(filepath.Join(home, "none")), nil, sessionOf(alice), 0, events.HomeMissing, "does not exist"},
		{"a home that is a file", homeless(file), nil, sessionOf(alice), 0, events.HomeMissing, "is not a directory"},
		{"a home below a file", homeless(filepath.Join(file, "x")), nil, sessionOf(alice), 0, events.HomeMissing, "not a directory"},
		{"no home", homeless(""), nil, sessionOf(alice), 0, events.HomeMissing, "is not an absolute path"},
		{"a home that is another user's", stranger, nil, sessionOf(stranger), 0, events.HomeMissing, fmt.Sprintf("belongs to uid %d", uid)},
		{"another user, for an agent without rights", alice, nil, sessionOf(alice), int(uid) + 7, events.ContextUnsupported, "without the rights"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var err error
			if r := runnerFor(test.user, test.lookup); test.session == nil {
				_, err = r.Prepare(t.Context(), execute.Request{})
			} else {
				_, err = r.prepareAs(t.Context(), test.own, *test.session, false)
			}
			var impossible *execute.Impossible
			if !errors.As(err, &impossible) {
				t.Fatalf("error %v", err)
			}
			if impossible.Reason != test.reason || !strings.Contains(impossible.Answer, test.answer) {
				t.Errorf("%s: %q, want %s: %q", impossible.Reason, impossible.Answer, test.reason, test.answer)
			}
			if test.session != nil && impossible.Identity != "alice" {
				t.Errorf("identity %q", impossible.Identity)
			}
			if test.reason == events.HomeMissing && impossible.Resource != test.user.Home {
				t.Errorf("resource %q, want %q", impossible.Resource, test.user.Home)
			}
		})
	}
}

func TestWhoeverStopsAskingGetsNoReason(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := runnerFor(account.Account{}, context.Canceled).Prepare(ctx, execute.Request{Session: &logon.Session{User: "alice"}})
	var impossible *execute.Impossible
	if !errors.Is(err, context.Canceled) || errors.As(err, &impossible) {
		t.Errorf("error %v", err)
	}
}

func TestAnAgentWithoutRightsRunsAsItself(t *testing.T) {
	uid := uint32(os.Getuid())
	alice := account.Account{Name: "alice", UID: uid, GID: 7, Groups: []uint32{7, 8}, Home: t.TempDir()}
	if uid == 0 { // the directory must be the user's
		alice.UID = 4242
		if err := os.Chown(alice.Home, 4242, 7); err != nil {
			t.Fatal(err)
		}
	}
	trial, err := runnerFor(alice, nil).prepareAs(t.Context(), int(alice.UID), *sessionOf(alice), false)
	if err != nil || trial.Credential != nil || !strings.Contains(trial.Note, "as alice itself") {
		t.Errorf("%+v, %v", trial, err)
	}
	root, err := runnerFor(alice, nil).prepareAs(t.Context(), 0, *sessionOf(alice), false)
	want := &supervise.Credential{UID: alice.UID, GID: 7, Groups: []uint32{7, 8}}
	if diff := cmp.Diff(want, root.Credential); err != nil || diff != "" || root.Note != "" || root.Executor != "alice" {
		t.Errorf("%+v, %v: %s", root, err, diff)
	}
	if !slices.Contains(root.Env, "SHELL=/bin/sh") {
		t.Errorf("without a shell in the account: %q", root.Env)
	}
}

func TestAnInteractiveProgramThatNobodySeesIsNoted(t *testing.T) {
	own := account.Account{Name: "alice", UID: uint32(os.Getuid()), Home: t.TempDir()}
	for _, test := range []struct {
		kind        string
		interactive bool
		note        bool
	}{{"tty", true, true}, {"tty", false, false}, {"x11", false, false}, {"", true, true}} {
		session := sessionOf(own)
		session.Type, session.Display = test.kind, ":9"
		prepared, err := runnerFor(own, nil).prepareAs(t.Context(), 0, *session, test.interactive)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(prepared.Note, "nobody sees it") != test.note {
			t.Errorf("type %q, interactive %v: note %q", test.kind, test.interactive, prepared.Note)
		}
		if slices.ContainsFunc(prepared.Env, func(e string) bool { return strings.HasPrefix(e, "DISPLAY=") }) {
			t.Errorf("type %q, interactive %v: environment %q", test.kind, test.interactive, prepared.Env)
		}
	}
}

func TestAHomeWhoseFileServerIsSilentIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := make(chan string)
		defer close(silent)
		began := time.Now()
		if why := inTime(t.Context(), homeLimit, func() string { return <-silent }); why != "does not answer" || time.Since(began) != homeLimit {
			t.Errorf("after %v: %q", time.Since(began), why)
		}
		if why := inTime(t.Context(), homeLimit, func() string { return "" }); why != "" {
			t.Errorf("of one that is there: %q", why)
		}
	})
}
