package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"chandler/agent/host"
	"chandler/events"
)

// Intervals of what the agent says without being asked.
const (
	factsEvery     = 15 * time.Minute // facts are read this often and published when they differ
	heartbeatEvery = 2 * time.Minute
	sweepEvery     = 10 * time.Minute
)

// readFacts collects what the machine is and what the configuration adds.
func (a *Agent) readFacts(ctx context.Context) error {
	h, err := host.Collect(ctx)
	if err != nil {
		return fmt.Errorf("read facts: %w", err)
	}
	if err := checkMachine(filepath.Join(a.StateDir, "machine"), h.MachineID); err != nil {
		return err
	}
	f := events.Facts{
		ID: a.id, Hostname: orDefault(a.Hostname, h.Hostname), Domain: h.Domain, OS: h.OS, OSName: h.OSName, OSVersion: h.OSVersion, Arch: h.Arch,
		Kernel: h.Kernel, Addresses: h.Addresses, Site: a.Site, Tags: a.Tags, ClientKind: a.ClientKind, MemoryBytes: h.MemoryBytes,
		Version: Version, Privileged: privileged(), OfferFormat: events.OfferFormat, Zone: h.Zone, BootID: h.BootID, Incomplete: h.Incomplete,
	}
	a.mu.Lock()
	a.facts = f
	a.mu.Unlock()
	return nil
}

// Facts are the machine's facts as last read.
func (a *Agent) Facts() events.Facts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.facts
}

// tellFacts publishes the facts at start, when they change, and when a stream began anew.
func (a *Agent) tellFacts(ctx context.Context) error {
	var told events.Facts
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.factsWanted:
			told = events.Facts{}
		case <-retry.C:
			if err := a.readFacts(ctx); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "facts not read", "error", err)
			}
		}
		facts := a.Facts()
		if reflect.DeepEqual(facts, told) {
			retry.Reset(factsEvery)
			continue
		}
		if err := a.reporter.Facts(ctx, facts); err != nil {
			a.log.DebugContext(ctx, "facts not stored yet", "error", err)
			retry.Reset(2 * time.Second)
			continue
		}
		told = facts
		retry.Reset(factsEvery)
	}
}

func (a *Agent) heartbeat(ctx context.Context) error {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for {
		if a.conn.IsConnected() {
			a.mu.Lock()
			jobs := len(a.tasks)
			a.mu.Unlock()
			if err := a.reporter.Heartbeat(ctx, Version, jobs); err != nil && ctx.Err() == nil {
				a.log.DebugContext(ctx, "heartbeat not sent", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.beat: // just connected
		case <-tick.C:
		}
	}
}
