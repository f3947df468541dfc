package enrol_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/trust"
)

const (
	enrolVerb  = "enrol"
	returnVerb = "return"
	renewVerb  = "renew"
	trustVerb  = "trust"
)

// kick drops every connection, as a broker that restarts does.
func (f *fleet) kick() { f.broker.Restart() }

func TestAnIdentityIsRenewedAndShownToTheBroker(t *testing.T) {
	f := newFleet(t)
	a := f.enrolled(t)
	a.run()
	eventually(t, "the agent is connected", a.conn.IsConnected)
	first, _ := f.shown()
	f.clock.advance(11 * time.Hour)
	a.Wake()
	f.clock.advance(2 * time.Hour) // beyond half of its life, which is the earliest, and what is drawn here
	f.set(func() { f.conferred = events.Conferred{Site: "bergen"} })
	a.Wake()
	eventually(t, "the agent connected with a new identity", func() bool { text, n := f.shown(); return n == 2 && text != first && a.conn.IsConnected() })
	if f.count(renewVerb) != 1 || f.count(returnVerb) != 0 {
		t.Errorf("renewed %d times, returned %d times", f.count(renewVerb), f.count(returnVerb))
	}
	if s := a.State(); !s.Expires.Equal(f.clock.now().Add(life)) || s.Conferred.Site != "bergen" {
		t.Errorf("state %+v", s)
	}
	closed(t, a.dir)
	again, err := f.open(t, a.dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.State(), again.State()); diff != "" {
		t.Error(diff)
	}
}

func TestAnExpiredIdentityReturnsByProofOfItsKey(t *testing.T) {
	f := newFleet(t)
	dir := f.enrolled(t).dir
	f.clock.advance(60 * 24 * time.Hour)
	f.publish(bundle(2, "a"), "a")
	a, err := f.open(t, dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if s := a.State(); s.Phase != enrol.Expired || a.Valid() {
		t.Errorf("state %+v", s)
	}
	a.run()
	eventually(t, "the agent is connected", a.conn.IsConnected)
	if f.count(returnVerb) != 1 || f.count(enrolVerb) != 1 || a.Trust().Version != 2 || a.State().Phase != enrol.Enrolled {
		t.Errorf("returned %d times: %+v", f.count(returnVerb), a.State())
	}
}

func TestABrokerThatDoesNotTakeTheIdentityGetsANewOne(t *testing.T) {
	for name, c := range map[string]struct {
		shift time.Duration
		while func(f *fleet, a *agent) // connected
	}{
		"the clock of the machine is a year behind": {-365 * 24 * time.Hour, func(f *fleet, _ *agent) { f.clock.advance(life); f.kick() }},
		"the clock of the machine is a year ahead":  {365 * 24 * time.Hour, func(f *fleet, _ *agent) { f.clock.advance(life); f.kick() }},
		"the identity is one that it has forgotten": {0, func(f *fleet, _ *agent) {
			text, _ := f.shown()
			f.set(func() { f.distrust[text] = true })
			f.kick()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			f.clock.at = time.Now()
			a, err := f.open(t, t.TempDir(), c.shift)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Enrol(t.Context(), f.token, events.Facts{}); err != nil {
				t.Fatal(err)
			}
			if !a.Valid() {
				t.Errorf("what was just received counts as expired: %+v", a.State())
			}
			a.run()
			eventually(t, "the agent is connected", a.conn.IsConnected)
			first, _ := f.shown()
			c.while(f, a)
			eventually(t, "the agent connected with a new identity", func() bool { text, _ := f.shown(); return text != first && a.conn.IsConnected() })
			if f.count(enrolVerb) != 1 {
				t.Errorf("enrolled %d times", f.count(enrolVerb))
			}
		})
	}
}

func TestAnIdentityThatTheBrokerNeverTookIsReplaced(t *testing.T) {
	f := newFleet(t)
	a := f.enrolled(t)
	text, err := os.ReadFile(filepath.Join(a.dir, "agent.jwt"))
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.distrust[string(text)] = true })
	a.run()
	eventually(t, "the agent is connected", a.conn.IsConnected)
	if n := f.count(returnVerb); n != 1 {
		t.Errorf("returned %d times", n)
	}
}

func TestAMachineThatWaitsForApprovalIsLetInWithoutItsToken(t *testing.T) {
	f := newFleet(t)
	f.refuse = &events.EnrolAnswer{Refused: events.RefusedPending, Why: "ada looks at it"}
	a := f.machine(t)
	if err := a.Enrol(t.Context(), f.token, events.Facts{}); err == nil {
		t.Fatal("enrolled")
	}
	if s := a.State(); s.Phase != enrol.Pending || s.Why != "ada looks at it" || !a.Enrolled() || a.Valid() {
		t.Fatalf("state %+v", s)
	}
	closed(t, a.dir)
	again, err := f.open(t, a.dir, 0) // it restarts meanwhile
	if err != nil {
		t.Fatal(err)
	}
	if s := again.State(); s.Phase != enrol.Pending {
		t.Fatalf("state %+v", s)
	}
	changed := make(chan struct{}, 16)
	again.OnChange(func() { changed <- struct{}{} })
	again.run()
	eventually(t, "it asks whether it was approved", func() bool { return f.count(returnVerb) > 0 })
	f.set(func() { f.refuse = nil })
	eventually(t, "it is connected", again.conn.IsConnected)
	if s := again.State(); s.Phase != enrol.Enrolled || s.Trust != 1 {
		t.Errorf("state %+v", s)
	}
	if len(changed) == 0 {
		t.Error("nobody was told")
	}
}

