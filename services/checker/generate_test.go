package checker

import (
	"fmt"
	"math/rand"
	"slices"
	"time"

	"chandler/events"
)

// world makes evidence of a fleet in which everything went as it should.
type world struct {
	*rand.Rand
	e     Evidence
	now   time.Time
	seq   uint64
	times map[uint64]time.Time // of sequences
	batch map[string]int
}

// The deployments of a world.
const (
	plain, stopped, revised, standing, forUsers, gone, quiet, busy = "plain", "stopped", "revised", "standing", "for-users", "gone", "quiet", "busy"
)

func newWorld(seed int64) *world {
	return &world{Rand: rand.New(rand.NewSource(seed)), now: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC), batch: map[string]int{}, times: map[uint64]time.Time{},
		e: Evidence{Orders: []Order{}, Stops: []Stop{}, Released: []Release{}, Counts: []Count{}, Offers: []Offer{}, Stored: []Status{}, Acknowledged: []Ack{}, Journals: []Journal{},
			Runs: []Run{}, Jobs: []events.JobRow{}, Finished: []End{}, History: []End{}, Since: map[Witness]time.Time{}, OffersSince: map[string]time.Time{},
			Away: map[string]bool{}, Open: map[string]bool{}}}
}

// generate makes evidence of every deployment to so many agents.
func generate(seed int64, agents int) Evidence { return live(seed, agents).e }

func live(seed int64, agents int) *world {
	w := newWorld(seed)
	for _, d := range []string{plain, stopped, revised, standing, forUsers, gone, quiet, busy} {
		w.order(d, 1, d == standing)
	}
	all := make([]string, agents)
	for i := range all {
		all[i] = events.AgentID(fmt.Appendf(nil, "%d of %d", i, seed))
	}
	w.release(revised, 1, all[:agents/2])
	w.revise(all)
	for _, d := range []string{plain, stopped, standing, forUsers, gone, busy} {
		w.release(d, 1, all)
		for _, agent := range all {
			w.deployed(d, agent)
		}
		if d != stopped { // more are released below
			w.e.Counts = append(w.e.Counts, Count{d, 1, len(all)})
		}
	}
	w.release(quiet, 1, all)
	for i, agent := range all {
		w.silent(agent, i%3 == 0)
	}
	w.e.Stops = append(w.e.Stops, Stop{stopped, 1, false, w.tick()}, Stop{gone, 1, true, w.tick()})
	w.release(stopped, 1, []string{events.AgentID([]byte("too late"))})
	return w
}

func (w *world) tick() time.Time {
	w.now = w.now.Add(time.Duration(1+w.Intn(20)) * time.Millisecond)
	return w.now
}

// next is the sequence of a message that is stored now, in whichever stream.
func (w *world) next() uint64 {
	w.seq++
	w.times[w.seq] = w.tick()
	return w.seq
}

func digest(deployment string, revision uint64) string {
	return events.DigestOf(fmt.Appendf(nil, "%s %d", deployment, revision))
}

func (w *world) order(deployment string, revision uint64, stands bool) {
	w.e.Orders = append(w.e.Orders, Order{deployment, revision, digest(deployment, revision), stands, 0, w.tick()})
}

// release hands agents over, and sometimes tells of it twice.
func (w *world) release(deployment string, revision uint64, agents []string) {
	for batch := range slices.Chunk(agents, 100) {
		r := Release{Deployment: deployment, Revision: revision, Order: digest(deployment, revision), Wave: "1", Batch: w.batch[deployment], Agents: batch, At: w.tick(), Sequence: w.next()}
		w.batch[deployment]++
		w.e.Released = append(w.e.Released, r)
		if w.Intn(3) == 0 {
			r.Sequence = w.next()
			w.e.Released = append(w.e.Released, r)
		}
	}
}

// revise replaces a revision: what had not run of it is cancelled, and nobody else is offered it.
func (w *world) revise(agents []string) {
	for _, agent := range agents[:len(agents)/4] {
		t := w.told(revised, 1, agent, 0, "")
		t.offer(1)
		t.say(events.Accepted, "")
		t.say(events.Cancelled, events.DeploymentStopped)
		t.row = false // of the newer one alone
		t.close()
	}
	w.order(revised, 2, false)
	w.release(revised, 2, agents)
	for _, agent := range agents {
		w.deployed(revised, agent)
	}
	w.e.Counts = append(w.e.Counts, Count{revised, 2, len(agents)})
}

