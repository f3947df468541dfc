package rehearsal

import (
	"time"

	"chandler/events"
	"chandler/events/order"
	"chandler/events/platform"
	"chandler/events/timing"
)

// agent is a machine of the target, and its newest job.
type agent struct {
	machine Machine
	who     timing.Machine
	site    *site
	place   float64
	last    timing.Last // how the program ended there
	ends    time.Time   // when nothing starts there any more
	story   AgentStory

	epoch   uint32 // counts the ways that the job took
	silent  bool
	fetched bool
	windows *windowSet // nil: it starts at any time
	heard   time.Time  // of the order
	since   time.Time  // as timing.Decide's heard, of the occurrence
	missed  bool       // it was away when the occurrence was to be looked at
	back    bool       // since is when it was back after its time
	due     bool       // the occurrence's time has come
	attempt int
	current timing.Opening
	opened  map[int]int64 // of a standing order
}

// move brings a job into a state. What was foreseen of it before is overlooked.
func (s *play) move(i int, to events.State, reason events.Reason, waits events.WaitingFor) {
	a := &s.agents[i]
	s.tally(a, -1)
	a.epoch++
	a.silent = false
	a.story.State, a.story.Reason, a.story.Waits = to, reason, waits
	a.story.Ended = time.Time{}
	if to.Terminal() {
		a.story.Ended = s.now
		switch to {
		case events.Succeeded:
			s.hour().Succeeded++
		case events.Failed:
			s.hour().Failed++
		}
	}
	s.tally(a, 1)
}

func (s *play) silent(i int) {
	a := &s.agents[i]
	if a.story.State != events.Offered {
		return
	}
	s.tally(a, -1)
	a.silent = true
	s.tally(a, 1)
}

// later has the job wait, and try again at a time; zero: never. It ends when the order does.
func (s *play) later(i int, at time.Time, what kind, waits events.WaitingFor) {
	s.move(i, events.Waiting, events.NoReason, waits)
	s.again(i, at, what)
}

// again foresees the job's next step, or its end where the order ends before; what was foreseen of it before is overlooked.
func (s *play) again(i int, at time.Time, what kind) {
	a := &s.agents[i]
	a.epoch++
	if at.IsZero() || !at.Before(a.ends) {
		s.foresee(a.ends, expires, i)
		return
	}
	s.foresee(at, what, i)
}

// hears is when the agent reads its offer, and finds out whether the program is to run there at all.
func (s *play) hears(i int) {
	a := &s.agents[i]
	a.heard = s.now
	s.begins(a)
	if state, reason := s.refuses(a); reason != events.NoReason {
		s.move(i, state, reason, "")
		return
	}
	if !s.order.IgnoreWindows {
		a.windows = s.member.windows(a.machine.Facts)
	}
	if len(s.order.Assignments) > 0 && s.neverFits(a, s.now) {
		s.move(i, events.Failed, events.WindowNeverFits, "")
		return
	}
	if s.order.Standing() {
		a.opened = map[int]int64{}
		s.opens(i)
		return
	}
	a.current = timing.Opening{Occurrence: s.order.Occurrence()}
	s.tries(i)
}

// neverFits says that from a time on no maintenance window opens any more, before the order ends, in which the program
// could start: the agent fails it at once then, rather than wait for its end.
func (s *play) neverFits(a *agent, at time.Time) bool {
	if a.windows == nil {
		return false
	}
	fit := a.windows.fit(a.who, at, s.need)
	return fit.Never || !fit.Open && !fit.Next.Before(a.ends)
}

// refuses is why the program does not run on a machine, whenever it is.
func (s *play) refuses(a *agent) (events.State, events.Reason) {
	if platform.Refuses(s.in.Program.Platforms, a.machine.Facts) != "" {
		return events.Rejected, events.PlatformUnsupported
	}
	if s.needs != nil {
		applies, err := s.needs.Eval(a.machine.Facts)
		switch {
		case err != nil:
			return events.Rejected, events.RequirementsUnknown
		case !applies:
			return events.Rejected, events.RequirementsNotMet
		}
	}
	if s.order.Rolls != nil && !a.machine.Rolls {
		return events.Rejected, events.NothingToRollBack
	}
	if !s.order.Standing() && !timing.RunsAgain(s.order.Rerun, a.last) {
		return events.WillNotRerun, events.AlreadyRan
	}
	return "", events.NoReason
}

// opens looks which occurrence of a standing order is due.
func (s *play) opens(i int) {
	a := &s.agents[i]
	if there := a.machine.there(s.in.Recorded, s.now); !there.Equal(s.now) {
		s.pause(i, there)
		return
	}
	if timing.Standing(s.order, a.who, s.now).Verdict == timing.Start {
		s.fetch(a)
	}
	for {
		due := s.due(a)
		if len(due) == 0 {
			s.pause(i, timing.NextDue(s.order, a.who, a.opened, s.now))
			return
		}
		a.current = due[0]
		first := len(a.opened) == 0
		a.opened[a.current.Assignment] = a.current.Occurrence
		if timing.RunsAgain(s.order.Rerun, a.last) {
			s.begins(a)
			s.tries(i)
			return
		}
		if first { // once it is told, later ones are skipped quietly
			s.move(i, events.WillNotRerun, events.AlreadyRan, "")
		}
	}
}

