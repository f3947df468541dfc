package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

// packageDir is a package whose programs are written in YAML, one a line.
func packageDir(t *testing.T, programs string) string {
	t.Helper()
	dir := t.TempDir()
	spec := "api: chandler/v1\npackage: hello\nversion: \"1\"\nprograms:\n" + programs
	if err := os.WriteFile(filepath.Join(dir, "package.yaml"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAnInstallationAccountOfAnotherKindIsRefusedAtPublish(t *testing.T) {
	account := func(kind events.AccountKind) []events.AccountView {
		return []events.AccountView{{AccountNotice: events.AccountNotice{Account: "corp", Kind: kind}}, {AccountNotice: events.AccountNotice{Account: "corp-other", Kind: events.NetworkAccess}}}
	}
	for name, c := range map[string]struct {
		accounts []events.AccountView
		refused  bool
		says     string
		not      string
	}{
		"a software installation account":         {account(events.SoftwareInstallation), false, "", "corp"},
		"a network access account":                {account(events.NetworkAccess), true, "account corp is of kind network-access, which must not run programs (install, remove)", ""},
		"the domain's client token account":       {account(events.ClientTokenDomain), true, "account corp is of kind client-token-domain", ""},
		"an account that the fleet has not (yet)": {nil, false, "account set corp --kind software-installation --user USER`", "must not run"},
	} {
		for _, run := range []string{"--dry-run", ""} {
			t.Run(name+run, func(t *testing.T) {
				f := helloFleet(t)
				f.set(func() { f.accounts = c.accounts })
				dir := packageDir(t, "  install: {command: [a], run: administrative, installation-account: corp}\n  remove: {command: [b], run: administrative, installation-account: corp}\n")
				args := []string{"package", "publish", dir}
				if run != "" {
					args = append(args, run)
				}
				code, _, stderr := command(t, f.app, "", args...)
				// This fleet takes no uploads, so that publishing itself fails, with other words.
				if refused := strings.Contains(stderr, "must not run programs"); refused != c.refused || !strings.Contains(stderr, c.says) || c.not != "" && strings.Contains(stderr, c.not) {
					t.Errorf("%s", stderr)
				}
				if run != "" && (code == 0) == c.refused {
					t.Errorf("exit code %d: %s", code, stderr)
				}
			})
		}
	}
}

func TestADryRunShowsWhatWouldBePublished(t *testing.T) {
	f := helloFleet(t)
	dir := packageDir(t, "  install: {command: [setup], run: administrative, logon: none, after: restart}\n  fonts: {command: [fonts], run: user, every-user: true}\n")
	code, stdout, stderr := command(t, f.app, "", "package", "publish", dir, "--dry-run")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, says := range []string{"run administrative; only when nobody is logged on; the machine is restarted afterwards: setup", "run user; once for every user who logs on: fonts"} {
		if !strings.Contains(stdout, says) {
			t.Errorf("it does not say %q: %s", says, stdout)
		}
	}
	if strings.Contains(stderr, "refuse") {
		t.Errorf("it warns: %s", stderr)
	}
}

func TestTheContextOfAProgramInWords(t *testing.T) {
	for name, c := range map[string]struct {
		program events.Program
		want    []string
	}{
		"nothing said":                 {events.Program{Run: events.RunAdministrative, Logon: events.LogonAny, After: events.AfterNone}, nil},
		"a user's":                     {events.Program{Run: events.RunUser, Logon: events.LogonUser}, nil},
		"an administrator's with user": {events.Program{Run: events.RunAdministrative, Logon: events.LogonUser, Interactive: true}, []string{"only when a user is logged on", "shown to the user"}},
		"every user's":                 {events.Program{Run: events.RunAdministrative, Logon: events.LogonUser, EveryUser: true}, []string{"once for every user who logs on"}},
		"an account's": {events.Program{Run: events.RunAdministrative, Logon: events.LogonNone, InstallationAccount: "corp", After: events.AfterLogoff},
			[]string{"only when nobody is logged on", "on legacy clients by installation account corp", "users are logged off afterwards"}},
		"an .msi's": {events.Program{Run: events.RunAdministrative, MSIScope: events.MSIScopeMachine, Product: "{X}", After: events.AfterProgramRestarts},
			[]string{"restarts the machine itself", "for the whole machine", "product {X}"}},
		"an .msi's as it was made": {events.Program{Run: events.RunUser, MSIScope: events.MSIScopeAsAuthored}, []string{"for whom its .msi was made"}},
	} {
		if diff := cmp.Diff(c.want, conditions(c.program)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestWhatAPackageNeedsIsShownAndCheckedBeforeItIsSigned(t *testing.T) {
	f := helloFleet(t)
	dir := packageDir(t, `  install:
    command: [setup]
    run: administrative
    interactive: true
    window: hidden
    run-first: [prepare]
    disk-space: 2GiB
    platforms: [{os: linux, name: debian, min-version: "12"}, {os: windows, arch: amd64, min-version: "10", max-version: "11"}, {os: darwin, max-version: "15"}]
  prepare: {command: [prepare], run: administrative}
  again: {command: [again], run: administrative, run-first: [prepare], always-run-first: true}
  repair: {command: [repair], run: administrative, repairs: install}
  remove: {command: [remove], run: administrative, undoes: install}
category: Office
supersedes: [{package: hello, version: < 1}, {package: greet}]
`)
	code, stdout, stderr := command(t, f.app, "", "package", "publish", dir, "--dry-run")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, says := range []string{"Office", "hello < 1", "greet", "window hidden; after prepare where that did not succeed yet; 2GiB must be free; on debian 12 or newer or windows 10 to 11 amd64 or darwin up to 15: setup",
		"after prepare each time: again", "repairs install: repair", "undoes install: remove"} {
		if !strings.Contains(stdout, says) {
			t.Errorf("it does not say %q: %s", says, stdout)
		}
	}
	lacking := packageDir(t, "  install: {command: [a], run: administrative}\nsupersedes: [{package: nothing, uninstall: nothing@1/remove}]\n")
	for _, args := range [][]string{{"package", "publish", lacking}, {"package", "publish", lacking, "--dry-run"}} {
		if code, _, stderr := command(t, f.app, "", args...); code == 0 || !strings.Contains(stderr, "hello@1/install → nothing@1 (not published)") {
			t.Errorf("%s: exit code %d: %s", args, code, stderr)
		}
	}
}