// deployed is the story of one agent and one deployment.
func (w *world) deployed(deployment, agent string) {
	switch deployment {
	case plain:
		w.simple(w.told(deployment, 1, agent, 0, ""))
	case revised:
		w.simple(w.told(deployment, 2, agent, 0, ""))
	case busy:
		w.again(w.told(deployment, 1, agent, 0, ""))
	case stopped:
		w.halted(w.told(deployment, 1, agent, 0, ""))
	case standing:
		t := w.told(deployment, 1, agent, 0, "")
		t.offer(1)
		t.say(events.Accepted, "")
		t.say(events.Waiting, "")
		t.row = false
		t.close()
		for i := range 3 {
			o := w.told(deployment, 1, agent, int64(100+i), "")
			o.row = i == 2
			o.attempt(1, events.Succeeded, "", 0)
			o.close()
		}
	case forUsers:
		t := w.told(deployment, 1, agent, 0, "")
		t.offer(1)
		t.say(events.Accepted, "")
		t.say(events.Waiting, "")
		t.close()
		for _, user := range []string{"ada", "grace"} {
			o := w.told(deployment, 1, agent, 0, user)
			o.attempt(1, events.Succeeded, "", 0)
			o.close()
		}
	case gone:
		t := w.told(deployment, 1, agent, 0, "")
		t.offer(1)
		t.attempt(1, events.Succeeded, "", 0)
		t.row, t.ends = false, w.Intn(2) == 0
		t.close()
	}
}

// simple ends in any of the ways that take one attempt.
func (w *world) simple(t *telling) {
	t.offer(1)
	switch w.Intn(8) {
	default:
		t.attempt(1, events.Succeeded, "", 0)
	case 1:
		t.attempt(1, events.Failed, events.ExitCode, 1603)
	case 2:
		t.attempt(1, events.Failed, events.NotDetected, 0)
	case 3:
		t.say(events.Rejected, events.NotTargeted)
	case 4:
		t.say(events.Accepted, "")
		t.say(events.WillNotRerun, events.AlreadyRan)
	case 5:
		t.say(events.Accepted, "")
		t.say(events.Waiting, "")
		t.say(events.Expired, events.DeploymentExpired)
	case 6:
		t.say(events.Accepted, "")
		t.say(events.Succeeded, events.AlreadyInstalled)
	}
	t.close()
}

// again fails and is tried again, by itself or by an administrator.
func (w *world) again(t *telling) {
	t.offer(1)
	if w.Intn(2) == 0 {
		t.attempt(1, events.Retrying, events.InstallerBusy, 1618)
	} else {
		t.attempt(1, events.Failed, events.ExitCode, 1603)
	}
	t.offer(2)
	if w.Intn(2) == 0 {
		t.say(events.Accepted, "")
		t.say(events.Downloading, "")
		t.say(events.Retrying, events.ContentUnavailable)
		t.offer(3)
	}
	t.attempt(t.offered, events.Succeeded, "", 0)
	t.close()
}

// halted was stopped before it ran, while it ran, between two attempts, or too late.
func (w *world) halted(t *telling) {
	t.offer(1)
	switch w.Intn(4) {
	case 0:
		t.attempt(1, events.Succeeded, "", 0)
	case 1:
		t.attempt(1, events.Cancelled, events.DeploymentStopped, 0)
	case 2:
		t.attempt(1, events.Retrying, events.InstallerBusy, 1618)
		t.say(events.Cancelled, events.DeploymentStopped)
		t.offer(2) // it was on its way
		t.say(events.Cancelled, events.DeploymentStopped)
	case 3:
		t.say(events.Accepted, "")
		t.say(events.Downloading, "")
		t.say(events.Cancelled, events.DeploymentStopped)
	}
	t.close()
}

// silent agents say nothing, or after their silent end all the same; the others are away.
func (w *world) silent(agent string, speaks bool) {
	t := w.told(quiet, 1, agent, 0, "")
	t.offer(1)
	w.e.Finished = append(w.e.Finished, End{Name: t.Name, Attempt: 1, State: events.Offered, Reason: events.AgentSilent, Silent: true, At: w.tick(), Sequence: w.next()})
	w.e.History = append(w.e.History, w.e.Finished[len(w.e.Finished)-1])
	if speaks {
		t.attempt(1, events.Succeeded, "", 0)
	}
	t.close()
}

