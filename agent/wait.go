package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"chandler/agent/installers"
	"chandler/events"
	"chandler/events/target"
	"chandler/events/timing"
)

// prepare fetches the content as soon as the deployment is available, which may be long before its
// deadline. A program for which no maintenance window will ever be long enough ends before that.
func (t *task) prepare(ctx context.Context) error {
	if t.umbrella() {
		return nil // it fetches beside opening what is due
	}
	for {
		d := t.timing()
		if d.Verdict == timing.TooLate {
			return t.tooLate()
		}
		if d.Verdict != timing.NotYet {
			break
		}
		if err := t.waitUntil(ctx, d.Until, events.WaitAssignment, "available from "+shown(d.Until)); err != nil {
			return err
		}
	}
	if err := t.everFits(); err != nil {
		return err
	}
	if t.step == nil {
		t.show(t.timing().Until)
	}
	if err := t.noteUsers(ctx); err != nil {
		return err
	}
	if t.fetched = t.fetched || len(t.manifest.Files) == 0 || t.forUsers(); t.fetched || t.readsAsUser() {
		return nil // nothing to fetch, or not before its reader is there
	}
	return t.bringContent(ctx)
}

// bringContent fetches the content, and says so.
func (t *task) bringContent(ctx context.Context) error {
	t.pass(ctx, events.Downloading, status{})
	for err := t.fetchContent(ctx); err != nil; err = t.fetchContent(ctx) {
		if !t.a.away() || asEnding(err).reason != events.CredentialUnavailable {
			return err
		}
		t.pass(ctx, events.Waiting, status{waitingFor: events.WaitContact, explanation: "the account that reads the content comes from the credential service, which cannot be asked while the broker is away"})
		if err := t.waitChange(ctx, soon(ctx)); err != nil {
			return err
		}
		if t.timing().Verdict == timing.TooLate {
			return t.tooLate()
		}
	}
	t.say(info, "Content of %s %s is in the cache: %d files, %d bytes, %d of them fetched now", t.part().Package, t.part().Version, len(t.manifest.Files), t.manifest.Size(), t.bytes)
	t.pass(ctx, events.Downloaded, status{reader: t.reader()})
	t.fetched, t.fetchedBy = true, t.reacher().user
	return nil
}

func (t *task) tooLate() error {
	return end(events.Expired, events.DeploymentExpired, "the deployment's time was over before the program started")
}

// contactPatience is how long a start waits for execution's first word after a restart or reconnect: it
// may say that the deployment was stopped meanwhile. Without a broker there is nobody to wait for.
const contactPatience = 30 * time.Second

// awaitCurrent waits for that word; an agent that has no inbox yet has nobody to hear it from.
func (a *Agent) awaitCurrent(ctx context.Context) {
	if a.inbox != nil {
		a.inbox.WaitCurrent(ctx, contactPatience)
	}
}

// wait lets the job pass when its time has come, nothing is frozen, and there is room to run. It leaves
// with a slot held and a fresh copy of the content laid out. Laying it out takes time, so everything is
// looked at once more afterwards.
func (t *task) wait(ctx context.Context) error {
	if t.umbrella() {
		return t.standing(ctx)
	}
	if t.forUsers() {
		return t.forEveryUser(ctx)
	}
	for {
		t.a.awaitCurrent(ctx)
		t.a.heedTrust(ctx)
		if hindered, err := t.hindered(ctx, true); err != nil {
			return err
		} else if hindered {
			continue
		}
		if again, err := t.readOutside(ctx); err != nil {
			return err
		} else if again {
			continue
		}
		t.slots = t.slotNames()
		free, changed := t.a.slots.take(t.slots...)
		if !free {
			if why := t.a.slots.why(t.slots...); why != "" && why != restartsSoon { // else it has changed already
				t.pass(ctx, events.Waiting, status{waitingFor: events.WaitSlot, explanation: why})
				if err := t.waitChange(ctx, changed); err != nil {
					return err
				}
			}
			continue
		}
		t.holdsSlot = true
		if err := t.runElsewhere(ctx); err != nil {
			return err
		}
		if !t.referencesChecked() {
			t.leaveSlot()
			continue
		}
		if err := t.stageContent(ctx); err != nil {
			return err
		}
		owner := t.contentOwner()
		hindered, err := t.hindered(ctx, false)
		if err != nil {
			return err
		}
		// Another user may be in the foreground by now, to whom the copy is closed.
		if !hindered && sameOwner(owner, t.contentOwner()) {
			t.startable.Store(nil)
			return nil
		}
		t.leaveSlot()
	}
}

