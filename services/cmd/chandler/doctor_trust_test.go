package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// deployed is a fleet with one live deployment, which the context's own key signed, and the public key of bob.
func deployed(t *testing.T) (f *realFleet, bob string) {
	t.Helper()
	f = newRealFleet(t)
	dir := t.TempDir()
	f.run(t, "trust", "init")
	overwrite(t, filepath.Join(dir, "hello", "package.yaml"), `api: chandler/v1
package: hello
version: "1.0"
files: [hello.sh]
programs:
  install: {command: [sh, hello.sh], run: administrative}
`)
	overwrite(t, filepath.Join(dir, "hello", "hello.sh"), "echo hello\n")
	f.run(t, "package", "publish", filepath.Join(dir, "hello"))
	f.run(t, "collection", "set", "all", "--where", "true")
	f.run(t, "deployment", "create", "hello", "--package", "hello", "--program", "install", "--to", "all", "--yes")
	bob = filepath.Join(dir, "bob.pub")
	overwrite(t, bob, f.run(t, "trust", "key", filepath.Join(dir, "bob.key"), "--new"))
	return f, bob
}

func TestDoctorNamesEveryDeploymentThatAgentsRefuse(t *testing.T) {
	f, bob := deployed(t)
	f.run(t, "trust", "add", "bob", "--key", bob, "--yes")
	found := f.examine(t)
	if got := says(found, "orders", stateOK); len(got) != 1 || !strings.Contains(got[0], "1 live deployment,") || len(says(found, "order", stateProblem)) > 0 {
		t.Fatalf("nothing is wrong, and it says %+v", found)
	}
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := f.app.trustDir(where)
	if err != nil {
		t.Fatal(err)
	}
	trusted := pinned{dir}.file()
	before, err := os.ReadFile(trusted)
	if err != nil {
		t.Fatal(err)
	}
	first, _, err := pinned{dir}.load()
	if err != nil {
		t.Fatal(err)
	}

	f.run(t, "trust", "add", "carol", "--key", freshPublic(t, f), "--deployers-needed", "2", "--yes")
	found = f.examine(t)
	if got := says(found, "order", stateProblem); len(got) != 1 || !strings.Contains(got[0], "refuse deployment hello") || !strings.Contains(got[0], "`chandler deployment resign hello --draft`") {
		t.Errorf("more signatures are needed, and it says %v", got)
	}
	if got := says(found, "orders", stateOK); got != nil {
		t.Errorf("it says that all is well besides: %v", got)
	}

	// Another machine revokes the key: this one has not heard of it.
	f.run(t, "trust", "remove", first.Keys[0].Name, "--yes")
	overwrite(t, trusted, string(before))
	if found := f.app.examineKeys(where); found[len(found)-1].State != stateOK {
		t.Fatalf("the bundle accepted here trusts it: %+v", found)
	}
	found = f.examine(t)
	for about, want := range map[string]string{"signing key": "is revoked", "order": "refuse deployment hello", "package": "refuse hello@1.0 of deployment hello"} {
		if got := says(found, about, stateProblem); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %v, want %q", about, got, want)
		}
	}
}

func freshPublic(t *testing.T, f *realFleet) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "key.pub")
	overwrite(t, file, f.run(t, "trust", "key", filepath.Join(dir, "key"), "--new"))
	return file
}

func TestDoctorTellsNobodyToDoWhatHisRoleMayNot(t *testing.T) {
	f := newRealFleet(t)
	for _, role := range []string{"viewer", "deployer"} {
		f.run(t, "context", "add", role, "--server", f.server.URL, "--credentials", f.user(t, role, "--role", role))
	}
	f.examineAs(t, "viewer", stateSkipped, "signing key", "signs nothing")
	f.examineAs(t, "deployer", stateSkipped, "signing key", "an administrator makes the fleet's keys")
	f.app.context = ""
	f.run(t, "trust", "init")
	f.examineAs(t, "viewer", stateSkipped, "signing key", "signs nothing")
	f.examineAs(t, "deployer", stateWarning, "trust", "trust pin ")
}

// examineAs looks as a role: what is skipped is no warning, and nobody is told to make the fleet's keys.
func (f *realFleet) examineAs(t *testing.T, role, state, about, want string) {
	t.Helper()
	f.app.context = role
	found := f.examine(t)
	if got := says(found, about, state); len(got) != 1 || !strings.Contains(got[0], want) {
		t.Errorf("%s, %s: %v, want %q", role, about, got, want)
	}
	for _, about := range []string{"topology", "readers", "dead letters", "tokens", "revocations"} {
		if len(says(found, about, stateSkipped)) != 1 {
			t.Errorf("%s: %s is not skipped: %+v", role, about, found)
		}
	}
	for _, one := range found {
		if strings.Contains(one.Advice, "trust init") || strings.Contains(one.Says, "`chandler trust init") {
			t.Errorf("%s is told %+v", role, one)
		}
	}
}
