package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/target"
	"chandler/events/timing"
)

// prepare fetches the content as soon as the deployment is available, which may be long before its
// deadline.
func (t *task) prepare(ctx context.Context) error {
	for {
		d := timing.Decide(t.order, t.order.Assignments[0], t.a.Clock())
		if d.Verdict == timing.TooLate {
			return t.tooLate()
		}
		if d.Verdict != timing.NotYet {
			break
		}
		if err := t.waitUntil(ctx, d.Until, events.WaitAssignment, "available from "+d.Until.Format(time.RFC3339)); err != nil {
			return err
		}
	}
	if len(t.manifest.Files) == 0 {
		return nil
	}
	t.pass(ctx, events.Downloading, status{})
	if err := t.fetchContent(ctx); err != nil {
		return err
	}
	t.say(info, "Content of %s %s is in the cache: %d files, %d bytes, %d of them fetched now", t.order.Package, t.order.Version, len(t.manifest.Files), t.manifest.Size(), t.bytes)
	t.pass(ctx, events.Downloaded, status{reader: "agent"})
	return nil
}

func (t *task) tooLate() error {
	return end(events.Expired, events.DeploymentExpired, "the deployment's time was over before the program started")
}

// contactPatience is how long a start waits for execution's first word after a restart or reconnect: it
// may say that the deployment was stopped meanwhile. Without a broker there is nobody to wait for.
const contactPatience = 30 * time.Second

// wait lets the job pass when its time has come, nothing is frozen, and there is room to run. It leaves
// with a slot held and a fresh copy of the content laid out. Laying it out takes time, so everything is
// looked at once more afterwards.
func (t *task) wait(ctx context.Context) error {
	for {
		t.a.inbox.WaitCurrent(ctx, contactPatience)
		t.a.heedTrust(ctx)
		if hindered, err := t.hindered(ctx, true); err != nil {
			return err
		} else if hindered {
			continue
		}
		free, changed := t.a.slots.take(t.slotName())
		if !free {
			t.pass(ctx, events.Waiting, status{waitingFor: events.WaitSlot, explanation: "another program runs here"})
			if err := t.waitChange(ctx, changed); err != nil {
				return err
			}
			continue
		}
		t.slot, t.holdsSlot = t.slotName(), true
		if err := t.stageContent(ctx); err != nil {
			return err
		}
		if hindered, err := t.hindered(ctx, false); err != nil || !hindered {
			return err
		}
		t.leaveSlot()
	}
}

// hindered says whether time or a freeze forbids the start; it waits until that may have changed, if told
// to. The error ends the attempt.
func (t *task) hindered(ctx context.Context, wait bool) (bool, error) {
	d := timing.Decide(t.order, t.order.Assignments[0], t.a.Clock())
	freeze, changed := t.a.frozen(t.facts)
	switch {
	case ctx.Err() != nil:
		return true, ctx.Err()
	case d.Verdict == timing.TooLate:
		return true, t.tooLate()
	case d.Verdict != timing.Start:
		if !wait {
			return true, nil
		}
		return true, t.waitUntil(ctx, d.Until, events.WaitAssignment, "starts at "+d.Until.Format(time.RFC3339))
	case freeze != nil:
		if !wait {
			return true, nil
		}
		t.pass(ctx, events.Waiting, status{waitingFor: events.WaitFreeze, explanation: fmt.Sprintf("frozen (%s) by %s: %s", freeze.ID, freeze.By, orDefault(freeze.Why, "no reason given"))})
		return true, t.waitChange(ctx, changed)
	}
	return false, nil
}

// waitUntil waits for a time, in steps, so that a clock that was set meanwhile is noticed.
func (t *task) waitUntil(ctx context.Context, until time.Time, what events.WaitingFor, why string) error {
	t.pass(ctx, events.Waiting, status{waitingFor: what, explanation: why})
	if !sleep(ctx, min(time.Minute, max(time.Millisecond, until.Sub(t.a.Clock())))) {
		return ctx.Err()
	}
	return nil
}

// waitChange waits until changed is closed, or a minute: the deployment may expire meanwhile.
func (t *task) waitChange(ctx context.Context, changed <-chan struct{}) error {
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// frozen is a freeze that holds this machine, and a channel closed when freezes change.
func (a *Agent) frozen(facts events.Facts) (*events.Freeze, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.freezes {
		if target.Holds(f, facts) {
			return &f, a.thawed
		}
	}
	return nil, a.thawed
}

// slotName groups programs that exclude each other: installers that lock the machine's package database.
func (t *task) slotName() string {
	words := t.program.Command.Argv
	if t.program.Command.Line != "" {
		words = strings.Fields(t.program.Command.Line)
	}
	for _, w := range words {
		name := strings.TrimSuffix(strings.ToLower(filepath.Base(w)), ".exe")
		switch name {
		case "dpkg", "apt", "apt-get":
			return "dpkg"
		case "rpm", "dnf", "yum", "zypper":
			return "rpm"
		case "msiexec":
			return "msiexec"
		}
	}
	return ""
}

func (t *task) leaveSlot() {
	if t.holdsSlot {
		t.a.slots.leave(t.slot)
		t.slot, t.holdsSlot = "", false
	}
}
