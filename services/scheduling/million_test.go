package scheduling

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/target"
)

// BenchmarkAMillionMachines tells what facts of a million machines take, how long it takes to find who is in a collection, and
// what it costs to know it still when a thousand of them change.
func BenchmarkAMillionMachines(b *testing.B) {
	const machines, changed = 1_000_000, 1000
	for range b.N {
		s := newMemory(Options{Log: slog.New(slog.DiscardHandler)})
		var err error
		if s.metrics, err = newMetrics(prometheus.NewRegistry(), s); err != nil {
			b.Fatal(err)
		}
		before := heap()
		for i := range machines {
			putMachine(b, s.fleet, i, "12.7")
		}
		b.ReportMetric(float64(heap()-before)/machines, "heap-B/machine")

		among, err := target.New(`agent.os == "linux" && "office" in agent.tags && agent.os_version != "12.8"`, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		m := &membership{target: among}
		s.memberships["those"] = m
		r := &reconciler{Service: s}
		began := time.Now()
		r.evaluate(m)
		whole := time.Since(began)
		if got := m.set.count(); got != machines/2 {
			b.Fatalf("%d members", got)
		}
		var news []*agent
		for i := range changed {
			news = append(news, putMachine(b, s.fleet, i, "12.8"))
		}
		began = time.Now()
		r.reevaluate(news)
		part := time.Since(began)
		if got := m.set.count(); got != (machines-changed)/2 {
			b.Fatalf("%d members after the change", got)
		}
		b.ReportMetric(whole.Seconds(), "s/evaluation")
		b.ReportMetric(part.Seconds()/changed*1e6, "us/change")
		b.ReportMetric(part.Seconds()/whole.Seconds(), "of-an-evaluation")
	}
}

// putMachine tells a fleet the facts of a machine; every second is of the office.
func putMachine(b *testing.B, f *fleet, i int, version string) *agent {
	b.Helper()
	id := events.AgentID(fmt.Append(nil, i))
	facts := events.Facts{ID: id, Hostname: fmt.Sprintf("ws-%07d", i), Domain: "example", OS: "linux", OSName: "Debian GNU/Linux 12 (bookworm)", OSVersion: version, Arch: "amd64", Kernel: "6.1.0-26-amd64",
		Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)}, Site: fmt.Sprintf("site-%d", i%300), Tags: []string{[]string{"office", "lab"}[i%2]}, ClientKind: events.Advanced, Version: "0.1.0", Privileged: true, OfferFormat: 1,
		Zone: "Europe/Oslo", BootID: fmt.Sprintf("%036d", i)}
	now := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	value, err := json.Marshal(agentRecord{Facts: facts, Reported: now, Stored: now})
	if err != nil {
		b.Fatal(err)
	}
	a, err := f.put(id, value)
	if err != nil || a == nil {
		b.Fatalf("%v: %v", a, err)
	}
	return a
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
