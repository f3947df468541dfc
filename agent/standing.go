package agent

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/order"
	"chandler/events/timing"
)

// A standing order (see [order.Order.Standing]) is offered as one job, the umbrella, which runs nothing: it opens the
// occurrences, jobs of their own, as their time comes, until the deployment's is over. An occurrence's job and that it was
// opened are journalled in one, so that none is opened twice; what a machine missed several times is opened once. What
// stands in the way of one occurrence ends that one: execution, which follows the newest, would not offer the umbrella again.

// umbrella says that the job is the one of a standing order that runs nothing.
func (t *task) umbrella() bool { return t.order.Standing() && t.job.Offer.Occurrence == 0 }

// stood says that the job is an umbrella that opened occurrences, or waited to, before now.
func (t *task) stood() bool { return t.job.Openings != nil }

// hasOpened says that the job is an umbrella out of which an occurrence has come.
func (t *task) hasOpened() bool { return t.stood() && t.job.Openings.Last > 0 }

// isOccurrence says whether the job is the one that is offered for an order, or one that the order may open.
func (t *task) isOccurrence(o order.Order) bool {
	return t.job.Offer.Occurrence == o.Occurrence() || o.Standing() && t.job.Offer.Occurrence > 0
}

// openedHere ends a job that is offered as an occurrence which this agent did not open: its journal was lost. The umbrella
// is taken in instead, which opens what comes.
func (t *task) openedHere(ctx context.Context) error {
	if !t.order.Standing() || t.umbrella() || t.job.Occurrence != nil {
		return nil
	}
	offer := t.job.Offer
	offer.Occurrence, offer.Attempt = 0, 1
	offer.Job = events.JobID(offer.Deployment, offer.Revision, t.a.id, 0, offer.User)
	if err := t.a.Offer(ctx, offer, t.job.Trace, &events.Outstanding{Transition: math.MaxUint32}); err != nil {
		t.a.log.WarnContext(ctx, "standing order not taken in", "job", offer.Job, "error", err) // execution offers it again
	}
	return end(events.Rejected, events.OccurrenceUnknown, "this agent did not open occurrence %d of deployment %s; it opens those to come", t.job.Offer.Occurrence, t.deployment)
}

// standing opens the occurrences of a standing order until its time is over.
func (t *task) standing(ctx context.Context) error {
	for {
		logons := t.a.Logon.Changed()
		if err := t.superseded(); err != nil {
			return err
		}
		switch d := t.timing(); d.Verdict {
		case timing.TooLate:
			return t.standingOver()
		case timing.NotYet:
			if err := t.waitUntil(ctx, d.Until, events.WaitAssignment, "available from "+shown(d.Until)); err != nil {
				return err
			}
			continue
		}
		if !t.hasOpened() { // else an occurrence that finds no window any more is passed over
			if err := t.everFits(); err != nil {
				return err
			}
		}
		if err := t.openDue(ctx); err != nil {
			return err
		}
		if t.allOpened() {
			return t.standingOver()
		}
		next := timing.NextDue(t.order, t.machine(), t.openings().Newest, t.a.Clock())
		t.show(next)
		if err := t.fetchAhead(ctx, next, logons); err != nil {
			return err
		}
		t.pass(ctx, events.Waiting, status{waitingFor: events.WaitAssignment, explanation: t.standingWords(next)})
		if err := t.waitChange(ctx, either(ctx, logons, t.at(ctx, t.look(next)))); err != nil {
			return err
		}
	}
}

// look is when the umbrella has something to do by itself, and in a minute at the latest.
func (t *task) look(next time.Time) time.Time {
	now := t.a.Clock()
	at := now.Add(time.Minute)
	for _, other := range []time.Time{next, t.fetchAgain} {
		if other.After(now) && other.Before(at) {
			at = other
		}
	}
	return at
}

// allOpened says that no occurrence is to come any more, and one was there.
func (t *task) allOpened() bool {
	for i, a := range t.order.Assignments {
		if _, came := t.openings().Newest[i]; !came || !a.ASAP && a.At == nil {
			return false
		}
	}
	return len(t.order.Assignments) > 0 && t.hasOpened()
}

// persistAfter is how long an umbrella that failed waits before it begins anew.
const persistAfter = time.Minute

// persists says that an umbrella goes on in spite of a failure that others would be offered again after, once some time
// has passed or it is withdrawn.
func (t *task) persists(ctx context.Context, e *ending) bool {
	if !t.hasOpened() || e.state != events.Failed || e.reason.Info().Class.Retry().Attempts < 2 {
		return false
	}
	t.say(warning, "The standing order cannot go on, which is tried again after %s: %v", persistAfter, e)
	select {
	case <-ctx.Done():
	case <-t.stopped:
	case <-time.After(persistAfter):
	}
	return true
}

