package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chandler/agent/source/sambatest"
	"chandler/events"
)

func TestPackageIsReadFromAShareAsItsPublisher(t *testing.T) {
	share := sambatest.New(t, sambatest.Options{Shares: []sambatest.Share{{Name: "software", Files: map[string][]byte{
		"hello/setup.sh": []byte("echo"), "hello/data/My notes.txt": []byte("some"), "tools/run.sh": []byte("tool")}}}})
	share.User("ada", "hunter2 is it")
	f := helloFleet(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	spec := "api: chandler/v1\npackage: outer\nversion: \"1\"\nsource: " + share.Address("software", "hello") +
		"\nprograms:\n  install: {command: [sh, setup.sh], run: administrative}\n  tool: {command: ['" + share.Address("software", "tools/run.sh") + "', -x], run: user}\n"
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "package.yaml"), spec)
	publish := func(typed string) (int, string, string) {
		write(secret, typed+"\n")
		return command(t, f.app, "", "package", "publish", dir, "--dry-run", "--source-user", "ada", "--source-secret-file", secret)
	}
	code, stdout, stderr := publish("hunter2 is it")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, says := range []string{"setup.sh", "data/My notes.txt", events.DigestOf([]byte("echo")), events.DigestOf([]byte("tool")), "run.sh -x"} {
		if !strings.Contains(stdout, says) {
			t.Errorf("it does not say %q: %s", says, stdout)
		}
	}
	for _, path := range []string{"hello/setup.sh", "tools/run.sh"} {
		if by := share.Readers("software", path); len(by) == 0 || slices.ContainsFunc(by, func(user string) bool { return user != "ada" }) {
			t.Errorf("%s was opened by %q", path, by)
		}
	}
	before := share.BadPasswords("ada")
	code, _, stderr = publish("hunter3")
	if code == 0 || !strings.Contains(stderr, "as ada: credential_rejected: ") || !strings.Contains(stderr, "(1326/0x8007052E)") || strings.Contains(stderr, "hunter") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if tried := share.BadPasswords("ada") - before; tried != 1 {
		t.Errorf("a wrong secret was tried %d times", tried)
	}
}
