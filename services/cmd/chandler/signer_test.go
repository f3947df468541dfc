package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"chandler/events"
	"chandler/events/order"
)

func testOrder(fleet string) order.Order {
	return order.Order{Fleet: fleet, Deployment: "hello", Revision: 1, Package: "hello", Version: "1", Manifest: events.DigestOf(nil), Program: "install",
		Run: events.RunUser, Collection: "all", Expression: "true", Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunNever,
		Issued: testNow, NotAfter: testNow.Add(order.DefaultValidity)}
}

func TestKeysAreMadeOnceAndStayMovedAway(t *testing.T) {
	at := place{t.TempDir()}
	made, err := makeKeys(at.key(), at.trust())
	if err != nil || !made {
		t.Fatalf("first start: made %v, %v", made, err)
	}
	s, err := loadSigner(connection{SigningKey: at.key(), Trust: at.trust()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.sign(testOrder(s.trust.Fleet)); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		for name, want := range map[string]os.FileMode{at.key(): 0o600, filepath.Dir(at.key()): 0o700} {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v; want mode %o", name, info.Mode(), err, want)
			}
		}
	}
	before, _ := os.ReadFile(at.trust())
	if err := os.Remove(at.key()); err != nil {
		t.Fatal(err)
	}
	if made, err := makeKeys(at.key(), at.trust()); err != nil || made {
		t.Fatalf("a start after the key was moved away: made %v, %v", made, err)
	}
	if after, _ := os.ReadFile(at.trust()); string(after) != string(before) {
		t.Fatal("the fleet's trust changed")
	}
}

func TestAKeyThatAgentsDoNotTrustSignsNothing(t *testing.T) {
	one, two := place{t.TempDir()}, place{t.TempDir()}
	for _, at := range []place{one, two} {
		if _, err := makeKeys(at.key(), at.trust()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := loadSigner(connection{SigningKey: one.key(), Trust: two.trust()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.sign(testOrder(s.trust.Fleet)); err == nil || !strings.Contains(err.Error(), "agents would refuse") {
		t.Fatalf("got %v", err)
	}
	found := examineKeys(connection{SigningKey: one.key(), Trust: two.trust()})
	if len(found) != 1 || found[0].State != stateProblem {
		t.Fatalf("doctor says %+v", found)
	}
}

func TestAKeyThatOthersCanReadIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("mode bits say nothing on Windows")
	}
	at := place{t.TempDir()}
	if _, err := makeKeys(at.key(), at.trust()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(at.key(), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := loadSigner(connection{SigningKey: at.key(), Trust: at.trust()}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Fatalf("got %v", err)
	}
}

func TestTwoServersCannotShareADataDirectory(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDirectory(dir); err == nil || !strings.Contains(err.Error(), "another chandler") {
		t.Fatalf("got %v", err)
	}
	unlock()
	again, err := lockDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