// runElsewhere ends a job whose program another job has run since this one decided to: with the slot, which is one for each
// program, none does so any more.
func (t *task) runElsewhere(ctx context.Context) error {
	if t.step == nil && t.job.Offer.Attempt > 1 {
		return nil // an attempt that failed, or an administrator's retry
	}
	if last, err := t.a.journal.LastRun(t.programName()); err != nil || last == "" {
		return err
	}
	return t.stillToRun(ctx)
}

// readOutside reads what could not be read before now: the content, where its user is there, and references. Nobody waits
// for a slot meanwhile. again: it took its time, or its user left, and all is to be looked at once more.
func (t *task) readOutside(ctx context.Context) (again bool, err error) {
	switch {
	case !t.fetched || t.readsAsUser() && t.fetchedBy != t.reacher().user:
		err = t.bringContent(ctx)
	case !t.referencesChecked() && t.a.slots.why(t.slotNames()...) == "": // else it is too early to look
		err = t.checkReferences(ctx)
	default:
		return false, nil
	}
	if err != nil && !t.readerLeft(ctx, err) {
		return false, err
	}
	return true, nil
}

// hindered says whether anything forbids the start; it waits until that may have changed, if told to. The error
// ends the attempt.
func (t *task) hindered(ctx context.Context, wait bool) (bool, error) {
	d := t.timing()
	freeze, changed := t.a.frozen(t.facts, t.deployment, t.revision)
	hold := func(what events.WaitingFor, changed <-chan struct{}, format string, args ...any) (bool, error) {
		if !wait {
			return true, nil
		}
		t.pass(ctx, events.Waiting, status{waitingFor: what, explanation: fmt.Sprintf(format, args...)})
		return true, t.waitChange(ctx, changed)
	}
	switch {
	case ctx.Err() != nil:
		return true, ctx.Err()
	case d.Verdict == timing.TooLate:
		return true, t.tooLate()
	case d.Verdict != timing.Start:
		if !wait {
			return true, nil
		}
		return true, t.waitUntil(ctx, d.Until, events.WaitAssignment, "starts at "+shown(d.Until))
	case freeze != nil:
		return hold(events.WaitFreeze, changed, "frozen (%s) by %s: %s", freeze.ID, freeze.By, orDefault(freeze.Why, "no reason given"))
	}
	if blocked, changed := t.a.slots.blocked(); blocked {
		return hold(events.WaitReboot, changed, restartsSoon)
	}
	if why, opens, err := t.windowHindrance(t.a.Clock()); err != nil {
		return true, err
	} else if why != "" {
		return hold(events.WaitMaintenanceWindow, t.at(ctx, opens), "%s", why)
	}
	if awaited, changed := t.a.awaitedRestart(t.job.Offer, t.part().Package); awaited {
		return hold(events.WaitReboot, changed, "another program of %s is complete only after a restart of the machine", t.part().Package)
	}
	logons := t.a.Logon.Changed()
	if what, why, err := t.logonHindrance(ctx, !wait); err != nil || what != "" {
		if err != nil {
			return true, err
		}
		return hold(what, logons, "%s", why)
	}
	if left, changed := t.a.rightsLeft(); left && t.who.Elevated {
		return hold(events.WaitSlot, changed, "rights that an account had for an earlier program cannot be taken back yet; none is given any before")
	}
	if t.needsLease() && t.a.away() {
		return hold(events.WaitContact, soon(ctx), "the account that runs the program comes from the credential service, which cannot be asked while the broker is away")
	}
	if holder := t.lockHolder(); holder != "" {
		return hold(events.WaitSlot, soon(ctx), "%s", t.steady(holder))
	}
	return false, nil
}

