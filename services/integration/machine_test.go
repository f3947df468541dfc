package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chandler/agent"
)

// machine is a managed machine: an agent's process and the directory its programs install into.
type machine struct {
	t    *testing.T
	name string
	dir  string
	file agentFile
	cmd  *exec.Cmd
	id   string
}

// root is $ROOT of the machine's programs.
func (m *machine) root() string { return filepath.Join(m.dir, "root") }

// start starts the agent's process.
func (m *machine) start() {
	m.t.Helper()
	data, err := json.Marshal(m.file)
	must(m.t, err)
	file := filepath.Join(m.dir, "agent.json")
	must(m.t, os.WriteFile(file, data, 0o600))
	self, err := os.Executable()
	must(m.t, err)
	log, err := os.OpenFile(filepath.Join(m.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(m.t, err)
	m.cmd = exec.Command(self, "agent", file)
	m.cmd.Stderr, m.cmd.Stdout = log, log
	must(m.t, m.cmd.Start())
	log.Close()
}

// kill ends the agent as a power button would, stop as a service manager does.
func (m *machine) kill() { m.end(os.Kill) }
func (m *machine) stop() { m.end(os.Interrupt) }

func (m *machine) end(signal os.Signal) {
	m.t.Helper()
	if m.cmd == nil {
		return
	}
	must(m.t, m.cmd.Process.Signal(signal))
	_ = m.cmd.Wait() // a killed process is no success
	m.cmd = nil
}

// write puts a file below the machine's root; programs look for such files.
func (m *machine) write(name, content string) {
	m.t.Helper()
	must(m.t, os.WriteFile(filepath.Join(m.root(), name), []byte(content), 0o600))
}

func (m *machine) remove(name string) {
	m.t.Helper()
	must(m.t, os.Remove(filepath.Join(m.root(), name)))
}

// ran lists what the probe's runs wrote, one "job attempt" each.
func (m *machine) ran() []string {
	data, err := os.ReadFile(filepath.Join(m.root(), "ran"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// awaitFile waits until a program has made a file.
func (m *machine) awaitFile(name string) {
	m.t.Helper()
	eventually(m.t, m.name+" makes "+name, func() bool {
		_, err := os.Stat(filepath.Join(m.root(), name))
		return err == nil
	})
}

// awaitRunning waits until the present process of the agent has begun its work.
func (m *machine) awaitRunning() {
	m.t.Helper()
	eventually(m.t, m.name+"'s agent runs", func() bool {
		data, err := os.ReadFile(filepath.Join(m.file.StateDir, "status.json"))
		var s agent.Status
		return err == nil && json.Unmarshal(data, &s) == nil && s.PID == m.cmd.Process.Pid
	})
}

// agentID reads the id once the agent has made it.
func (m *machine) agentID() string {
	m.t.Helper()
	eventually(m.t, m.name+" has an identity", func() bool {
		s, err := agent.ReadStatus(m.file.StateDir)
		m.id = s.ID
		return err == nil
	})
	return m.id
}

// counted sums what the stopped agent counted, over all series of a metric with these labels.
func (m *machine) counted(name string, labels ...string) float64 {
	m.t.Helper()
	return sumOf(m.t, filepath.Join(m.file.StateDir, metricsFile), name, labels)
}

// log is the agent's own log, for failures.
func (m *machine) log() string {
	data, _ := os.ReadFile(filepath.Join(m.dir, "agent.log"))
	return string(data)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that something outside this process brings about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); <-tick.C {
		if holds() {
			return
		}
	}
	t.Fatalf("waited a minute in vain: %s", what)
}
