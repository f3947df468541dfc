package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

func TestAnAccountIsSetWithItsScope(t *testing.T) {
	f := newFakeFleet(t)
	file := filepath.Join(t.TempDir(), "reader.secret")
	if err := os.WriteFile(file, []byte("hunter2\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := must(t, f, "", "account", "set", "corp-reader", "--kind", "network-access", "--user", `EXAMPLE\reader`, "--resource", `\\FILES.example\software\*`, "--resource", "smb://files.example/apps/*",
		"--collection", "servers,kiosks", "--domain", "EXAMPLE", "--keep-old", "1d", "--secret-file", file)
	if !strings.Contains(stdout, "account corp-reader is made: version 1") || strings.Contains(stdout+stderr, "hunter2") {
		t.Errorf("%s%s", stdout, stderr)
	}
	must(t, f, "token-1\n", "account", "set", "lab-web", "--kind", "network-access", "--user", "lab", "--method", "bearer", "--resource", "https://www.example/lab", "--secret-file", "-")
	want := []events.AccountRequest{
		{Account: "corp-reader", Kind: events.NetworkAccess, User: `EXAMPLE\reader`, Resources: []string{"smb://files.example/software", "smb://files.example/apps"}, Collections: []string{"servers", "kiosks"},
			Domain: "EXAMPLE", Secret: []byte("hunter2"), KeepOld: events.Duration(24 * time.Hour)},
		{Account: "lab-web", Kind: events.NetworkAccess, User: "lab", Method: events.ByBearer, Resources: []string{"https://www.example/lab"}, Secret: []byte("token-1")},
	}
	f.set(func() {
		if diff := cmp.Diff(want, f.accountsSet); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAWrongAccountIsRefusedBeforeItsSecretIsAskedFor(t *testing.T) {
	f := newFakeFleet(t)
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"a kind that is none":                       {[]string{"--kind", "root"}, "software-installation"},
		"a method that is none":                     {[]string{"--method", "kerberos", "--resource", "smb://files/x"}, "client-certificate"},
		"a token on a share":                        {[]string{"--method", "bearer", "--resource", "smb://files/x/*"}, `--method bearer: it is for https:// resources, and \\files\x is none`},
		"a resource that names a password":          {[]string{"--resource", "smb://u:hunter2@files/x"}, "must not name a user or password"},
		"a resource that is none":                   {[]string{"--resource", "http://files/x"}, "--resource"},
		"a star within a resource":                  {[]string{"--resource", "smb://files/*/x"}, "one *"},
		"a network access account without resource": {nil, "--resource is missing"},
		"a collection that cannot be":               {[]string{"--resource", "smb://files/x", "--collection", "a.b"}, "--collection"},
		"a span that is none":                       {[]string{"--resource", "smb://files/x", "--keep-old", "soon"}, "--keep-old"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := command(t, f.app, "secret", append([]string{"account", "set", "a", "--user", "u", "--kind", "network-access"}, c.args...)...)
			if code != 1 || !strings.Contains(stderr, c.says) || strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
		})
	}
	f.set(func() {
		if f.accountsSet != nil {
			t.Errorf("set: %d", len(f.accountsSet))
		}
	})
}

func TestASecretIsNeverAnArgument(t *testing.T) {
	f := newFakeFleet(t)
	for _, args := range [][]string{
		{"account", "rotate", "corp-reader", "--secret", "hunter2"}, {"account", "rotate", "corp-reader", "hunter2"}, {"account", "set", "a", "hunter2", "--kind", "network-access", "--user", "u"},
	} {
		if code, _, stderr := command(t, f.app, "other", args...); code != 1 {
			t.Errorf("%q: exit code %d: %s", args, code, stderr)
		}
	}
	f.set(func() {
		if len(f.rotations)+len(f.accountsSet) > 0 {
			t.Error("one was taken")
		}
	})
}

func TestAnAccountsSecretIsRotatedAlone(t *testing.T) {
	f := newFakeFleet(t)
	stdout, _ := must(t, f, "next\n", "account", "rotate", "corp-reader", "--keep-old", "24h")
	if want := "account corp-reader has its next secret, version 2; those who were lent the former secret go on with it until 2026-12-02"; !strings.Contains(stdout, want) {
		t.Errorf("got %s", stdout)
	}
	if stdout, _ = must(t, f, "after\n", "account", "rotate", "corp-reader", "-o", "name"); stdout != "corp-reader\n" {
		t.Errorf("got %s", stdout)
	}
	if code, _, stderr := command(t, f.app, "", "account", "rotate", "corp-reader"); code != 1 || !strings.Contains(stderr, "empty") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	want := []events.AccountRotation{{Account: "corp-reader", Secret: []byte("next"), KeepOld: events.Duration(24 * time.Hour)}, {Account: "corp-reader", Secret: []byte("after")}}
	f.set(func() {
		if diff := cmp.Diff(want, f.rotations); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAccountsAreListedWithTheirScope(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() {
		f.accounts = []events.AccountView{
			{AccountNotice: events.AccountNotice{Account: "corp-reader", Kind: events.NetworkAccess, User: `EXAMPLE\reader`, Resources: []string{"smb://files.example/software"}, Collections: []string{"servers", "kiosks"},
				Domain: "EXAMPLE", Version: 3, KeepUntil: new(testNow.Add(time.Hour))}},
			{AccountNotice: events.AccountNotice{Account: "lab-web", Kind: events.NetworkAccess, Method: events.ByBearer, Version: 1}, Suspended: "version 1 of account lab-web was rejected by 3 machines"},
		}
	})
	stdout, stderr := must(t, f, "", "account", "ls", "-o", "wide")
	for _, says := range []string{"METHOD", "COLLECTIONS", "DOMAIN", "FORMER SECRET UNTIL", "ok", "password", "bearer", "servers, kiosks", "EXAMPLE", "suspended", "2026-12-01 10:00:00 CET"} {
		if !strings.Contains(stdout, says) {
			t.Errorf("it does not say %q:\n%s", says, stdout)
		}
	}
	if !strings.Contains(stderr, "WARNING: version 1 of account lab-web was rejected by 3 machines") {
		t.Errorf("got %s", stderr)
	}
	if stdout, _ = must(t, f, "", "account", "ls"); strings.Contains(stdout, "METHOD") {
		t.Errorf("the table has what is for the wide one:\n%s", stdout)
	}
}

func TestAnAccountIsTriedByAnAgent(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() { f.agents = []events.AgentView{agentNamed(testAgent, "ws-1", "oslo")} })
	test := []string{"account", "test", "corp-reader", "--resource", `\\FILES.example\apps`, "--agent", "ws-1"}
	asked := events.AccountTestRequest{Account: "corp-reader", Resource: "smb://files.example/apps", Agent: testAgent}
	for _, c := range []struct {
		name   string
		answer events.Access
		code   int
		says   []string
		not    string
	}{
		{"it is read", events.Access{Identity: "network-access-account", User: `EXAMPLE\reader`}, 0,
			[]string{`ws-1 (agent0001): the network access account corp-reader (EXAMPLE\reader) read \\files.example\apps`}, "advice"},
		{"it is denied", events.Access{Identity: "network-access-account", User: `EXAMPLE\reader`, Reason: events.NetworkAccessDenied, Answer: "access denied (5/0x80070005)"}, 1,
			[]string{`may not read \\files.example\apps: access denied (5/0x80070005)`, "advice: grant it read\n"}, ""},
		{"the secret is wrong", events.Access{Reason: events.CredentialRejected, Answer: "wrong password (1326/0x8007052E)"}, 1, []string{"advice: the secret or the user's name is wrong"}, ""},
		{"the user is disabled", events.Access{Reason: events.CredentialRejected, Answer: "disabled (1331/0x80070533)"}, 1, []string{"advice: the user is disabled"}, ""},
		{"an agent lies about what was asked, and steers the terminal", events.Access{Account: "other", Resource: "smb://elsewhere/x", User: "x\x1b[2J\nws-2: fine", Answer: "\u202e", Reason: events.NetworkAccessDenied}, 1,
			[]string{`corp-reader`, `\\files.example\apps`, "ws-2: fine"}, "\nws-2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.set(func() { f.answer, f.tests = c.answer, nil })
			code, stdout, stderr := command(t, f.app, "", test...)
			if code != c.code {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			for _, says := range c.says {
				if !strings.Contains(stdout, says) {
					t.Errorf("it does not say %q:\n%s", says, stdout)
				}
			}
			if c.not != "" && strings.Contains(stdout, c.not) || strings.ContainsAny(stdout, "\x1b\u202e") || strings.Contains(stdout, "elsewhere") {
				t.Errorf("got %q", stdout)
			}
			f.set(func() {
				if diff := cmp.Diff([]events.AccountTestRequest{asked}, f.tests); diff != "" {
					t.Error(diff)
				}
			})
			if code, stdout, _ := command(t, f.app, "", append(test, "-o", "json")...); code != c.code || !strings.Contains(stdout, `"resource": "smb://files.example/apps"`) {
				t.Errorf("as JSON exit code %d: %s", code, stdout)
			}
		})
	}
	f.set(func() { f.tests = nil })
	for _, args := range [][]string{{"--resource", "smb://files.example/apps", "--agent", "nobody"}, {"--resource", "http://x/y", "--agent", "ws-1"}, {"--agent", "ws-1"}, {"--resource", "smb://files.example/apps"}} {
		if code, _, stderr := command(t, f.app, "", append([]string{"account", "test", "corp-reader"}, args...)...); code != 1 {
			t.Errorf("%q: exit code %d: %s", args, code, stderr)
		}
	}
	f.set(func() {
		if f.tests != nil {
			t.Errorf("tried: %v", f.tests)
		}
	})
}