func TestARevokedAgentSaysSoAndHardlyAsks(t *testing.T) {
	f := newFleet(t)
	a := f.enrolled(t)
	a.run()
	eventually(t, "the agent is connected", a.conn.IsConnected)
	text, _ := f.shown()
	f.set(func() {
		f.distrust[text] = true
		f.refuse = &events.EnrolAnswer{Refused: events.RefusedRevoked, Why: "stolen"}
	})
	f.kick()
	eventually(t, "it knows", func() bool { s := a.State(); return s.Phase == enrol.Refused && s.Refused == events.RefusedRevoked })
	eventually(t, "it goes on trying to connect", func() bool { return a.log.has("again_at") })
	for range 50 { // as often as it is made to look
		a.Wake()
	}
	if n := f.count(returnVerb); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if a.Trust().Version != 1 {
		t.Error("it lost its trust bundle")
	}
}

func TestTrustIsFollowedWhenItIsAnnounced(t *testing.T) {
	f := newFleet(t)
	a := f.enrolled(t)
	f.hold = true // so that it has to ask for more
	a.run()
	eventually(t, "the agent is connected and has asked", func() bool { return f.count(trustVerb) == 1 })
	f.publish(bundle(2, "a"), "a")
	f.publish(bundle(3, "b"), "a", "b") // new roots, admitted by the old
	f.publish(bundle(4, "b"), "b")
	f.publish(bundle(5, "b"), "b")
	f.announce(5)
	eventually(t, "the bundle is followed", func() bool { return a.Trust().Version == 5 })

	again, err := f.open(t, a.dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.Trust(), again.Trust()); diff != "" {
		t.Errorf("loaded again (-want +got):\n%s", diff)
	}
	data, err := os.ReadFile(filepath.Join(a.dir, "trust.json"))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte(`","`)) + 1; n != 3 {
		t.Errorf("%d bundles are kept, want the last of the old roots, the first of the new, and the present", n)
	}
	closed(t, a.dir)
}

func TestABundleThatTheRootsDidNotSignIsKeptOut(t *testing.T) {
	for name, c := range map[string]struct {
		bundle trust.Bundle
		by     []string
		reason string
	}{
		"signed by others":              {bundle(2, "a"), []string{"rogue"}, string(events.OrderUnknownKey)},
		"new roots sign for themselves": {bundle(2, "rogue"), []string{"rogue"}, "present roots"},
		"of another fleet":              {func() trust.Bundle { b := bundle(2, "a"); b.Fleet = "other"; return b }(), []string{"a"}, "fleet other"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			a := f.enrolled(t)
			f.publish(c.bundle, c.by...)
			a.run()
			eventually(t, "the bundle is refused", func() bool { return a.log.has("trust bundle refused") && f.count(trustVerb) == 1 })
			if !a.log.has("version 2") || !a.log.has(c.reason) {
				a.log.mu.Lock()
				t.Errorf("the log does not say why:\n%s", a.log.text.String())
				a.log.mu.Unlock()
			}
			f.clock.advance(13 * time.Hour) // a renewal brings it too, and takes place all the same
			a.Wake()
			eventually(t, "the identity is renewed", func() bool { _, n := f.shown(); return n == 2 && a.conn.IsConnected() })
			if a.Trust().Version != 1 {
				t.Errorf("followed to %d", a.Trust().Version)
			}
			if _, err := f.open(t, a.dir, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnAnnouncementThatCannotBeReadIsRefused(t *testing.T) {
	f := newFleet(t)
	a := f.enrolled(t)
	a.run()
	eventually(t, "the agent is connected and has asked", func() bool { return f.count(trustVerb) == 1 })
	if err := f.service.Conn().Publish(events.TrustAnnounced.Pattern, []byte("no event")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is refused", func() bool { return a.log.has("message refused") })
	if n := f.count(trustVerb); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestADamagedIdentityIsAskedForAnew(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"half a JWT": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "agent.jwt"), []byte("half of i"), 0o600)
		},
		"no JWT":     func(dir string) error { return os.Remove(filepath.Join(dir, "agent.jwt")) },
		"no bundles": func(dir string) error { return os.Remove(filepath.Join(dir, "trust.json")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			dir := f.enrolled(t).dir
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			a, err := f.open(t, dir, 0)
			if err != nil {
				t.Fatal(err)
			}
			a.run()
			eventually(t, "the agent is connected", a.conn.IsConnected)
			if n := f.count(returnVerb); n != 1 || a.Trust().Version != 1 {
				t.Errorf("returned %d times, trust version %d", n, a.Trust().Version)
			}
		})
	}
}