// telling is one job as everybody tells of it.
type telling struct {
	w *world
	Name
	offered, started int
	last             Status
	row, ends        bool // execution knows it, and told its ends
}

func (w *world) told(deployment string, revision uint64, agent string, occurrence int64, user string) *telling {
	return &telling{w: w, Name: Name{events.JobID(deployment, revision, agent, occurrence, user), deployment, revision, agent, occurrence, user}, offered: 1, row: true, ends: true}
}

// offer the next attempt, sometimes in two copies.
func (t *telling) offer(attempt int) {
	t.offered = attempt
	o := Offer{t.Name, digest(t.Deployment, t.Revision), attempt, t.w.tick(), t.w.next()}
	t.w.e.Offers = append(t.w.e.Offers, o)
	if t.w.Intn(10) == 0 {
		o.Sequence = t.w.next()
		t.w.e.Offers = append(t.w.e.Offers, o)
	}
}

// attempt runs the program once.
func (t *telling) attempt(n int, end events.State, reason events.Reason, exit int) {
	w := t.w
	t.offered, t.started = n, n
	t.say(events.Accepted, "")
	t.say(events.Downloading, "")
	t.say(events.Downloaded, "")
	t.say(events.Running, "")
	run := Run{Agent: t.Agent, Deployment: t.Deployment, Job: t.Job, Attempt: n, At: w.tick(), Ended: w.tick(), Exit: exit, Well: exit == 0}
	if end == events.Cancelled {
		run.Well, run.Exit = false, -1
	}
	w.e.Runs = append(w.e.Runs, run)
	t.exit(end, reason, end != events.Cancelled, exit)
}

func (t *telling) say(state events.State, reason events.Reason) { t.exit(state, reason, false, 0) }

func (t *telling) exit(state events.State, reason events.Reason, exited bool, exit int) {
	w := t.w
	s := Status{Name: t.Name, Order: digest(t.Deployment, t.Revision), Attempt: t.offered, Transition: t.last.Transition + 1, State: state, Reason: reason, Exited: exited, Exit: exit, At: w.tick(), Sequence: w.next()}
	s.ID = events.JobStatus{Job: s.Job, Attempt: s.Attempt, Transition: s.Transition}.StatusID()
	if n := len(w.e.Stored); n > 0 && w.Intn(20) == 0 { // stored before the one that was said before it
		w.e.Stored[n-1].Sequence, s.Sequence = s.Sequence, w.e.Stored[n-1].Sequence
	}
	w.e.Stored = append(w.e.Stored, s)
	w.e.Acknowledged = append(w.e.Acknowledged, Ack{Agent: t.Agent, Deployment: t.Deployment, Job: t.Job, Attempt: s.Attempt, Transition: s.Transition, State: state, Sequence: s.Sequence, At: w.tick()})
	if w.Intn(20) == 0 { // told again
		copied := s
		copied.Sequence = w.next()
		w.e.Stored = append(w.e.Stored, copied)
		w.e.Acknowledged = append(w.e.Acknowledged, Ack{Agent: t.Agent, Deployment: t.Deployment, Job: t.Job, Attempt: s.Attempt, Transition: s.Transition, State: state, Sequence: copied.Sequence, At: w.tick()})
	}
	t.last = s
	if state.Terminal() && t.ends {
		end := End{Name: t.Name, Attempt: s.Attempt, Transition: s.Transition, State: state, Reason: reason, At: s.At, Sequence: w.next()}
		w.e.Finished, w.e.History = append(w.e.Finished, end), append(w.e.History, end)
	}
}

// close writes what is left of the job at the end.
func (t *telling) close() {
	w, s := t.w, t.last
	if s.Transition > 0 {
		w.e.Journals = append(w.e.Journals, Journal{t.Name, t.started, s.Attempt, s.Transition, s.State, s.Reason, s.At})
	}
	if !t.row {
		return
	}
	row := events.JobRow{Job: t.Job, Deployment: t.Deployment, Revision: t.Revision, Agent: t.Agent, User: t.User, Occurrence: t.Occurrence, State: events.Offered, Attempt: t.offered, Changed: w.now.Truncate(time.Second)}
	if s.Transition > 0 {
		row.State, row.Reason, row.Changed = s.State, s.Reason, s.At.Truncate(time.Second)
	}
	w.e.Jobs = append(w.e.Jobs, row)
}