func (t *task) standingOver() error {
	if !t.hasOpened() {
		return t.tooLate()
	}
	return &ending{events.Succeeded, events.NoReason, status{explanation: "no occurrence is to come any more; those that were opened say for themselves how they ended"}}
}

// standingWords do not name the next time once there was an occurrence: that would be a status for each.
func (t *task) standingWords(next time.Time) string {
	if len(t.order.Assignments) == 0 {
		return "available: start it with chandler-agent install " + t.deployment
	}
	var all []string
	for _, a := range t.order.Assignments {
		all = append(all, a.String())
	}
	words := "runs " + strings.Join(all, ", ")
	if !next.IsZero() && !t.hasOpened() {
		words += "; next at " + shown(next)
	}
	return words
}

// openings is what the umbrella opened so far.
func (t *task) openings() *journal.Openings {
	if t.job.Openings == nil {
		t.job.Openings = &journal.Openings{}
	}
	if t.job.Openings.Newest == nil {
		t.job.Openings.Newest = map[int]int64{}
	}
	return t.job.Openings
}

// openDue opens the occurrences whose time has come.
func (t *task) openDue(ctx context.Context) error {
	now := t.a.Clock()
	heard, err := t.heedClock(ctx, now)
	if err != nil {
		return err
	}
	for _, due := range timing.Due(t.order, t.machine(), t.openings().Newest, heard, now) {
		err := t.open(ctx, opening{Opening: due, opened: now})
		if err != nil {
			return t.unlessBusy(ctx, err)
		}
	}
	return t.unlessBusy(ctx, t.openForSessions(ctx, heard, now))
}

// unlessBusy leaves what could not be opened for want of room to the next look.
func (t *task) unlessBusy(ctx context.Context, err error) error {
	if errors.Is(err, errBusy) {
		t.a.log.WarnContext(ctx, "an occurrence is not opened yet", "job", t.job.Offer.Job, "error", err)
		return nil
	}
	return err
}

// heedClock gives the time since which occurrences count. A clock that ran ahead when something was opened, and was set
// back since, begins anew: what recurs is due again from now on, but for the occurrences that are in the journal.
func (t *task) heedClock(ctx context.Context, now time.Time) (heard time.Time, err error) {
	o := t.openings()
	if heard = t.job.Heard; heard.IsZero() {
		heard = t.job.Opened
	}
	if !o.At.After(now.Add(order.ClockTolerance)) && !heard.After(now) {
		return heard, nil
	}
	for i, a := range t.order.Assignments {
		if a.Cron != "" {
			delete(o.Newest, i)
		}
	}
	o.At, t.job.Heard = now, now
	if o.Logon.After(now) {
		o.Logon = now
	}
	t.say(warning, "The clock was set back; occurrences count from %s on", shown(now))
	return now, t.journalled(ctx, func() error { return t.a.journal.Keep(t.job) })
}

// openForSessions opens an occurrence where users have logged on, and where the last one has logged off.
func (t *task) openForSessions(ctx context.Context, heard, now time.Time) error {
	logon := slices.IndexFunc(t.order.Assignments, func(a order.Assignment) bool { return a.Logon })
	logoff := slices.IndexFunc(t.order.Assignments, func(a order.Assignment) bool { return a.Logoff })
	if logon < 0 && logoff < 0 {
		return nil
	}
	sessions, err := t.a.Logon.Sessions()
	if err != nil {
		return nil // the next look finds out
	}
	o := t.openings()
	if o.Logon.IsZero() {
		o.Logon = heard
	}
	newest := o.Logon
	for _, s := range sessions {
		if s.Since.After(newest) {
			newest = s.Since
		}
	}
	if logon >= 0 && newest.After(o.Logon) {
		if err := t.open(ctx, opening{Opening: timing.Opening{Assignment: logon, Occurrence: t.nextNumber(now)}, opened: newest, logon: newest}); err != nil {
			return err
		}
	}
	switch {
	case logoff < 0:
		return nil
	case len(sessions) > 0:
		return t.sawUsers(sessions)
	case !t.job.SawUser:
		return nil
	}
	return t.open(ctx, opening{Opening: timing.Opening{Assignment: logoff, Occurrence: t.nextNumber(now)}, opened: now, sawUser: true})
}

// nextNumber is that of an occurrence which no time names.
func (t *task) nextNumber(now time.Time) int64 {
	return max(timing.NumberAt(t.order, t.machine(), now), t.openings().Last+1)
}

