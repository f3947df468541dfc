package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"chandler/agent"
	"chandler/agent/detect"
)

// said runs a command line and gives what it printed.
func said(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return saidTo(t, "", args...)
}

// saidTo gives it something to read.
func saidTo(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetErr(&out)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// configure writes a configuration.
func configure(t *testing.T, more string) (file, state string) {
	t.Helper()
	dir := t.TempDir()
	file, state = filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "state")
	if err := os.WriteFile(file, []byte("state-dir: "+state+"\n"+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, state
}

// made enrols, and runs an agent without a broker until it has written its status.
func made(t *testing.T, file string) {
	t.Helper()
	f := newFleet(t)
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f.broker.Stop()
	conf, err := readConfig(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	keeper, err := ownIdentity(t.Context(), conf, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	options, err := conf.options(keeper, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, err := agent.ReadStatus(conf.StateDir); err != nil; _, err = agent.ReadStatus(conf.StateDir) {
		<-tick.C
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestStatusNeedsNoBroker(t *testing.T) {
	file, state := configure(t, "")
	if _, err := said(t, "status", "-c", file); err == nil || !strings.Contains(err.Error(), state) {
		t.Fatalf("before the first run: %v", err)
	}
	made(t, file)
	out, err := said(t, "status", "-c", file)
	if err != nil || !strings.Contains(out, "not running") || !strings.Contains(out, "away") || !strings.Contains(out, "enrolled, expires") || !strings.Contains(out, "reads file, https, smb") {
		t.Fatalf("%v\n%s", err, out)
	}
	elsewhere, _ := configure(t, "")
	if out, err := said(t, "status", "-c", elsewhere, "--state-dir", state); err != nil || !strings.Contains(out, "enrolled, expires") {
		t.Fatalf("by its directory: %v\n%s", err, out)
	}
	out, err = said(t, "status", "-c", file, "-o", "json")
	var s agent.Status
	if err != nil || json.Unmarshal([]byte(out), &s) != nil || s.ID == "" || s.Fleet != "test" {
		t.Fatalf("%v\n%s", err, out)
	}
}

// withoutRoom leaves out how much of the disk is free, which others change.
func withoutRoom(said string) string {
	return regexp.MustCompile(`\d+ MiB free`).ReplaceAllString(said, "MiB free")
}

func TestDoctorNamesEveryFault(t *testing.T) {
	file, state := configure(t, "")
	made(t, file)
	if err := os.Chmod(filepath.Join(state, "agent.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := said(t, "doctor", "-c", file)
	if err == nil {
		t.Fatalf("no check failed:\n%s", out)
	}
	elsewhere, _ := configure(t, "")
	if byDirectory, err := said(t, "doctor", "-c", elsewhere, "--state-dir", state); err == nil || withoutRoom(byDirectory) != withoutRoom(out) {
		t.Errorf("by its directory: %v\n%s", err, byDirectory)
	}
	for _, want := range []string{"ok    identity", "ok    trust", "FAIL  state directory", "chmod 600", "agent.key", "FAIL  broker", "127.0.0.1:", "ok    encryption", "ok    sources", "file, https, smb", "references"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func TestAConfigurationThatIsNotUnderstoodIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ more, want string }{
		"an unknown key quotes its line": {"bandwith: 5MiB\n", "bandwith"},
		"and the keys that there are":    {"bandwith: 5MiB\n", "known keys: servers, domain, state-dir, "},
		"a size without a unit word":     {"cache-size: lots\n", "cache-size"},
		"a client kind that is none":     {"client-kind: modern\n", "client kind"},
		"a site that is no name":         {"site: Os.lo\n", "site"},
	} {
		t.Run(name, func(t *testing.T) {
			file, _ := configure(t, c.more)
			if _, err := said(t, "run", "-c", file); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want it to name %s", err, c.want)
			}
		})
	}
	if _, err := said(t, "run", "-c", filepath.Join(t.TempDir(), "missing.yaml")); err == nil {
		t.Fatal("a configuration file that was named and is missing was taken")
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "1024": 1024, "5GiB": 5 << 30, "10 MiB": 10 << 20} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
	for _, bad := range []string{"-1", "5GB", "x", "99999999TiB", "0"} {
		if n, err := parseSize(bad); err == nil {
			t.Errorf("%q was taken as %d", bad, n)
		}
	}
}

func TestVersionIsPrinted(t *testing.T) {
	if out, err := said(t, "version"); err != nil || !strings.Contains(out, agent.Version) {
		t.Fatalf("%q, %v", out, err)
	}
}

func TestTheAgentHasADriverForEveryKindOfDetection(t *testing.T) {
	table := kinds(nil, t.TempDir())
	for _, kind := range detect.KindNames() {
		if table[kind] == nil {
			t.Errorf("detection %s may be published and has no driver here", kind)
		}
	}
	if len(table) != len(detect.KindNames()) {
		t.Errorf("the table has drivers that no rule can name: %v", table)
	}
}

func TestACopiedStateDirectoryIsRefused(t *testing.T) {
	file, state := configure(t, "")
	made(t, file)
	path := filepath.Join(state, "identity.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var id map[string]any
	if err := json.Unmarshal(data, &id); err != nil {
		t.Fatal(err)
	}
	if id["machine"] == nil {
		t.Skip("this system does not tell its id")
	}
	id["machine"] = strings.Repeat("ab", 32)
	if data, err = json.Marshal(id); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"run", "--metrics", "127.0.0.1:0"}, {"enrol"}} {
		if _, err := said(t, append(args, "-c", file)...); err == nil || !strings.Contains(err.Error(), "another machine") || !strings.Contains(err.Error(), "--anew") {
			t.Errorf("%s: got %v", args[0], err)
		}
	}
}
