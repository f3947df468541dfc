package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"chandler/services/integration/clustertest"
)

// runOfCluster is a process of the cluster: a broker, or a replica of the service of that name.
func runOfCluster(what, file string) error {
	if what == "broker" {
		return clustertest.RunBroker(file)
	}
	clustertest.EndWithParent()
	return runService(what, file)
}

// ofCluster is how such a process is started.
func ofCluster(what string, more ...string) ([]string, error) {
	self, err := os.Executable()
	return append([]string{self, "cluster", what}, more...), err
}

// clock is the replica's: it looks into the file that others set it by.
func (f serviceFile) clock() func() time.Time {
	if f.ClockFile == "" {
		return nil
	}
	var mu sync.Mutex
	var ahead time.Duration
	var read time.Time
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(read) > 100*time.Millisecond {
			read = now
			if data, err := os.ReadFile(f.ClockFile); err == nil {
				if d, err := time.ParseDuration(strings.TrimSpace(string(data))); err == nil {
					ahead = d
				}
			}
		}
		return time.Now().Add(ahead)
	}
}

// replicaProcess is a replica of a service as a process, with links of its own to the brokers.
type replicaProcess struct {
	*clustertest.Process
	name, clock string
	links       []*clustertest.Link
}

// replica makes a replica's process; number tells it from others of the service.
func (r *rig) replica(name string, number string) *replicaProcess {
	r.t.Helper()
	p := &replicaProcess{name: name + "-" + number, links: r.linksToBrokers()}
	dir := filepath.Join(r.dir, p.name)
	must(r.t, os.MkdirAll(dir, 0o700))
	file := r.serviceFile(name, urlsOf(p.links))
	file.ClockFile = filepath.Join(dir, "clock")
	p.clock = file.ClockFile
	must(r.t, p.setClock(0))
	data, err := json.Marshal(file)
	must(r.t, err)
	must(r.t, os.WriteFile(filepath.Join(dir, "service.json"), data, 0o600))
	command, err := ofCluster(name, filepath.Join(dir, "service.json"))
	must(r.t, err)
	p.Process = &clustertest.Process{Command: command, Output: r.output(p.name)}
	return p
}

// setClock sets by how much the replica's clock is ahead.
func (p *replicaProcess) setClock(ahead time.Duration) error {
	next := p.clock + ".next"
	if err := os.WriteFile(next, []byte(ahead.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(next, p.clock)
}
