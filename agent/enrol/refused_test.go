package enrol_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chandler/agent/enrol"
	"chandler/events"
)

func TestARefusalOutlivesARestartAndEndsWhenTheFleetTakesTheMachineAgain(t *testing.T) {
	for _, refusal := range []events.EnrolRefusal{events.RefusedRevoked, events.RefusedLapsed, events.RefusedArchived, events.RefusedMachine} {
		t.Run(string(refusal), func(t *testing.T) {
			f := newFleet(t)
			a := f.enrolled(t)
			f.set(func() { f.refuse = &events.EnrolAnswer{Refused: refusal, Why: "because"} })
			f.alter = func(s events.EnrolStatement, answer events.EnrolAnswer) events.EnrolAnswer {
				answer.Nonce = s.Nonce
				return answer
			}
			var refused *enrol.RefusedError
			if err := a.Confirm(t.Context()); !errors.As(err, &refused) || refused.Refused != refusal {
				t.Fatalf("says %v", err)
			}
			again, err := f.open(t, a.dir, 0)
			if err != nil {
				t.Fatal(err)
			}
			if s := again.State(); s.Phase != enrol.Refused || s.Refused != refusal || s.Why != "because" {
				t.Errorf("after a restart: %+v", s)
			}
			f.set(func() { f.refuse = nil })
			again.run() // the broker takes what it has, and then it asks
			eventually(t, "it knows that it was let in", func() bool { return again.State().Phase == enrol.Enrolled })
			if s, err := enrol.Inspect(enrol.Options{Dir: a.dir, Clock: f.clock.now}); err != nil || s.Phase != enrol.Enrolled || s.Why != "" {
				t.Errorf("kept: %+v, %v", s, err)
			}
		})
	}
}

func TestConfirmKeepsTheIdentityThatIsHere(t *testing.T) {
	f := newFleet(t)
	a := f.enrolled(t)
	before, err := os.ReadFile(filepath.Join(a.dir, "agent.jwt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(a.dir, "agent.jwt")); err != nil || string(after) != string(before) || f.count(events.AgentReturn.Verb) != 1 {
		t.Errorf("changed, or not asked: %v", err)
	}
	if err := f.machine(t).Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), "has not enrolled") {
		t.Errorf("before it enrolled: %v", err)
	}
}

func TestAKeyThatDoesNotFitItsIdentityIsRefused(t *testing.T) {
	f := newFleet(t)
	a, other := f.enrolled(t), f.enrolled(t)
	path := filepath.Join(a.dir, "agent.key")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for _, open := range []func() error{
		func() error { _, err := enrol.New(enrol.Options{Dir: a.dir}); return err },
		func() error { _, err := enrol.Inspect(enrol.Options{Dir: a.dir}); return err },
		func() error { _, err := enrol.LoadKey(a.dir); return err },
	} {
		if err := open(); err == nil || !strings.Contains(err.Error(), "agent.key is missing") || !strings.Contains(err.Error(), "enrol --anew") {
			t.Errorf("missing: %v", err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key was made: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(other.dir, "agent.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := enrol.New(enrol.Options{Dir: a.dir}); err == nil || !strings.Contains(err.Error(), "does not fit") || !strings.Contains(err.Error(), "enrol --anew") {
		t.Errorf("of another agent: %v", err)
	}
}

func TestAnAgentWhoseKeyWasReplacedKeepsNothingBesideTheNewOne(t *testing.T) {
	f := newFleet(t)
	a, other := f.enrolled(t), f.enrolled(t)
	if err := enrol.Replace(a.dir, other.dir); err != nil {
		t.Fatal(err)
	}
	if err := a.Return(t.Context()); err == nil || !strings.Contains(err.Error(), "restart the agent") {
		t.Errorf("says %v", err)
	}
	again, err := f.open(t, a.dir, 0)
	if err != nil || again.ID() != other.ID() || !again.Valid() {
		t.Errorf("replaced: %v", err)
	}
}

func TestACAThatIsMissingOrForeignIsToldWithTheNextStep(t *testing.T) {
	ours := newAuthority(t)
	f := newFleet(t, ours.serves(t, "127.0.0.1", ours))
	f.token.CA = ours.hash()
	a := f.enrolled(t)
	path := filepath.Join(a.dir, "ca.pem")
	for says, change := range map[string]func() error{
		"is missing":                      func() error { return os.Remove(path) },
		"is not the CA that the token na": func() error { return os.WriteFile(path, []byte("other"), 0o600) },
	} {
		if err := enrol.CheckCA(a.dir); err != nil {
			t.Fatalf("before: %v", err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if err := enrol.CheckCA(a.dir); !errors.Is(err, enrol.ErrCA) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "--token-file") {
			t.Errorf("%s: %v", says, err)
		}
		if err := a.Confirm(t.Context()); !errors.Is(err, enrol.ErrCA) {
			t.Errorf("%s: asked: %v", says, err)
		}
		if err := a.Enrol(t.Context(), f.token, events.Facts{}); err != nil { // brings it back
			t.Fatal(err)
		}
	}
	if err := enrol.CheckCA(t.TempDir()); err != nil {
		t.Errorf("a machine that has not enrolled: %v", err)
	}
}
