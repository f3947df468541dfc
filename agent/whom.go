package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chandler/agent/external"
	"chandler/agent/identity"
	"chandler/agent/journal"
	"chandler/agent/logon"
	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/timing"
)

// asWhom decides who reads the content and who runs the program, and refuses what this agent cannot do
// rather than doing half of it.
func (t *task) asWhom() error {
	p := t.program
	if err := t.agrees(); err != nil {
		return err
	}
	if t.step == nil && t.job.Offer.User != "" && !p.EveryUser {
		// Who runs it is for the order to say: a service must not choose a user.
		return end(events.Rejected, events.OrderAltered, "the offer names user %q, but the program does not run once for every user", t.job.Offer.User)
	}
	place := identity.OnDP
	if manifest.External(t.manifest) {
		place = identity.External
	}
	answer, refused := identity.Decide(identity.Question{
		Client: t.facts.ClientKind, Run: p.Run, Content: place, InstallationAccount: p.InstallationAccount, DomainController: t.facts.DomainController,
	})
	if refused != nil && refused.Reason == events.NoNetworkIdentity {
		return t.noIdentity(manifest.Address(t.manifest, t.manifest.Files[slices.IndexFunc(t.manifest.Files, t.liesOutside)]), events.AccessContent)
	}
	if refused != nil {
		return end(events.Rejected, refused.Reason, "%s", refused.Text)
	}
	t.who = answer
	if needed := t.needed(); answer.Network == identity.Nobody && len(needed) > 0 {
		return t.noIdentity(needed[0].URL, events.AccessReference)
	}
	if !t.forUsers() && t.a.Runners[answer.Executor.Runner()] == nil {
		return end(events.Rejected, events.ContextUnsupported, "this agent has nothing that runs programs as %s", answer.Executor)
	}
	return nil
}

// noIdentity ends a job that would have to read outside by an account that is nobody there.
func (t *task) noIdentity(address, when string) error {
	reader := external.New(external.Options{Who: identity.Nobody, Resources: t.part().Resources, Clock: t.a.Clock, Told: t.accessed})
	defer reader.Close()
	_, err := reader.Open(t.a.ctx, address, when)
	return err
}

func (t *task) liesOutside(f events.File) bool { return manifest.Address(t.manifest, f) != "" }

// forUsers says that the job itself runs nothing: it opens one for every user who logs on.
func (t *task) forUsers() bool { return t.program.EveryUser && t.job.Offer.User == "" }

// needsLease says that the credential service must be there at the start.
func (t *task) needsLease() bool {
	if len(t.needed()) > 0 && (t.who.Network == identity.NetworkAccess || t.who.Network == identity.Installation) {
		return true
	}
	return t.who.Executor == identity.Installation || t.who.Executor == identity.DomainToken
}

// programName is the program's for the history. A step is never one that runs for every user.
func (t *task) programName() journal.ProgramName {
	p := t.part()
	name := journal.ProgramName{Package: p.Package, Version: p.Version, Program: p.Program}
	if t.step == nil {
		name.User = t.job.Offer.User
	}
	return name
}

// forEveryUser opens a job for every user who logs on, until the deployment's time is over. Each is a job of its
// own, with the user in its id, so that it is opened once, also by an agent that restarts, and without a broker.
func (t *task) forEveryUser(ctx context.Context) error {
	for {
		changed := t.a.Logon.Changed()
		if err := t.superseded(); err != nil {
			return err
		}
		d := t.timing()
		users, err := t.openForUsers(ctx, d.Verdict == timing.Start)
		switch {
		case err != nil:
			return err
		case d.Verdict == timing.TooLate && len(users) == 0:
			return t.tooLate()
		case d.Verdict == timing.TooLate:
			return &ending{events.Succeeded, events.NoReason, status{explanation: "the deployment's time is over; it ran for " + list(users)}}
		case d.Verdict != timing.Start:
			if err := t.waitUntil(ctx, d.Until, events.WaitAssignment, "starts at "+d.Until.Format(time.RFC3339)); err != nil {
				return err
			}
			continue
		}
		why := "runs once for every user who logs on; nobody did so far"
		if len(users) > 0 {
			why = "runs once for every user who logs on; so far for " + list(users)
		}
		t.pass(ctx, events.Waiting, status{waitingFor: events.WaitLogon, explanation: why})
		if err := t.waitChange(ctx, changed); err != nil {
			return err
		}
	}
}

// openForUsers opens the jobs that are missing for whoever is logged on, if it is time, and lists the users that
// have one.
func (t *task) openForUsers(ctx context.Context, now bool) (users []string, err error) {
	if now {
		sessions, err := t.a.Logon.Sessions()
		if err != nil {
			t.a.log.WarnContext(ctx, "sessions not read", "job", t.job.Offer.Job, "error", err)
		}
		for _, user := range logon.Users(t.atLogon(sessions)) {
			err := t.openFor(ctx, user)
			if errors.Is(err, errBusy) { // the next look tries again
				t.a.log.WarnContext(ctx, "a user's job is not opened yet", "job", t.job.Offer.Job, "user", user, "error", err)
				break
			}
			if err != nil {
				return nil, err
			}
		}
	}
	err = t.a.journal.Jobs(func(j journal.Job) error {
		if o := j.Offer; o.Deployment == t.deployment && o.Revision == t.revision && o.User != "" && !slices.Contains(users, o.User) {
			users = append(users, o.User)
		}
		return nil
	})
	slices.Sort(users)
	return users, err
}

func (t *task) openFor(ctx context.Context, user string) error {
	offer := t.job.Offer
	offer.User, offer.Attempt = user, 1
	offer.Job = events.JobID(offer.Deployment, offer.Revision, t.a.id, offer.Occurrence, user)
	if _, there, err := t.a.journal.Job(offer.Job); err != nil || there {
		return err
	}
	if err := t.a.Offer(ctx, offer, t.job.Trace, nil); err != nil {
		return err
	}
	t.say(info, "User %s is logged on: job %s runs the program for this user", user, offer.Job)
	return nil
}

func list(users []string) string {
	const most = 20
	if len(users) > most {
		return fmt.Sprintf("%s and %d others", strings.Join(users[:most], ", "), len(users)-most)
	}
	return strings.Join(users, ", ")
}
