package execution

import (
	"cmp"
	"math"
	"slices"
	"time"

	"chandler/events"
)

// record is what is kept of one job: the latest occurrence of the newest revision of one deployment, for
// one agent (and user). There are millions of them, so it stays within 24 bytes.
type record struct {
	occurrence int64
	changed    uint32 // Unix seconds, by the agent's clock; of an offer by ours
	transition uint32 // highest folded; 0: the agent has said nothing
	attempt    uint16 // highest offered or heard of
	revision   uint16 // index into the deployment's revisions
	stage      uint8  // index into events.States(), and above it index into codes.waiting: [stageOf]
	reason     uint8  // index into codes.reasons
	wave       uint8  // index of the phase in which the agent was released
	flags      uint8
}

// stageBits are those of the state in a stage.
const stageBits = 4

// stageOf puts the codes of a state and of what is waited for into one byte.
func stageOf(state, waiting uint8) uint8 { return waiting<<stageBits | state }

func (r record) state() uint8   { return r.stage & (1<<stageBits - 1) }
func (r record) waiting() uint8 { return r.stage >> stageBits }

const (
	// flagSilent: nothing was heard of it for as long as [Service.patience] says.
	flagSilent = 1 << iota
	// flagLapsed: the order's time is over and the agent never said how the job ended; it was finished as silent.
	flagLapsed
	// flagCancel: a stop was sent to the agent.
	flagCancel
	// flagJoined: the agent came after its phase had opened, and counts in no gate.
	flagJoined
	// flagStray: no release of this revision names the agent, as far as is known. Whatever it says, it counts in no phase and
	// at no site: gates and limits are for those who were handed over.
	flagStray
	// flagClosed: the job without an occurrence has ended for good; of a standing order, whose record keeps the latest
	// occurrence: the agent will open no further one.
	flagClosed
)

// quiet are the flags of a job of which its agent does not speak.
const quiet = flagSilent | flagLapsed

// codes turn the words of a record into single bytes and back. They are the same in no two versions of
// this program; what is stored holds the words.
type codes struct {
	states  []events.State
	reasons []events.Reason // sorted; the first is none
	waiting []events.WaitingFor
	// standings are what a state and a reason mean for a rollout, by state and within it by reason.
	standings []standing
}

func newCodes() codes {
	reasons := append(events.Reasons(), events.NoReason)
	slices.Sort(reasons)
	c := codes{states: events.States(), reasons: slices.Compact(reasons), waiting: []events.WaitingFor{"",
		events.WaitContent, events.WaitLogon, events.WaitLogoff, events.WaitMaintenanceWindow, events.WaitAssignment, events.WaitDependency,
		events.WaitReboot, events.WaitSlot, events.WaitClock, events.WaitContact, events.WaitFreeze}}
	for _, state := range c.states {
		for _, reason := range c.reasons {
			c.standings = append(c.standings, newStanding(state, reason))
		}
	}
	return c
}

func (c codes) state(s events.State) uint8 {
	if i := slices.Index(c.states, s); i >= 0 {
		return uint8(i)
	}
	return uint8(slices.Index(c.states, events.OtherState))
}

func (c codes) reason(r events.Reason) uint8 {
	i, found := slices.BinarySearch(c.reasons, r)
	if !found {
		i, _ = slices.BinarySearch(c.reasons, events.OtherReason)
	}
	return uint8(i)
}

// waits codes what a job waits for; 0 for what this version does not know.
func (c codes) waits(w events.WaitingFor) uint8 {
	return uint8(max(0, slices.Index(c.waiting, w)))
}

// job is one record with its names: how changes are computed, stored and shown.
type job struct {
	deployment  string
	agent, user string
	revision    uint64
	occurrence  int64
	changed     uint32
	transition  uint32
	attempt     uint16
	state       events.State
	reason      events.Reason
	waiting     events.WaitingFor
	wave        uint8
	flags       uint8
}

// jobKey names a record: there is one for each deployment, agent and user.
type jobKey struct{ deployment, agent, user string }

func (j job) key() jobKey { return jobKey{j.deployment, j.agent, j.user} }