// soonAfter is how often that is looked at which nobody tells.
const soonAfter = 2 * time.Second

// soon is closed after a while, or when ctx ends.
func soon(ctx context.Context) <-chan struct{} { return after(ctx, soonAfter) }

// after is closed after that time, at most a minute, or when ctx ends.
func after(ctx context.Context, d time.Duration) <-chan struct{} {
	passed, cancel := context.WithTimeout(ctx, min(d, time.Minute))
	context.AfterFunc(passed, cancel)
	return passed.Done()
}

// lockHolder says in words who holds the lock that the program's installer needs; "": nobody.
func (t *task) lockHolder() string {
	installer := t.installer()
	if installer == "" {
		return ""
	}
	holder, err := t.a.LockHolder(installer)
	if err != nil {
		t.a.log.Warn("lock of an installer not read", "installer", installer, "error", err)
		return ""
	}
	return holder
}

// steady gives the words last said about a lock, for a minute, though others hold it now: an installer calls one process
// after the other, and not each is news.
func (t *task) steady(holder string) string {
	if last := t.job.Last; t.holder == "" || last.Explanation != t.holder || t.a.Clock().Sub(last.At) >= time.Minute {
		t.holder = holder
	}
	return t.holder
}

// waitUntil waits for a time, in steps, so that a clock that was set meanwhile is noticed.
func (t *task) waitUntil(ctx context.Context, until time.Time, what events.WaitingFor, why string) error {
	t.pass(ctx, events.Waiting, status{waitingFor: what, explanation: why})
	return t.waitChange(ctx, t.at(ctx, until))
}

// waitChange waits until changed is closed, or until the deployment expires: looking every minute, so that a clock
// that was set meanwhile is noticed. A local user who asks for the job meanwhile is heeded.
func (t *task) waitChange(ctx context.Context, changed <-chan struct{}) error {
	limit := time.Minute
	limit = min(limit, max(time.Second, timing.Ends(t.order, t.machine()).Sub(t.a.Clock())))
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case q := <-t.asks:
		return t.heed(ctx, q)
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// frozen is a freeze that holds this machine, or this deployment up to a revision, and a channel closed when freezes change.
func (a *Agent) frozen(facts events.Facts, deployment string, revision uint64) (*events.Freeze, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.freezes {
		if target.Holds(f, facts) || f.Scope == "deployment" && f.Name == deployment && revision <= f.Revision {
			return &f, a.thawed
		}
	}
	return nil, a.thawed
}

// slotNames are the groups of programs that exclude each other to which this one belongs: installers that lock the
// machine's package database, the program itself, and what runs by one account that is given rights for it.
func (t *task) slotNames() (names []string) {
	if installer := t.installer(); installer != "" {
		names = append(names, installer)
	}
	p := t.programName()
	names = append(names, programGroup+p.Package+"@"+p.Version+"/"+p.Program+"/"+p.User)
	if t.who.Elevated {
		names = append(names, accountGroup+string(t.who.Executor)) // two names may be of one user
	}
	return names
}

// installer is the one that the program's command calls, by the name of its lock; "" where none is known.
func (t *task) installer() string {
	// Also within an argument: a shell's, for instance.
	words := strings.Fields(strings.Join(append(slices.Clone(t.program.Command.Argv), t.program.Command.Line), " "))
	for _, w := range words {
		name := strings.TrimSuffix(strings.ToLower(filepath.Base(strings.Trim(w, "\"';&|()"))), ".exe")
		switch name {
		case "dpkg", "apt", "apt-get", "aptitude":
			return installers.Dpkg
		case "rpm", "dnf", "microdnf", "yum", "zypper":
			return installers.Rpm
		case "msiexec":
			return installers.Msiexec
		}
	}
	return ""
}

func (t *task) leaveSlot() {
	if t.holdsSlot {
		t.a.slots.leave(t.slots...)
		t.holdsSlot = false
	}
}
