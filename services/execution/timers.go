package execution

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

const (
	purposeRetry = "retry"
	// retrySlack is how long the sweep leaves a due retry to its timer.
	retrySlack = time.Minute
	// retryUnknown is the pause after a failure whose reason is not one that is tried again, but whose agent says so.
	retryUnknown = time.Hour
	// earlyTimer is how often a timer is heard before it is left to the sweep: it is set before the change that it belongs to is
	// stored, and this replica may not have read that yet; nor is anything stored where nothing changes, so that being behind shows in
	// no conflict.
	earlyTimer = 8
)

// retry is a job that is to be offered again.
type retry struct {
	job       job
	due       time.Time
	postponed bool // it was due before, and the budget had nothing left
}

// retryOf plans the retry of a job that says it is retrying. at is the agent's word, nil where it has none.
func retryOf(j job, at *time.Time) retry {
	if at != nil {
		return retry{job: j, due: *at}
	}
	return retry{job: j, due: retryDue(j)}
}

// retryDue derives the time from the record alone, for when the timer is lost.
func retryDue(j job) time.Time {
	pause, ok := j.reason.Info().Class.Retry().PauseFor(max(1, int(j.attempt)), j.id())
	if !ok {
		pause = retryUnknown
	}
	return j.changedAt().Add(pause)
}

// roundUp to a second that is to come: the broker cuts fractions off, and a timer must not be early.
func roundUp(due, now time.Time) time.Time {
	if earliest := now.Add(time.Second); due.Before(earliest) {
		due = earliest
	}
	if whole := due.Truncate(time.Second); !whole.Equal(due) {
		return whole.Add(time.Second)
	}
	return due
}

// retryKey names the attempt that failed; users come last because they may contain anything.
func retryKey(j job) string {
	return fmt.Sprintf("%d %d %d %s %s", j.revision, j.occurrence, j.attempt, j.agent, j.user)
}

func parseRetryKey(deployment, key string) (job, error) {
	parts := strings.SplitN(key, " ", 5)
	if len(parts) != 5 {
		return job{}, fmt.Errorf("key %q of a timer has %d parts", key, len(parts))
	}
	revision, err1 := strconv.ParseUint(parts[0], 10, 64)
	occurrence, err2 := strconv.ParseInt(parts[1], 10, 64)
	attempt, err3 := strconv.ParseUint(parts[2], 10, 16)
	if err := errors.Join(err1, err2, err3, events.ValidAgent(parts[3])); err != nil {
		return job{}, fmt.Errorf("key %q of a timer: %w", key, err)
	}
	return job{deployment: deployment, revision: revision, occurrence: occurrence, attempt: uint16(attempt), agent: parts[3], user: parts[4]}, nil
}

// timerMessage is the timer of a retry, which the broker publishes when it is due.
func (s *Service) timerMessage(r retry) (*nats.Msg, error) {
	key := retryKey(r.job)
	id := events.DeriveID("timer", purposeRetry, r.job.deployment, key)
	if r.postponed { // a timer of its own
		id = events.DeriveID("timer", purposeRetry, r.job.deployment, key, fmt.Sprint(r.due.UnixNano()))
	}
	m, err := bus.Message(events.TimerDue, events.Event[events.TimerNote]{
		ID: id, Source: s.bus.Source(), Subject: "execution", Time: s.now(),
		Data: events.TimerNote{Service: "execution", Purpose: purposeRetry, Name: r.job.deployment, Key: key, Due: r.due.UTC()}})
	if err != nil {
		return nil, err
	}
	m.Subject = events.TimerSubject("execution", r.job.id())
	m.Header.Set(jetstream.ScheduleHeader, "@at "+roundUp(r.due, s.now()).UTC().Format(time.RFC3339))
	m.Header.Set(jetstream.ScheduleTargetHeader, events.TimerDue.Subject("execution"))
	return m, nil
}

// handleTimers offers retrying jobs again when their time has come.
func (s *Service) handleTimers(ctx context.Context) error {
	c := bus.Consumer{Stream: events.StreamTimers, Name: "execution-timers", Filters: []string{events.TimerDue.Subject("execution")}}
	return s.bus.Handle(ctx, c, bus.On(events.TimerDue, s.timerDue))
}

// timerDue looks at the present state: the job may have moved on, or be offered again by another replica.
func (s *Service) timerDue(ctx context.Context, e events.Event[events.TimerNote], meta bus.Meta) error {
	if e.Data.Purpose != purposeRetry {
		return bus.Drop("unknown_timer", fmt.Errorf("purpose %q", e.Data.Purpose))
	}
	want, err := parseRetryKey(e.Data.Name, e.Data.Key)
	if err != nil {
		return bus.Drop("bad_timer", err)
	}
	p, early := s.partitionOf(want.agent), false
	err = s.change(ctx, p, func(jobs *jobs) outcome {
		o := unchanged(jobs)
		j, ok := jobs.find(want.key())
		same := ok && j.revision == want.revision && j.occurrence == want.occurrence && j.attempt == want.attempt
		early = !ok || same && j.state != events.Retrying && !j.state.Terminal()
		switch {
		case !same || !s.mayRetry(j):
		case s.mayTryAgain(p, &o):
			s.offerAgain(j, int(j.attempt)+1, &o)
		default:
			o.retries = append(o.retries, s.postpone(p, j))
		}
		return o
	})
	if err == nil && early && meta.Delivered < earlyTimer {
		return fmt.Errorf("the retry of attempt %d of %s for %s is not known here yet", want.attempt, want.deployment, want.agent)
	}
	return err
}

