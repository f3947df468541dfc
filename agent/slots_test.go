package agent

import (
	"testing"
)

func TestInstallersOfOneKindTakeTurns(t *testing.T) {
	s := newSlots(3)
	if ok, _ := s.take("dpkg"); !ok {
		t.Fatal("the first dpkg found no slot")
	}
	ok, changed := s.take("dpkg")
	if ok {
		t.Fatal("two dpkg run at once")
	}
	if ok, _ := s.take("msiexec"); !ok {
		t.Fatal("an independent installer is held up")
	}
	s.leave("dpkg")
	select {
	case <-changed:
	default:
		t.Fatal("whoever waits was not told that a slot is free")
	}
	if ok, _ := s.take("dpkg"); !ok {
		t.Fatal("the second dpkg found no slot after the first had left")
	}
}

func TestAnAccountIsGivenRightsForOneProgramAtATime(t *testing.T) {
	s := newSlots(4)
	if ok, _ := s.take("dpkg", "account:token"); !ok {
		t.Fatal("the first found no slot")
	}
	if ok, _ := s.take("msiexec", "account:token"); ok {
		t.Fatal("two programs run by one account at once")
	}
	if ok, _ := s.take("msiexec", "account:corp"); !ok {
		t.Fatal("another account is held up")
	}
	s.leave("dpkg", "account:token")
	if ok, _ := s.take("account:token"); !ok {
		t.Fatal("the account is not free after its program has ended")
	}
}

func TestNoMoreProgramsRunThanThereAreSlots(t *testing.T) {
	s := newSlots(1)
	s.occupy() // one that an earlier process of the agent had started
	if ok, _ := s.take(); ok {
		t.Fatal("a second program runs")
	}
	idle, changed := s.idle()
	if idle {
		t.Fatal("nothing runs, it is said")
	}
	s.leave()
	<-changed
	if idle, _ := s.idle(); !idle {
		t.Fatal("something runs, it is said")
	}
	s.block("one")
	s.block("two")
	s.unblock("two")
	if ok, _ := s.take(); ok {
		t.Fatal("a program starts though a restart is under way")
	}
	s.unblock("one")
	if ok, _ := s.take(); !ok {
		t.Fatal("no program starts though no restart is under way any more")
	}
}

func TestWhyThereIsNoSlotIsSaid(t *testing.T) {
	s := newSlots(2)
	s.occupy("dpkg", "account:token-account:")
	for _, c := range []struct {
		group, want string
	}{{"msiexec", ""}, {"dpkg", "another program that calls dpkg runs here"}, {"account:token-account:", "another program runs here by the same account"}} {
		if got := s.why(c.group); got != c.want {
			t.Errorf("%s: %q, want %q", c.group, got, c.want)
		}
	}
	s.occupy()
	if got, want := s.why("msiexec"), "other programs run here, 2 at once are the most"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	_, changed := s.blocked()
	s.block("job")
	s.leave()
	<-changed
	if blocked, _ := s.blocked(); !blocked || s.why("msiexec") != restartsSoon {
		t.Errorf("before a restart: %q", s.why("msiexec"))
	}
}
