package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chandler/events/enrolment"
)

// recorded is a service manager that notes what it is told.
type recorded struct {
	there bool
	did   []string
}

func (r *recorded) install() (bool, error) {
	changed := !r.there
	r.there = true
	return changed, nil
}
func (r *recorded) uninstall() (bool, error) { return r.there, nil }
func (r *recorded) start() error             { r.did = append(r.did, "start"); return nil }
func (r *recorded) stop() error              { r.did = append(r.did, "stop"); return nil }
func (r *recorded) restart() error           { r.did = append(r.did, "restart"); return nil }

func TestInstallCopiesEnrolsAndStartsAndThenChangesNothing(t *testing.T) {
	f := newFleet(t)
	file, state := configure(t, "")
	conf, err := readConfig(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	self := filepath.Join(dir, "downloaded")
	if err := os.WriteFile(self, []byte("program 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	service := &recorded{}
	i := installation{conf: conf, self: self, program: filepath.Join(dir, "bin", "chandler-agent"), service: service, out: &out,
		token: func() (enrolment.Token, error) { return enrolment.ParseToken(f.token) }}
	if err := i.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(i.program)
	if err != nil || st.Mode().Perm() != 0o755 {
		t.Fatalf("%v, %v", st, err)
	}
	before := keep(t, state)
	out.Reset()
	if err := i.run(t.Context()); err != nil || !strings.Contains(out.String(), "nothing changed") || !same(before, keep(t, state)) {
		t.Errorf("again: %v\n%s", err, out.String())
	}
	if err := os.WriteFile(self, []byte("program 2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := i.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(i.program); err != nil || string(data) != "program 2" {
		t.Errorf("%s, %v", data, err)
	}
	if want := []string{"restart", "start", "restart"}; !slices.Equal(service.did, want) {
		t.Errorf("told the service manager %v, want %v", service.did, want)
	}
	if got := f.verbs(); !slices.Equal(got, []string{"enrol", "return", "return"}) {
		t.Errorf("asked %v", got)
	}
}

func TestNothingIsInstalledThatHasNoIdentity(t *testing.T) {
	file, _ := configure(t, "")
	conf, err := readConfig(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	service := &recorded{}
	i := installation{conf: conf, self: self, program: filepath.Join(t.TempDir(), "chandler-agent"), service: service, out: &bytes.Buffer{},
		token: func() (enrolment.Token, error) { return enrolment.Token{}, errNoToken }}
	if err := i.run(t.Context()); err == nil || service.there || len(service.did) > 0 {
		t.Errorf("%v, %+v", err, service)
	}
}