// mayRetry says whether a job that says it is retrying may be offered again, its budget apart. Of a halted deployment the
// sweep offers it again when it is resumed.
func (s *Service) mayRetry(j job) bool {
	if j.state != events.Retrying {
		return false
	}
	k, ok := s.orders.revision(j.deployment, j.revision)
	_, stopped := s.control.stop(j.deployment, j.revision)
	_, halted := s.control.halted(j.deployment, j.revision)
	return ok && !stopped && !halted && s.now().Before(k.over())
}

// sweepOften looks at every record for what no event will bring.
func (s *Service) sweepOften(ctx context.Context) error {
	return s.every(ctx, s.pace.sweep, nil, "sweep", func(ctx context.Context) error {
		var errs []error
		for _, p := range s.partitions {
			errs = append(errs, s.changeEach(ctx, p, "", func(j job) bool { return s.overdue(j) != nothing }, s.settle))
		}
		return errors.Join(errs...)
	})
}

// due names what a sweep does about a job.
type due int

const (
	nothing due = iota
	cancel      // its deployment is stopped and its agent was not told
	lapse       // its order's time is over and its agent did not say how it ended
	again       // its retry is due and its timer was lost
	unheard     // its agent has said nothing for too long
	awaited     // it counts as silent, and its plan now gives its agent longer
)

func (s *Service) overdue(j job) due {
	if j.state.Terminal() && j.occurrence == 0 {
		return nothing // nothing comes of it, see lives
	}
	k, ok := s.orders.revision(j.deployment, j.revision)
	if !ok {
		return nothing
	}
	_, stopped := s.control.stop(j.deployment, j.revision)
	now := s.now()
	switch {
	case stopped && j.flags&flagCancel == 0 && s.lives(j):
		return cancel
	case j.state.Terminal():
		return nothing
	case j.flags&flagLapsed == 0 && now.After(k.over().Add(s.pace.lapse)):
		return lapse
	case s.mayRetry(j) && now.After(retryDue(j).Add(retrySlack)):
		return again
	case j.flags&quiet == 0 && now.Sub(j.changedAt()) > s.patience(k, j):
		return unheard
	case j.flags&quiet == flagSilent && now.Sub(j.changedAt()) <= s.patience(k, j):
		return awaited
	}
	return nothing
}

// longestRun is what the original assumes of a program whose run time is unknown (domain-facts §0.6).
const longestRun = 12 * time.Hour

// patience is how long an agent may say nothing about a job in this state before it counts as silent: after an
// offer as long as the gate of its phase says. Jobs that wait may do so until their order's end.
func (s *Service) patience(k *known, j job) time.Duration {
	switch j.state {
	case events.Offered:
		return k.silence(j.wave, s.silence)
	case events.Accepted, events.Downloading, events.Downloaded:
		return s.silence
	case events.Running:
		return s.silence + longestRun
	}
	return math.MaxInt64
}

func (s *Service) settle(j job, o *outcome) {
	switch s.overdue(j) {
	case cancel:
		mark, _ := s.control.stop(j.deployment, j.revision)
		o.cancels = append(o.cancels, mark.cancel(j.agent))
		j.flags |= flagCancel
	case lapse:
		o.ends = append(o.ends, s.silentEnd(j))
		j.flags |= flagLapsed
	case again:
		if s.mayTryAgain(s.partitionOf(j.agent), o) {
			s.offerAgain(j, int(j.attempt)+1, o)
		}
		return
	case unheard:
		j.flags |= flagSilent
	case awaited:
		j.flags &^= flagSilent
	default:
		return
	}
	o.delta.jobs = append(o.delta.jobs, j)
}

// silentEnd is the end of a job of which its agent did not speak in time.
func (s *Service) silentEnd(j job) events.JobEnd {
	k, ok := s.orders.revision(j.deployment, j.revision)
	if !ok {
		k = &known{}
	}
	return events.JobEnd{Silent: true, JobStatus: events.JobStatus{
		Job: j.id(), Deployment: j.deployment, Revision: j.revision, Order: k.Order, Agent: j.agent, Package: k.Package, Version: k.Version, Program: k.Program,
		Occurrence: j.occurrence, User: j.user, Attempt: max(1, int(j.attempt)),
		Transition: j.transition, State: j.state, Reason: events.AgentSilent,
		Explanation: "the order's time is over and the agent did not say how the job ended", At: s.now().UTC()}}
}
