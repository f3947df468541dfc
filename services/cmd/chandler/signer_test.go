package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

func TestWithoutTrustNothingIsSignedAndTheCommandIsGiven(t *testing.T) {
	f := newFakeFleet(t)
	file := filepath.Join(t.TempDir(), "setup.sh")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{createHello, {"package", "publish", file, "--run", "user", "--version", "1"}, {"token", "create"}, {"deployment", "resign", "x"}, {"trust", "show"}} {
		f.set(func() { f.deployment = liveAt(1) })
		if code, _, stderr := command(t, f.app, "", args...); code != 1 || !strings.Contains(stderr, "chandler trust init") {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
	if f.sent() != nil {
		t.Error("something was sent")
	}
}

func TestAServiceThatHandsOutOtherKeysIsFoundOut(t *testing.T) {
	f := helloFleet(t)
	rogue := trustPlan{dir: t.TempDir(), fleet: "example", roots: 1, rootsNeeded: 1, deployersNeeded: 1, name: "admin", now: testNow}
	envelope, _, err := rogue.make()
	if err != nil {
		t.Fatal(err)
	}
	b, err := trust.Open(envelope)
	if err != nil {
		t.Fatal(err)
	}
	b.Version = 7
	signers, err := openRoots([]string{filepath.Join(rogue.dir, "root-1.key")}, &asking{app: f.app}, b, true)
	if err != nil {
		t.Fatal(err)
	}
	if envelope, err = trust.Sign(b, signers...); err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.bundles = append(f.bundles, envelope) })
	for _, args := range [][]string{createHello, {"token", "create"}, {"trust", "show"}} {
		if code, _, stderr := command(t, f.app, "", args...); code != 1 || !strings.Contains(stderr, "does not follow the one accepted here") {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
	if f.sent() != nil {
		t.Error("an order was sent")
	}
	f.set(func() { f.bundles = nil }) // it withholds everything: what was accepted still counts
	if code, _, stderr := command(t, f.app, "", createHello...); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestAKeyThatAgentsDoNotTrustSignsNothing(t *testing.T) {
	f := helloFleet(t)
	stranger := filepath.Join(t.TempDir(), "stranger.key")
	if _, err := writeNewKey(stranger, nil); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, f.app, "", "context", "add", localName, "--signing-key", stranger); code != 0 {
		t.Fatal(stderr)
	}
	if code, _, stderr := command(t, f.app, "", createHello...); code != 1 || !strings.Contains(stderr, "agents would refuse this") || !strings.Contains(stderr, "trust add") {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	if found := f.app.examineKeys(where); found[len(found)-1].State != stateProblem {
		t.Fatalf("doctor says %+v", found)
	}
}

func TestDoctorLooksAtKeys(t *testing.T) {
	f := helloFleet(t)
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	states := func() (all []string) {
		for _, found := range f.app.examineKeys(where) {
			all = append(all, string(found.State)+" "+found.About)
		}
		return all
	}
	if diff := cmp.Diff([]string{"warning root keys", "ok signing key"}, states()); diff != "" {
		t.Error(diff)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(where.SigningKey, 0o640); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := command(t, f.app, "", createHello...); code != 1 || !strings.Contains(stderr, "chmod 600") {
			t.Errorf("exit code %d, %s", code, stderr)
		}
		if diff := cmp.Diff([]string{"warning root keys", "problem signing key"}, states()); diff != "" {
			t.Error(diff)
		}
	}
	for i := range 3 {
		if err := os.Remove(filepath.Join(where.TrustDir, "root-"+string(rune('1'+i))+".key")); err != nil {
			t.Fatal(err)
		}
	}
	where.SigningKey = ""
	if diff := cmp.Diff([]string{"warning signing key"}, states()); diff != "" {
		t.Error(diff)
	}
	where.TrustDir = t.TempDir()
	if diff := cmp.Diff([]string{"warning trust"}, states()); diff != "" {
		t.Error(diff)
	}
}

func TestWhatNoDeployerSignedIsNotSignedAgain(t *testing.T) {
	f := helloFleet(t)
	dir := t.TempDir()
	bob := filepath.Join(dir, "bob.key")
	code, public, stderr := command(t, f.app, "", "trust", "key", bob, "--new")
	if err := os.WriteFile(filepath.Join(dir, "bob.pub"), []byte(public), 0o600); code != 0 || err != nil {
		t.Fatal(code, stderr, err)
	}
	for _, args := range [][]string{{"trust", "add", "bob", "--key", filepath.Join(dir, "bob.pub")}, {"trust", "remove", "bob", "--yes"}} {
		if code, _, stderr := command(t, f.app, "", args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
	}
	revoked, err := (&asking{app: f.app}).open(bob)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := freshKey()
	if err != nil {
		t.Fatal(err)
	}
	scheduling, err := bus.New(bus.Options{Conn: f.bus.Conn(), Source: events.ServiceSource("scheduling")})
	if err != nil {
		t.Fatal(err)
	}
	var hours time.Duration // makes each another order
	for name, c := range map[string]struct {
		signers []sign.Signer
		says    string
	}{
		"nobody's":             {nil, "never signed by a deployer"},
		"a stranger's":         {[]sign.Signer{stranger}, "never signed by a deployer"},
		"a deployer's":         {[]sign.Signer{f.signer(t).key}, "--yes"},
		"a revoked deployer's": {[]sign.Signer{revoked}, "--yes"},
	} {
		t.Run(name, func(t *testing.T) {
			hours += time.Hour
			envelope, err := order.Sign(order.Order{Fleet: "example", Deployment: "hello", Revision: 1, Package: "hello", Version: "2.10-3", Manifest: f.packages[0].Digest, Program: "install",
				Run: events.RunAdministrative, Collection: "office", Expression: "true", Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunNever,
				Issued: testNow, NotAfter: testNow.Add(hours)}, c.signers...)
			if err != nil {
				t.Fatal(err)
			}
			_, digest, err := order.Open(envelope)
			if err != nil {
				t.Fatal(err)
			}
			told := events.DeploymentOrder{Envelope: envelope, DeploymentNotice: events.DeploymentNotice{Deployment: "hello", Revision: 1, Order: digest, Package: "hello", Version: "2.10-3",
				Program: "install", Collection: "office", By: "ada", At: testNow}}
			if _, err := bus.Publish(t.Context(), scheduling, events.DeploymentCreated, events.Event[events.DeploymentOrder]{ID: digest, Subject: "hello", Time: testNow, Data: told}); err != nil {
				t.Fatal(err)
			}
			f.set(func() {
				f.deployment = &events.DeploymentView{DeploymentNotice: told.DeploymentNotice, Life: events.LifeActive}
			})
			if code, _, stderr := command(t, f.app, "", "deployment", "resign", "hello"); code != 1 || !strings.Contains(stderr, c.says) || f.sent() != nil {
				t.Errorf("exit code %d: %s; want %q", code, stderr, c.says)
			}
		})
	}
}