func (j job) id() string {
	return events.JobID(j.deployment, j.revision, j.agent, j.occurrence, j.user)
}

func (j job) changedAt() time.Time { return time.Unix(int64(j.changed), 0).UTC() }

func (j job) row() events.JobRow {
	return events.JobRow{Job: j.id(), Deployment: j.deployment, Revision: j.revision, Agent: j.agent, User: j.user, Occurrence: j.occurrence,
		State: j.state, Reason: j.reason, WaitingFor: j.waiting, Attempt: int(j.attempt), Silent: j.flags&quiet != 0, Changed: j.changedAt()}
}

// offered is the job after it was offered (again): what the agent said before stays known by its
// transition number, so that a late repetition of it changes nothing.
func (j job) offered(attempt int, now time.Time) job {
	j.state, j.reason, j.waiting, j.flags = events.Offered, events.NoReason, "", j.flags&(flagJoined|flagStray|flagClosed)
	j.attempt, j.changed = clampAttempt(attempt), unix(now)
	return j
}

// released is the job in the phase of a release.
func (j job) released(r events.Release) job {
	j.wave, j.flags = uint8(r.Phase), j.flags&^(flagJoined|flagStray)
	if r.Joined {
		j.flags |= flagJoined
	}
	return j
}

// known is the job as one of which an agent that has it has nothing to tell.
func (j job) known() job {
	j.state, j.transition = events.Waiting, math.MaxUint32
	return j
}

// take gives the record after a status, and whether it differs. The outcome for any set of statuses does
// not depend on their order or on repetitions: the newest revision wins, then the latest occurrence, then
// the highest transition, which counts over the whole job in the agent's journal; the attempt is the
// highest of any of them.
func (j job) take(s events.JobStatus) (after job, changed bool) {
	attempt := clampAttempt(s.Attempt)
	same := j.revision == s.Revision && j.occurrence == s.Occurrence
	closed := closing(s)
	switch {
	case j.revision > s.Revision:
		return j, false
	case j.revision == s.Revision && j.occurrence > s.Occurrence:
		changed = closed&^j.flags != 0
		j.flags |= closed
		return j, changed
	case same && j.transition >= s.Transition:
		changed = attempt > j.attempt || closed&^j.flags != 0
		j.attempt, j.flags = max(j.attempt, attempt), j.flags|closed
		return j, changed
	case same:
		attempt = max(attempt, j.attempt)
	}
	after = job{deployment: s.Deployment, agent: s.Agent, user: s.User, revision: s.Revision, occurrence: s.Occurrence,
		changed: unix(s.At), transition: s.Transition, attempt: attempt, state: s.State, reason: s.Reason, waiting: s.WaitingFor}
	if j.revision != s.Revision {
		after.flags = flagStray | closed
		return after, true
	}
	// A cancellation names a revision, not an occurrence; so does a release, which puts an agent into a phase.
	after.wave, after.flags = j.wave, closed|j.flags&(flagCancel|flagJoined|flagStray|flagClosed)
	return after, true
}

// closing is flagClosed for a status that sets it.
func closing(s events.JobStatus) uint8 {
	if s.Occurrence == 0 && (s.State == events.Succeeded || s.State == events.Cancelled || s.State == events.Expired) {
		return flagClosed
	}
	return 0
}

// newerThan compares two states of the same record by what can only grow.
func (j job) newerThan(old job) bool {
	return cmp.Or(cmp.Compare(j.revision, old.revision), cmp.Compare(j.occurrence, old.occurrence),
		cmp.Compare(j.transition, old.transition), cmp.Compare(j.attempt, old.attempt)) > 0
}

// superseded says that a status is about an older job than the record: it changes no count, but if that
// job has ended, its end is still to be told.
func (j job) superseded(s events.JobStatus) bool {
	return j.revision > s.Revision || j.revision == s.Revision && j.occurrence > s.Occurrence
}

func clampAttempt(n int) uint16 { return uint16(min(max(n, 0), math.MaxUint16)) }

func unix(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), math.MaxUint32)) }
