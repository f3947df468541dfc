package integration

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	light "chandler/agent/fleet"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/services/checker"
)

// TestAStormOfStatusesWaitsInTheStream has the agents of one partition tell many times what one replica takes at once, while the
// only replica stands still. It then takes it in batches, in bounded memory, and comes to the same as ever.
func TestAStormOfStatusesWaitsInTheStream(t *testing.T) {
	t.Parallel()
	f := bareFleet(t, asDeployed)
	for _, name := range []string{"content", "scheduling", "credentials"} {
		f.startService(name)
	}
	execution := f.serviceProcess("execution")
	t.Cleanup(func() {
		_ = execution.Process.Kill()
		_ = execution.Wait()
	})
	f.setTrust(f.trust, f.roots...)
	const partition = "0"
	c := newMultitude(f, 16, light.Script{Seed: 1, Duration: 500 * time.Millisecond, Spread: 0.5}, func(id string) bool { return fmt.Sprint(events.Partition(id, events.Partitions)) == partition })
	p := f.publish("1.0", payload, "")
	c.toAll("before", p)
	c.allSucceeded("before")
	mustAsk(f, events.ExecutionFreeze, events.Freeze{Scope: "fleet"})
	names := []string{"before"}
	for i := range 8 {
		names = append(names, fmt.Sprintf("storm-%d", i))
		c.toAll(names[i+1], p)
	}
	jobs := int64(len(names) * len(c.site.ids))
	eventually(t, "all agents wait", func() bool { return c.site.fleet.Stats().Offers == jobs })
	e, err := checker.Collect(t.Context(), f.owner, "owner", names)
	must(t, err)
	for _, z := range mustAsk(f, events.ExecutionFreezes, events.Nothing{}).Freezes {
		mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: z.ID})
	}
	eventually(t, "programs run", func() bool { return c.site.fleet.Stats().Started > int64(len(c.site.ids)) })
	must(t, execution.Process.Signal(syscall.SIGSTOP))
	must(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", execution.Process.Pid), []byte("5"), 0)) // the peak begins anew
	before := peak(t, execution.Process.Pid)
	eventually(t, "agents go on without it", func() bool { return c.site.fleet.Stats().Ended == jobs })
	const often, padding = 2000, 4 << 10
	c.tellAgain(e.Stored, often, padding)
	reader := "execution-" + partition
	behind := len(c.site.ids) * often
	eventually(t, "all of it waits", func() bool { return waiting(f.consumer(events.StreamStatus, reader)) >= uint64(behind) })
	must(t, execution.Process.Signal(syscall.SIGCONT))
	c.toAll("after", p) // which is offered and told behind the storm
	names = append(names, "after")
	c.allSucceeded(names...)
	eventually(t, "all is folded", func() bool { return waiting(f.consumer(events.StreamStatus, reader)) == 0 })
	if grown := peak(t, execution.Process.Pid) - before; grown > 96*mib && !raceDetector { // whose own memory is many times the program's
		t.Errorf("execution took %d MiB for %d MiB of statuses", grown/mib, behind*padding/mib)
	}
	for _, name := range names {
		c.progressIsPaced(name)
	}
}

// tellAgain has every agent say so often again, all at once, what it has said, with more attributes than it needs: nobody may
// count it again.
func (c *multitude) tellAgain(stored []checker.Status, often, padding int) {
	c.t.Helper()
	said := map[string]checker.Status{}
	for _, s := range stored {
		said[s.Agent] = s
	}
	var telling sync.WaitGroup
	for _, id := range c.site.ids {
		state := said[id].State
		m := c.lastStored(events.StreamStatus, "chandler.job."+string(state)+"."+id+".*")
		m.Subject = "chandler.job." + string(state) + "." + id
		m.Header.Set("ce-padding", strings.Repeat("x", padding))
		conn := c.broker.Connect(c.t, access.Agent, id)
		telling.Go(func() {
			for range often {
				if err := conn.PublishMsg(&nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}); err != nil {
					c.t.Errorf("%s cannot tell: %v", id, err)
					return
				}
			}
			if err := conn.FlushTimeout(time.Minute); err != nil {
				c.t.Errorf("%s cannot tell: %v", id, err)
			}
		})
	}
	telling.Wait()
}

// progressIsPaced asserts that the counts of a deployment were told at most about once a second.
func (c *multitude) progressIsPaced(deployment string) {
	c.t.Helper()
	var first, last time.Time
	n := 0
	_, err := c.owner.Replay(c.t.Context(), events.StreamEvents, events.DeploymentProgressed.Subject(deployment), 1, func(m jetstream.Msg) error {
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if n++; n == 1 {
			first = meta.Timestamp
		}
		last = meta.Timestamp
		return nil
	})
	must(c.t, err)
	if most := int(last.Sub(first).Seconds()) + 2; n == 0 || n > most {
		c.t.Errorf("the progress of %s was told %d times, at most %d are right", deployment, n, most)
	}
}

// peak is the most memory that a process had, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := bytes.Cut(text, []byte("VmHWM:"))
	kib, err := strconv.ParseInt(strings.Fields(string(rest))[0], 10, 64)
	must(t, err)
	return kib << 10
}

// TestLogsGiveWayToStatuses takes away what stores logs: statuses go on, lines that nobody took are dropped, and each is either
// stored or counted.
func TestLogsGiveWayToStatuses(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	const agents, output, lines = 8, 3 << 20, 31458 // lines of 100 bytes; 96 chunks, of which 64 wait
	c := newMultitude(f, agents, light.Script{Output: output}, nil)
	must(t, f.owner.JetStream().DeleteStream(t.Context(), events.StreamLogs))
	c.toAll("loud", f.publish("1.0", payload, ""))
	c.allSucceeded("loud")
	dropped := c.site.fleet.Stats().LogLinesDropped
	if dropped == 0 {
		t.Error("nothing was dropped")
	}
	must(t, f.broker.Bus(t, access.Provisioner, string(access.Provisioner)).Provision(t.Context(), bus.Topology{}))
	eventually(t, "every line is stored or counted", func() bool {
		stored, told := c.logged()
		return stored+c.site.fleet.Stats().LogLinesDropped == agents*lines && told <= dropped
	})
}

// logged is how many lines LOGS holds, and how many it is told were dropped before them.
func (c *multitude) logged() (lines, dropped int64) {
	c.t.Helper()
	must(c.t, c.owner.Browse(c.t.Context(), bus.BrowseOptions{Stream: events.StreamLogs}, func(m jetstream.Msg) error {
		e, err := typed[events.JobLog](m)
		lines, dropped = lines+int64(len(e.Data.Lines)), dropped+int64(e.Data.Dropped)
		return err
	}))
	return lines, dropped
}
