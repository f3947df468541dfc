package elevate

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/account"
	"chandler/agent/execute"
	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

const someSID = "S-1-5-21-1-2-3-1001"

// fakeGroup writes down what is done to it.
type fakeGroup struct {
	members map[string]bool
	did     []string
	broken  error // of the next change
}

func (g *fakeGroup) name() (string, error) { return "Administratoren", nil }

func (g *fakeGroup) has(sid string) (bool, error) { return g.members[sid], nil }

func (g *fakeGroup) add(sid string) error { return g.change("add", sid, true) }

func (g *fakeGroup) remove(sid string) error { return g.change("remove", sid, false) }

func (g *fakeGroup) change(what, sid string, is bool) error {
	if err := g.broken; err != nil {
		g.broken = nil
		return err
	}
	g.did = append(g.did, what)
	g.members[sid] = is
	return nil
}

// windowsMachine is a keeper with a group.
type windowsMachine struct {
	*testing.T
	dir    string
	group  *fakeGroup
	keeper *Keeper
	told   []string
}

func newWindowsMachine(t *testing.T) *windowsMachine {
	m := &windowsMachine{T: t, dir: supervisetest.TempDir(t), group: &fakeGroup{members: map[string]bool{}}}
	m.restart()
	return m
}

func (m *windowsMachine) restart() {
	options := Options{Dir: filepath.Join(m.dir, "records"), Log: slog.New(slog.DiscardHandler), Clock: fixedClock, reached: func(string) {}}
	var err error
	if m.keeper, err = newKeeper(options, newMembers(m.group, options.reached)); err != nil {
		m.Fatal(err)
	}
	m.keeper.Tell(func(event events.Type[events.AccountNote], note events.AccountNote) error {
		m.told = append(m.told, strings.TrimSuffix(strings.TrimPrefix(event.Name, "dev.chandler."), ".v1")+": "+note.Means)
		return nil
	})
}

// grant logs on with a token that says so when it is closed.
func (m *windowsMachine) grant(standing bool) Grant {
	return Grant{
		Dir: filepath.Join(m.dir, "run"), Account: account.Account{Name: `EXAMPLE\installer`, SID: someSID, Administrator: standing},
		Kind: SoftwareInstallation, Job: "job1", Attempt: 1,
		Logon: func(context.Context) (uint64, func(), error) {
			m.group.did = append(m.group.did, "logon")
			return 77, func() { m.group.did = append(m.group.did, "close") }, nil
		},
	}
}

func (m *windowsMachine) want(told []string, did ...string) {
	m.Helper()
	if diff := cmp.Diff(did, m.group.did); diff != "" {
		m.Error(diff)
	}
	if diff := cmp.Diff(told, m.told); diff != "" {
		m.Error(diff)
	}
	if m.group.members[someSID] {
		m.Error("the account is still an administrator")
	}
	left, _, err := m.keeper.store.read()
	if err != nil || len(left) > 0 {
		m.Errorf("records left: %+v, %v", left, err)
	}
}

const (
	madeMember = "agent.account.elevated: made a member of Administratoren"
	noMember   = ": no member of Administratoren any more"
)

func TestAMemberLogsOnAfterItWasAddedAndIsRemovedAfterTheRun(t *testing.T) {
	m := newWindowsMachine(t)
	spec, err := m.keeper.Grant(t.Context(), m.grant(false), supervise.Spec{Argv: []string{`C:\setup.exe`}, CommandLine: `C:\setup.exe /S`})
	if err != nil {
		t.Fatal(err)
	}
	if spec.Logon == nil || spec.Logon.Token != 77 || spec.CommandLine != `C:\setup.exe /S` {
		t.Errorf("spec %+v, logon %+v", spec, spec.Logon)
	}
	for range 2 {
		if err := m.keeper.Return(t.Context(), m.grant(false).Dir); err != nil {
			t.Fatal(err)
		}
	}
	m.want([]string{madeMember, "agent.account.returned" + noMember}, "add", "logon", "close", "remove")
}

