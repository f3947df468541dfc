package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chandler/agent"
	"chandler/agent/detect"
	"chandler/events/order"
)

// said runs a command line and gives what it printed.
func said(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&out)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// configure writes a configuration whose broker does not exist, and its trust bundle.
func configure(t *testing.T, more string) (file, state string) {
	t.Helper()
	dir := t.TempDir()
	key, err := order.NewKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := json.Marshal(order.Trust{Fleet: "test", Version: 1, Threshold: 1, Keys: []order.PublicKey{key.Public("a")}})
	if err != nil {
		t.Fatal(err)
	}
	trust := filepath.Join(dir, "trust.json")
	file, state = filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "state")
	text := "servers: [nats://127.0.0.1:1]\ntrust: " + trust + "\nstate-dir: " + state + "\nsite: oslo\n" + more
	for path, data := range map[string][]byte{trust: bundle, file: []byte(text)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file, state
}

// made runs an agent until it has written its status, without a broker.
func made(t *testing.T, file string) {
	t.Helper()
	conf, err := readConfig(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	options, err := conf.options()
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
	if err != nil || !strings.Contains(out, "not running") || !strings.Contains(out, "away") {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = said(t, "status", "-c", file, "-o", "json")
	var s agent.Status
	if err != nil || json.Unmarshal([]byte(out), &s) != nil || s.ID == "" || s.Fleet != "test" {
		t.Fatalf("%v\n%s", err, out)
	}
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
	for _, want := range []string{"ok    trust", "FAIL  agent key", "chmod 600", "FAIL  broker", "127.0.0.1:1"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func TestAConfigurationThatIsNotUnderstoodIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ more, want string }{
		"an unknown key quotes its line": {"bandwith: 5MiB\n", "bandwith"},
		"a size without a unit word":     {"cache-size: lots\n", "cache-size"},
		"a client kind that is none":     {"client-kind: modern\n", "client kind"},
		"a site that is no name":         {"site2: x\n", "site2"},
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
	if err := os.WriteFile(filepath.Join(state, "machine"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := said(t, "run", "-c", file, "--metrics", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Fatalf("got %v", err)
	}
}