// opening is an occurrence to be opened.
type opening struct {
	timing.Opening
	opened  time.Time // since when it counts: of a logon, when that was
	logon   time.Time // of the session that it is opened for; zero: for none
	sawUser bool      // it is opened for a logoff
	askedBy string
}

// open opens an occurrence, unless it is there, would start together with one that waits to start, or its program is not
// to run again and a former occurrence has told so. Then it is passed over, and only the log says so.
func (t *task) open(ctx context.Context, what opening) error {
	offer, there, err := t.numbered(&what)
	if err != nil {
		return err
	}
	next, o := t.job, *t.openings()
	o.Newest = maps.Clone(o.Newest)
	why := "it was opened before"
	if there {
		o.Last = max(o.Last, what.Occurrence)
	} else if why = ""; what.askedBy == "" {
		if why, err = t.passesOver(ctx); err != nil {
			return err
		}
	}
	if why == "" {
		o.Last, o.At = max(o.Last, what.Occurrence), t.a.Clock()
	}
	if what.Assignment >= 0 {
		o.Newest[what.Assignment] = max(o.Newest[what.Assignment], what.Occurrence)
	}
	if what.logon.After(o.Logon) {
		o.Logon = what.logon
	}
	next.Openings, next.SawUser = &o, next.SawUser && !what.sawUser
	if why != "" {
		t.say(info, "Occurrence %d of deployment %s is passed over: %s", what.Occurrence, t.deployment, why)
		err = t.journalled(ctx, func() error { return t.a.journal.Keep(next) })
	} else {
		err = t.takeOut(ctx, next, journal.Job{Offer: offer, Trace: t.job.Trace, Opened: what.opened, SawUser: what.sawUser, AskedBy: what.askedBy, Occurrence: &journal.Occurrence{Assignment: what.Assignment}})
	}
	if err == nil {
		t.job = next
	}
	return err
}

// numbered gives the offer of an occurrence, and whether it was opened before. A number that execution offered before it
// was opened here is that of a job which this agent refused: the next one is taken.
func (t *task) numbered(what *opening) (offer events.JobOffer, there bool, err error) {
	offer = t.job.Offer
	for offer.Attempt = 1; ; what.Occurrence++ {
		offer.Occurrence = what.Occurrence
		offer.Job = events.JobID(offer.Deployment, offer.Revision, t.a.id, offer.Occurrence, "")
		job, known, err := t.a.journal.Job(offer.Job)
		if err != nil || !known || job.Occurrence != nil {
			return offer, known, err
		}
	}
}

// takeOut begins an occurrence, with what the umbrella is from then on. It fails with errBusy where there is no room.
func (t *task) takeOut(ctx context.Context, umbrella, occurrence journal.Job) error {
	var busy error
	err := t.journalled(ctx, func() error {
		err := t.a.take(occurrence, umbrella)
		if errors.Is(err, errBusy) {
			busy, err = err, nil
		}
		return err
	})
	if err != nil || busy != nil {
		return errors.Join(err, busy)
	}
	t.say(info, "Occurrence %d of deployment %s is opened as job %s", occurrence.Offer.Occurrence, t.deployment, occurrence.Offer.Job)
	return nil
}

// passesOver says why an occurrence that is due is not opened; "": it is.
func (t *task) passesOver(ctx context.Context) (why string, err error) {
	if job, err := t.waiting(); err != nil || job != "" {
		return "job " + job + " waits to start, and they start together", err
	}
	if !t.hasOpened() {
		return "", nil // that it will not run is told once
	}
	if err = t.everFits(); err == nil {
		err = t.stillToRun(ctx)
	}
	if e, ok := errors.AsType[*ending](err); ok && (e.state == events.WillNotRerun || e.reason == events.WindowNeverFits) {
		return e.detail.explanation, nil
	}
	return "", ctx.Err()
}

// waiting is the job of an occurrence that is under way and whose program has not started; "": there is none. One that is
// tried again later counts as none: it may wait for somebody whom this machine does not reach.
func (t *task) waiting() (id string, err error) {
	var live []string
	t.a.mu.Lock()
	for id, other := range t.a.tasks {
		if other != t && other.deployment == t.deployment && other.revision == t.revision {
			live = append(live, id)
		}
	}
	t.a.mu.Unlock()
	for _, id := range live {
		job, ok, err := t.a.journal.Job(id)
		if err != nil {
			return "", err
		}
		fresh := job.Last.State == "" || job.Last.State.BeforeRunning() && job.Last.State != events.Retrying
		if ok && job.Occurrence != nil && fresh && job.Started != job.Offer.Attempt {
			return id, nil
		}
	}
	return "", nil
}