// due are the occurrences that are to be opened. Who logs on or off is not recorded: it counts as happening once, at once.
func (s *play) due(a *agent) []timing.Opening {
	due := timing.Due(s.order, a.who, a.opened, a.heard, s.now)
	if timing.Standing(s.order, a.who, s.now).Verdict != timing.Start {
		return due
	}
	for i, assignment := range s.order.Assignments {
		if (assignment.Logon || assignment.Logoff) && a.opened[i] == 0 {
			due = append(due, timing.Opening{Assignment: i, Occurrence: s.now.Unix(), At: s.now})
		}
	}
	return due
}

// pause waits for the next occurrence. A job that ended stays as it ended until then.
func (s *play) pause(i int, until time.Time) {
	a := &s.agents[i]
	if !a.story.State.Terminal() {
		s.later(i, until, opens, events.WaitAssignment)
		return
	}
	a.epoch++
	if !until.IsZero() && until.Before(a.ends) {
		s.foresee(until, opens, i)
	}
}

// tries starts the job, or has it wait for what keeps it.
func (s *play) tries(i int) {
	a := &s.agents[i]
	if there := a.machine.there(s.in.Recorded, s.now); !there.Equal(s.now) {
		a.missed = true
		s.again(i, there, tries)
		return
	}
	d := s.decide(a)
	switch d.Verdict {
	case timing.TooLate:
		s.move(i, events.Expired, events.DeploymentExpired, "")
		return
	case timing.NotYet:
		s.later(i, d.Until, tries, events.WaitAssignment)
		return
	}
	begins := s.now
	if d.Verdict == timing.Prepare {
		begins = d.Until
	}
	if s.neverFits(a, begins) {
		if a.story.State.Terminal() { // a later occurrence is passed over
			s.next(i)
			return
		}
		s.move(i, events.Failed, events.WindowNeverFits, "")
		s.next(i)
		return
	}
	s.fetch(a)
	switch {
	case d.Verdict == timing.Prepare:
		s.later(i, d.Until, tries, events.WaitAssignment)
		return
	case s.frozen:
		s.later(i, time.Time{}, tries, events.WaitFreeze)
		s.held = append(s.held, holding{i, a.epoch})
		return
	}
	if a.windows != nil {
		if fit := a.windows.fit(a.who, s.now, s.need); !fit.Open {
			s.later(i, fit.Next, tries, events.WaitMaintenanceWindow)
			return
		}
	}
	s.starts(i)
}

// decide says whether the occurrence's time has come. A machine that was away then counts from when it is back, once.
func (s *play) decide(a *agent) timing.Decision {
	if a.due {
		return timing.Standing(s.order, a.who, s.now)
	}
	var assignment order.Assignment
	if len(s.order.Assignments) > 0 {
		assignment = s.order.Assignments[a.current.Assignment]
	}
	if a.missed && !a.back && !s.now.Before(timing.StartOf(s.order, assignment, a.current.Occurrence, a.who, a.since)) {
		a.since, a.back = s.now, true
	}
	a.missed = false
	d := timing.Decide(s.order, assignment, a.current.Occurrence, a.who, a.since, s.now)
	a.due = d.Verdict == timing.Start
	return d
}

// begins an occurrence.
func (s *play) begins(a *agent) {
	a.since, a.missed, a.back, a.due, a.attempt = s.now, false, false, false, 1
}

// holding is a job that a halt keeps from starting.
type holding struct {
	agent int
	epoch uint32
}

func (s *play) starts(i int) {
	a := &s.agents[i]
	if s.in.Identity != nil {
		if reason := s.in.Identity(a.machine.Facts); reason != events.NoReason {
			s.move(i, events.Failed, reason, "")
			s.next(i)
			return
		}
	}
	s.move(i, events.Running, events.NoReason, "")
	a.story.Started = s.now
	a.story.Runs++
	s.hour().Started++
	took := s.in.Outcome(a.who.ID, a.attempt).Took
	s.foresee(s.now.Add(min(max(took, 0), s.in.Program.RunTime())), ends, i)
}

// programEnds judges how; a failure that is tried again has its pause and takes its turn.
func (s *play) programEnds(i int) {
	a := &s.agents[i]
	r := s.in.Outcome(a.who.ID, a.attempt)
	if r.Took > s.in.Program.RunTime() {
		r.Reason = events.RunTimeExceeded
	}
	if r.Reason == events.NoReason {
		a.last = timing.LastSucceeded
		s.move(i, events.Succeeded, events.NoReason, "")
		s.next(i)
		return
	}
	a.last = timing.LastFailed
	pause, again := r.Reason.Info().Class.Retry().PauseFor(a.attempt, s.job(a))
	if !again {
		s.move(i, events.Failed, r.Reason, "")
		s.next(i)
		return
	}
	s.move(i, events.Retrying, r.Reason, "")
	s.line.Retries++
	a.attempt++
	s.again(i, s.retry.at(s.now.Add(pause)), tries)
}

// job is the id of the agent's present job, by which its pauses are jittered.
func (s *play) job(a *agent) string {
	return events.JobID(s.order.Deployment, s.order.Revision, a.who.ID, a.current.Occurrence, "")
}

// next goes on with a standing order.
func (s *play) next(i int) {
	if a := &s.agents[i]; s.order.Standing() {
		s.pause(i, timing.NextDue(s.order, a.who, a.opened, s.now))
	}
}

// fetch counts the download, once.
func (s *play) fetch(a *agent) {
	if a.fetched || s.in.Bytes == 0 {
		return
	}
	a.fetched = true
	h := s.hour()
	h.Bytes += s.in.Bytes
	s.loads[siteHour{a.site.name, h.At.Unix()}] += s.in.Bytes
}
