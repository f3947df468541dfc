package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// command runs one command line as a process would, with stdin and without a terminal.
func command(t *testing.T, a *app, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = a.run(context.Background(), streams{strings.NewReader(stdin), &out, &err}, args)
	return code, out.String(), err.String()
}

func TestAContextIsKeptSelectedAndForgotten(t *testing.T) {
	home := t.TempDir()
	a := testApp(map[string]string{"XDG_CONFIG_HOME": home})
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, a, "", args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		return stdout
	}
	must("context", "add", "oslo", "--server", "nats://oslo.example:4222", "--caller", "kari")
	t.Chdir(t.TempDir())
	if err := os.WriteFile("order.key", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	must("context", "add", "bergen", "--server", "nats://bergen.example:4222", "--signing-key", "order.key")
	if got := must("context", "ls"); !strings.Contains(got, "*  oslo") || strings.Contains(got, "*  bergen") {
		t.Fatalf("the first context should stay selected:\n%s", got)
	}
	must("context", "use", "bergen")
	if got := must("context", "show", "-o", "name"); got != "bergen\n" {
		t.Fatalf("got %q", got)
	}
	bergen, err := a.current()
	if err != nil || !filepath.IsAbs(bergen.SigningKey) {
		t.Fatalf("the key's place should not depend on the directory: %+v, %v", bergen, err)
	}
	if runtime.GOOS != "windows" {
		info, err := os.Stat(filepath.Join(home, "chandler", "context", "bergen.json"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("got %v, %v", info, err)
		}
	}
	if got := must("context", "use", "oslo", "-o", "json"); !strings.Contains(got, `"selected": true`) {
		t.Fatalf("got %q", got)
	}
	if got := must("context", "add", "oslo", "--server", "tls://oslo.example:4222"); !strings.Contains(got, "context oslo is changed") {
		t.Fatalf("got %q", got)
	}
	must("context", "use", "bergen")
	must("context", "rm", "bergen")
	if got, err := a.current(); err != nil || got.Server != defaultServer {
		t.Fatalf("after the selected one is forgotten: %+v, %v", got, err)
	}
}

func TestTheFlagBeatsTheEnvironmentBeatsTheSelection(t *testing.T) {
	env := map[string]string{"XDG_CONFIG_HOME": t.TempDir()}
	a := testApp(env)
	store, _ := a.contexts()
	for _, name := range []string{"selected", "fromenv", "fromflag"} {
		if err := store.save(connection{Name: name, Server: defaultServer, Caller: defaultCaller}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.choose("selected"); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		if got, err := a.current(); err != nil || got.Name != want {
			t.Fatalf("got %s, %v; want %s", got.Name, err, want)
		}
	}
	expect("selected")
	env["CHANDLER_CONTEXT"] = "fromenv"
	expect("fromenv")
	a.context = "fromflag"
	expect("fromflag")
}

func TestContextsThatCouldNotWorkAreRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"a caller with a dot":       {"add", "x", "--server", "nats://a:4222", "--caller", "a.b"},
		"a caller that matches":     {"add", "x", "--server", "nats://a:4222", "--caller", "*"},
		"a name with a slash":       {"add", "../x", "--server", "nats://a:4222"},
		"a server without a host":   {"add", "x", "--server", "4222"},
		"a secret in the address":   {"add", "x", "--server", "nats://me:secret@a:4222"},
		"a secret in a bad address": {"add", "x", "--server", "me:secret@a"},
		"another kind of server":    {"add", "x", "--server", "http://a:4222"},
		"a key that is not there":   {"add", "x", "--server", "nats://a:4222", "--signing-key", "absent.key"},
		"a key that is no file":     {"add", "x", "--server", "nats://a:4222", "--signing-key", "."},
		"a directory that is none":  {"add", "x", "--server", "nats://a:4222", "--trust-dir", "absent"},
		"keys of no fleet":          {"add", "x", "--server", "nats://a:4222", "--administrator", "."},
		"no server":                 {"add", "x"},
		"use of one that is not":    {"use", "x"},
		"show of one that is not":   {"show", "x"},
		"rm of one outside":         {"rm", "../x"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			code, _, stderr := command(t, testApp(map[string]string{"XDG_CONFIG_HOME": home}), "", append([]string{"context"}, args...)...)
			if code != 1 || stderr == "" {
				t.Fatalf("exit code %d, %q", code, stderr)
			}
			if files, _ := filepath.Glob(filepath.Join(home, "chandler", "context", "*")); len(files) > 0 {
				t.Fatalf("something was kept: %v", files)
			}
			if strings.Contains(stderr, "secret@") {
				t.Fatalf("the secret is shown: %s", stderr)
			}
		})
	}
}

func TestADamagedContextFileIsToldAndNotGuessed(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":       "server: x",
		"an unknown key": `{"server":"nats://a:4222","caller":"admin","sever":"b"}`,
		"no caller":      `{"server":"nats://a:4222"}`,
		"huge":           `{"server":"` + strings.Repeat("a", maxContextFile) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			store := contextStore{t.TempDir()}
			if err := writePrivate(store.file("x"), []byte(text)); err != nil {
				t.Fatal(err)
			}
			if c, err := store.load("x"); err == nil {
				t.Fatalf("it was read as %+v", c)
			}
		})
	}
}
