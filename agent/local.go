package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chandler/agent/local"
	"chandler/events"
	"chandler/events/timing"
)

// ask is a local user's word to start a job now.
type ask struct {
	caller local.Caller
	answer chan<- asked // has room
}

// asked is what came of it: words for the user, or a *local.Refused.
type asked struct {
	words string
	err   error
}

// askPatience is how long a job may take to hear a user: it may look at much that is slow, on a machine that is busy.
const askPatience = 15 * time.Second

// listenLocally serves the users of this machine until ctx is done. An agent that cannot listen does all else.
func (a *Agent) listenLocally(ctx context.Context) error {
	if a.LocalSocket == "" {
		return nil
	}
	s, err := local.Listen(local.Options{Path: a.LocalSocket, List: a.startable, Start: a.startFor, Log: a.log, Clock: a.Clock})
	if err != nil {
		a.log.WarnContext(ctx, "local users cannot start what is available", "socket", a.LocalSocket, "error", err)
		return nil
	}
	return s.Serve(ctx)
}

// startable lists what local users may start, by deployment: what was signed, verified and offered, and does not run yet.
func (a *Agent) startable(local.Caller) []local.Item {
	var items []local.Item
	for _, t := range a.startableTasks("") {
		if item := t.startable.Load(); item != nil { // it may have started meanwhile
			items = append(items, *item)
		}
	}
	slices.SortFunc(items, func(x, y local.Item) int { return strings.Compare(x.Deployment, y.Deployment) })
	return slices.CompactFunc(items, func(x, y local.Item) bool { return x.Deployment == y.Deployment })
}

// startableTasks are those of a deployment or, where there is none of that name, of a package; "": all. An occurrence that
// waits comes before the job that would open another.
func (a *Agent) startableTasks(name string) (found []*task) {
	var ofPackage []*task
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tasks {
		switch item := t.startable.Load(); {
		case item == nil:
		case name == "" || item.Deployment == name:
			found = append(found, t)
		case item.Package == name:
			ofPackage = append(ofPackage, t)
		}
	}
	if len(found) == 0 {
		found = ofPackage
	}
	slices.SortFunc(found, func(x, y *task) int { return cmp.Compare(y.opened, x.opened) })
	return found
}

// startFor starts what a local user names.
func (a *Agent) startFor(ctx context.Context, caller local.Caller, name string) (string, error) {
	found := a.startableTasks(name)
	if len(found) == 0 {
		return "", &local.Refused{Why: fmt.Sprintf("nothing is available here by the name %q, or it is under way; chandler-agent available lists what is", name)}
	}
	var deployments []string
	for _, t := range found {
		if !slices.Contains(deployments, t.deployment) {
			deployments = append(deployments, t.deployment)
		}
	}
	if len(deployments) > 1 {
		return "", &local.Refused{Why: fmt.Sprintf("several deployments of package %s are available: %s; name one of them", name, list(deployments))}
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	answer := make(chan asked, 1)
	select {
	case found[0].asks <- ask{caller, answer}:
	case <-ctx.Done():
		return "", &local.Refused{Why: "the agent is busy with it now; try again in a moment"}
	}
	select {
	case got := <-answer:
		return got.words, got.err
	case <-ctx.Done():
		return "", &local.Refused{Why: "the agent did not say in time whether it starts; chandler-agent status shows what runs"}
	}
}

// show lets local users see and start the job. next is when it starts by itself, where that is known.
func (t *task) show(next time.Time) {
	if t.program.EveryUser || t.job.AskedBy != "" {
		return
	}
	o, m := t.order, t.manifest
	t.startable.Store(&local.Item{Deployment: t.deployment, Package: o.Package, Version: o.Version, Program: o.Program, Publisher: m.Publisher, Category: m.Category,
		Comment: orDefault(t.program.Comment, m.Comment), Starts: next, Until: timing.Ends(o, t.machine())})
}

// heed does what a local user asks: the umbrella of a standing order opens an occurrence, any other job starts now, ahead
// of its time and outside of maintenance windows.
func (t *task) heed(ctx context.Context, q ask) error {
	words, err := t.startNow(ctx, q.caller)
	refused, ok := errors.AsType[*local.Refused](err)
	switch {
	case ok:
		t.say(info, "User %s asked to start deployment %s and was told: %s", q.caller.Name, t.deployment, refused.Why)
		err = nil
		q.answer <- asked{err: refused}
	case err != nil:
		q.answer <- asked{err: err}
	default:
		t.say(info, "User %s started deployment %s: %s", q.caller.Name, t.deployment, words)
		q.answer <- asked{words: words}
	}
	return err
}

func (t *task) startNow(ctx context.Context, caller local.Caller) (words string, err error) {
	if t.startable.Load() == nil || t.timing().Verdict == timing.TooLate {
		return "", &local.Refused{Why: "it is under way, or its time is over"}
	}
	if !t.umbrella() {
		t.job.AskedBy = caller.Name
		t.startable.Store(nil)
		return "it starts as soon as nothing else hinders it, as job " + t.job.Offer.Job, t.journalled(ctx, func() error { return t.a.journal.Keep(t.job) })
	}
	if job, err := t.waiting(); err != nil || job != "" {
		return "", orRefused(err, "it is under way as job "+job)
	}
	if err := t.stillToRun(ctx); err != nil {
		e, ok := errors.AsType[*ending](err)
		if !ok {
			return "", err
		}
		return "", &local.Refused{Why: e.detail.explanation}
	}
	now := t.a.Clock()
	what := opening{Opening: timing.Opening{Assignment: -1, Occurrence: t.nextNumber(now)}, opened: now, askedBy: caller.Name}
	switch err := t.open(ctx, what); {
	case errors.Is(err, errBusy):
		return "", &local.Refused{Why: "too many jobs are under way here; try again later"}
	case err != nil:
		return "", err
	}
	return "it starts as soon as nothing hinders it, as job " + events.JobID(t.deployment, t.revision, t.a.id, t.openings().Last, ""), nil
}

func orRefused(err error, why string) error {
	if err != nil {
		return err
	}
	return &local.Refused{Why: why}
}

// askedWords say who started the job; "": its time had come.
func (t *task) askedWords() string {
	if t.job.AskedBy == "" {
		return ""
	}
	return "started by local user " + t.job.AskedBy
}

// startWords are what is to be known of a start: who asked for it, and who runs it otherwise than one may expect.
func (t *task) startWords() string {
	return strings.Join(slices.DeleteFunc([]string{t.askedWords(), t.who.Note}, func(s string) bool { return s == "" }), "; ")
}

// asker is the user as whom a program runs because he asked for it; "": nobody in particular. Root asks for others.
func (t *task) asker() string {
	if t.job.AskedBy == "" || t.program.Run != events.RunUser || t.job.AskedBy == administrator {
		return ""
	}
	return t.job.AskedBy
}

// administrator asks without being one of those who are logged on.
const administrator = "root"
