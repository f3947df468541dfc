package agent

import (
	"context"
	"fmt"
	"reflect"
	"slices"
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
	f, machine, err := ReadFacts(ctx, a.Options)
	if err != nil {
		return err
	}
	f.ID = a.id
	if a.Enrolment != nil {
		if err := a.Enrolment.BindMachine(machine); err != nil {
			return err
		}
		a.Enrolment.Describe(f)
		confer(&f, a.Enrolment.Conferred())
	}
	f.Trust = a.trust().Version
	a.mu.Lock()
	a.facts = f
	a.mu.Unlock()
	return nil
}

// ReadFacts collects what a machine is and what its configuration adds, for an agent that is not there yet;
// machine is the machine's own id, which is not for others to see.
func ReadFacts(ctx context.Context, o Options) (f events.Facts, machine string, err error) {
	h, err := host.Collect(ctx)
	if err != nil {
		return f, "", fmt.Errorf("read facts: %w", err)
	}
	return events.Facts{
		Hostname: orDefault(o.Hostname, h.Hostname), Domain: h.Domain, OS: h.OS, OSName: h.OSName, OSVersion: h.OSVersion, Arch: h.Arch,
		Kernel: h.Kernel, Addresses: h.Addresses, Site: o.Site, Tags: o.Tags, ClientKind: orDefault(o.ClientKind, events.Advanced), MemoryBytes: h.MemoryBytes,
		Version: Version, Privileged: privileged(), OfferFormat: events.OfferFormat, Zone: h.Zone, BootID: h.BootID, DomainController: h.DomainController, Incomplete: h.Incomplete,
	}, h.MachineID, nil
}

// confer adds what the fleet says of the machine. It wins over the configuration, which may only add tags.
func confer(f *events.Facts, c events.Conferred) {
	f.Site = orDefault(c.Site, f.Site)
	f.ClientKind = orDefault(c.ClientKind, f.ClientKind)
	f.DomainController = f.DomainController || c.DomainController
	f.Tags = slices.Clone(f.Tags)
	for _, tag := range c.Tags {
		if !slices.Contains(f.Tags, tag) {
			f.Tags = append(f.Tags, tag)
		}
	}
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
		case <-a.factsOld:
			if err := a.readFacts(ctx); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "facts not read", "error", err)
			}
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