func TestAMemberOfBeforeStaysOne(t *testing.T) {
	for name, standing := range map[string]bool{"as its runner knows": true, "as only the group knows": false} {
		t.Run(name, func(t *testing.T) {
			m := newWindowsMachine(t)
			m.group.members[someSID] = true
			if _, err := m.keeper.Grant(t.Context(), m.grant(standing), supervise.Spec{}); err != nil {
				t.Fatal(err)
			}
			m.restart() // the agent was killed, and its handle with it
			if err := m.keeper.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !m.group.members[someSID] {
				t.Error("the account lost what it had")
			}
			delete(m.group.members, someSID)
			m.want([]string{"agent.account.elevated: was a member of Administratoren before", "agent.account.restored: stays a member of Administratoren"}, "logon")
		})
	}
}

func TestARestartedAgentRemovesTheMember(t *testing.T) {
	m := newWindowsMachine(t)
	if _, err := m.keeper.Grant(t.Context(), m.grant(false), supervise.Spec{}); err != nil {
		t.Fatal(err)
	}
	m.restart()
	silent := errors.New("the account manager does not answer")
	m.group.broken = silent
	if err := m.keeper.Restore(t.Context()); !errors.Is(err, silent) {
		t.Errorf("a member that could not be removed gives %v", err)
	}
	if err := m.keeper.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.want([]string{madeMember, "agent.account.restored" + noMember}, "add", "logon", "remove")
}

func TestAGrantThatFailsLeavesNothingBehind(t *testing.T) {
	t.Run("when the member cannot be added", func(t *testing.T) {
		m := newWindowsMachine(t)
		m.group.broken = errors.New("access is denied")
		_, err := m.keeper.Grant(t.Context(), m.grant(false), supervise.Spec{})
		wantReason(t, err, events.ElevationImpossible, "Administratoren", "access is denied")
		m.want(nil, "remove")
	})
	t.Run("when the account cannot log on", func(t *testing.T) {
		m := newWindowsMachine(t)
		g := m.grant(false)
		refused := errors.New("the password has expired")
		g.Logon = func(context.Context) (uint64, func(), error) { return 0, nil, refused }
		if _, err := m.keeper.Grant(t.Context(), g, supervise.Spec{}); !errors.Is(err, refused) {
			t.Errorf("got %v", err)
		}
		m.want(nil, "add", "remove")
	})
}

func TestLocalSystemHasNothingToBeGiven(t *testing.T) {
	m := newWindowsMachine(t)
	g := m.grant(false)
	g.Account.SID = localSystem
	if _, err := m.keeper.Grant(t.Context(), g, supervise.Spec{}); err != nil {
		t.Fatal(err)
	}
	m.want(nil)
}

func TestAGrantThatMakesNoSenseIsRefused(t *testing.T) {
	m := newWindowsMachine(t)
	for name, change := range map[string]func(*Grant){
		"a job that would be another file": func(g *Grant) { g.Job = "../x" },
		"a job with a dot":                 func(g *Grant) { g.Job = "a.b" },
		"an attempt before the first":      func(g *Grant) { g.Attempt = 0 },
		"a directory somewhere":            func(g *Grant) { g.Dir = "run" },
		"nobody":                           func(g *Grant) { g.Account.Name = "" },
		"a kind that nobody knows":         func(g *Grant) { g.Kind = "network-access" },
		"nobody who logs on":               func(g *Grant) { g.Logon = nil },
	} {
		t.Run(name, func(t *testing.T) {
			g := m.grant(false)
			change(&g)
			if _, err := m.keeper.Grant(t.Context(), g, supervise.Spec{}); err == nil {
				t.Error("it is granted")
			}
		})
	}
	m.want(nil)
}

func fixedClock() time.Time { return time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC) }

func wantReason(t *testing.T, err error, reason events.Reason, words ...string) {
	t.Helper()
	var impossible *execute.Impossible
	if !errors.As(err, &impossible) || impossible.Reason != reason || impossible.Identity == "" {
		t.Errorf("got %v, want %s", err, reason)
		return
	}
	for _, word := range words {
		if !strings.Contains(impossible.Answer, word) {
			t.Errorf("%q does not say %q", impossible.Answer, word)
		}
	}
}
