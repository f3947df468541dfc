package agent

import (
	"strings"
	"testing"

	"chandler/events"
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

func TestOffersThatDoNotFitThisAgentAreRefused(t *testing.T) {
	good := events.JobOffer{Format: 1, Agent: "agent0001", Job: events.JobID("d", 1, "agent0001", 0, ""), Deployment: "d", Revision: 1, Order: events.DigestOf(nil), Attempt: 1}
	if err := checkOffer(good, "agent0001"); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*events.JobOffer){
		"a newer format":            func(o *events.JobOffer) { o.Format = 2 },
		"attempt zero":              func(o *events.JobOffer) { o.Attempt = 0 },
		"a digest that is none":     func(o *events.JobOffer) { o.Order = "../../etc/passwd" },
		"another agent's job":       func(o *events.JobOffer) { o.Job = events.JobID("d", 1, "agent0002", 0, "") },
		"a job of another revision": func(o *events.JobOffer) { o.Revision = 2 },
		"a job that is a path":      func(o *events.JobOffer) { o.Job = "../x" },
		"a user of many bytes":      func(o *events.JobOffer) { forUser(o, strings.Repeat("x", maxUser+1)) },
		"a user of two lines":       func(o *events.JobOffer) { forUser(o, "alice\nbob") },
		"a user in no encoding":     func(o *events.JobOffer) { forUser(o, "\xff") },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			if checkOffer(o, "agent0001") == nil {
				t.Fatal("it was taken")
			}
		})
	}
}

// forUser makes it an offer of that user's own job.
func forUser(o *events.JobOffer, user string) {
	o.User, o.Job = user, events.JobID(o.Deployment, o.Revision, o.Agent, o.Occurrence, user)
}
