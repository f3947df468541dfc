package checker

import (
	"cmp"
	"slices"
	"time"

	"chandler/events"
)

// Check holds the witnesses against each other and gives what must not be, the smallest history first.
func Check(e Evidence) []Violation {
	c := newChecks(&e)
	c.gather()
	for _, d := range c.dossiers {
		d.settle()
	}
	c.handedOver()
	for _, d := range c.dossiers {
		if !c.sameNames(d) {
			continue // who is meant is not known
		}
		c.offers(d)
		c.statuses(d)
		c.acks(d)
		c.journals(d)
		c.runs(d)
		c.ends(d)
	}
	c.rows()
	return sorted(c.found)
}

// checks is one call of Check.
type checks struct {
	*Evidence
	only      map[string]bool // deployments; empty: all
	orders    map[revision]*Order
	newest    map[string]uint64 // highest revision by deployment
	stopped   map[string]uint64 // highest revision that was stopped
	removed   map[string]uint64
	released  map[revision]map[string]*Release // the first of each agent
	rowsByJob map[string]*events.JobRow
	dossiers  []*dossier
	byID      map[string]*dossier
	ofAgents  map[holder][]*dossier
	ofUsers   map[holder]bool // a job of a single user is known
	found     []Violation
}

type revision struct {
	deployment string
	number     uint64
}

// holder is an agent that has a revision.
type holder struct {
	revision
	agent string
}

// dossier is all that is known of one job. Its lists are sorted by what they state, so that the order of the evidence does not
// matter.
type dossier struct {
	Name
	named    bool // Name is whole
	copies   []*Status
	statuses []*Status // by transition, each once
	offers   []*Offer  // by attempt
	journals []*Journal
	acks     []*Ack
	runs     []*Run
	finished []*End
	history  []*End
	birth    time.Time // the first that is known of it; zero: no time is known
}

func newChecks(e *Evidence) *checks {
	c := &checks{Evidence: e, only: map[string]bool{}, orders: map[revision]*Order{}, newest: map[string]uint64{}, stopped: map[string]uint64{},
		removed: map[string]uint64{}, released: map[revision]map[string]*Release{}, byID: map[string]*dossier{}, ofAgents: map[holder][]*dossier{}, ofUsers: map[holder]bool{},
		rowsByJob: map[string]*events.JobRow{}}
	for _, r := range sortedRows(e.Jobs) {
		c.rowsByJob[r.Job] = r
	}
	for _, d := range e.Deployments {
		c.only[d] = true
	}
	for i := range e.Orders {
		o := &e.Orders[i]
		key := revision{o.Deployment, o.Revision}
		if old := c.orders[key]; old == nil || cmp.Or(o.At.Compare(old.At), cmp.Compare(o.Order, old.Order)) < 0 {
			c.orders[key] = o
		}
		c.newest[o.Deployment] = max(c.newest[o.Deployment], o.Revision)
	}
	for _, s := range e.Stops {
		which := c.stopped
		if s.Removed {
			which = c.removed
		}
		which[s.Deployment] = max(which[s.Deployment], s.Revision)
	}
	return c
}

// gather sorts the evidence by job.
func (c *checks) gather() {
	file(c, c.Stored, func(s *Status) (string, string, time.Time) { return s.Deployment, s.Job, s.At }, func(d *dossier, s *Status) { d.copies = append(d.copies, s) })
	file(c, c.Offers, func(o *Offer) (string, string, time.Time) { return o.Deployment, o.Job, o.At }, func(d *dossier, o *Offer) { d.offers = append(d.offers, o) })
	file(c, c.Journals, func(j *Journal) (string, string, time.Time) { return j.Deployment, j.Job, j.At }, func(d *dossier, j *Journal) { d.journals = append(d.journals, j) })
	file(c, c.Acknowledged, func(a *Ack) (string, string, time.Time) { return a.Deployment, a.Job, a.At }, func(d *dossier, a *Ack) { d.acks = append(d.acks, a) })
	file(c, c.Runs, func(r *Run) (string, string, time.Time) { return r.Deployment, r.Job, r.At }, func(d *dossier, r *Run) { d.runs = append(d.runs, r) })
	ended := func(e *End) (string, string, time.Time) { return e.Deployment, e.Job, e.At }
	file(c, c.Finished, ended, func(d *dossier, e *End) { d.finished = append(d.finished, e) })
	file(c, c.History, ended, func(d *dossier, e *End) { d.history = append(d.history, e) })
}

// file puts a list's entries into the dossiers of their jobs.
func file[T any](c *checks, list []T, of func(*T) (deployment, job string, at time.Time), put func(*dossier, *T)) {
	for i := range list {
		deployment, job, at := of(&list[i])
		if d := c.of(deployment, job); d != nil {
			put(d, &list[i])
			d.seen(at)
		}
	}
}

// of is the dossier of a job; nil: its deployment is not checked.
func (c *checks) of(deployment, job string) *dossier {
	if len(c.only) > 0 && !c.only[deployment] {
		return nil
	}
	d := c.byID[job]
	if d == nil {
		d = &dossier{}
		c.byID[job] = d
		c.dossiers = append(c.dossiers, d)
	}
	return d
}

func (d *dossier) seen(at time.Time) {
	if !at.IsZero() && (d.birth.IsZero() || at.Before(d.birth)) {
		d.birth = at
	}
}

func (n Name) compare(other Name) int {
	return cmp.Or(cmp.Compare(n.Agent, other.Agent), cmp.Compare(n.Deployment, other.Deployment), cmp.Compare(n.Revision, other.Revision),
		cmp.Compare(n.Occurrence, other.Occurrence), cmp.Compare(n.User, other.User))
}

// settle brings the lists into their order and leaves out copies.
func (d *dossier) settle() {
	slices.SortFunc(d.copies, func(a, b *Status) int {
		return cmp.Or(cmp.Compare(a.Transition, b.Transition), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.State, b.State), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Exit, b.Exit), cmp.Compare(a.ID, b.ID), a.At.Compare(b.At), a.Name.compare(b.Name))
	})
	for _, s := range d.copies {
		if n := len(d.statuses); n == 0 || d.statuses[n-1].Transition != s.Transition || d.statuses[n-1].Attempt != s.Attempt {
			d.statuses = append(d.statuses, s)
		}
	}
	slices.SortFunc(d.offers, func(a, b *Offer) int {
		return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Order, b.Order), a.At.Compare(b.At), a.Name.compare(b.Name))
	})
	slices.SortFunc(d.journals, func(a, b *Journal) int {
		return cmp.Or(cmp.Compare(a.Transition, b.Transition), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.State, b.State), cmp.Compare(a.Started, b.Started), cmp.Compare(a.Reason, b.Reason), a.At.Compare(b.At), a.Name.compare(b.Name))
	})
	slices.SortFunc(d.acks, func(a, b *Ack) int {
		return cmp.Or(cmp.Compare(a.Transition, b.Transition), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.State, b.State), cmp.Compare(a.Sequence, b.Sequence), a.At.Compare(b.At), cmp.Compare(a.Agent, b.Agent))
	})
	slices.SortFunc(d.runs, func(a, b *Run) int {
		return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Step, b.Step), a.At.Compare(b.At), a.Ended.Compare(b.Ended), cmp.Compare(a.Exit, b.Exit), cmp.Compare(a.Agent, b.Agent))
	})
	d.finished, d.history = distinctEnds(d.finished), distinctEnds(d.history)
}

// sameNames says whether all agree on which job it is, and takes the name over.
func (c *checks) sameNames(d *dossier) bool {
	type said struct {
		Name
		line
	}
	var first *said
	agree := true
	hear := func(n Name, whole bool, l line) {
		switch {
		case !agree:
		case first == nil || whole && !d.named:
			first, d.Name, d.named = &said{n, l}, n, whole
		case n.Agent != d.Agent || n.Deployment != d.Deployment || whole && n != d.Name:
			agree = false
			c.report(d, Names, "two witnesses mean different jobs by one id", first.line, l)
		}
	}
	for _, s := range d.copies {
		hear(s.Name, true, s.line())
	}
	for _, o := range d.offers {
		hear(o.Name, true, o.line())
	}
	for _, j := range d.journals {
		hear(j.Name, true, j.line())
	}
	for _, e := range d.finished {
		hear(e.Name, true, e.line(InEvents))
	}
	for _, e := range d.history {
		hear(e.Name, true, e.line(InHistory))
	}
	for _, a := range d.acks {
		hear(Name{Job: a.Job, Deployment: a.Deployment, Agent: a.Agent}, false, a.line())
	}
	for _, r := range d.runs {
		hear(Name{Job: r.Job, Deployment: r.Deployment, Agent: r.Agent}, false, r.line())
	}
	if agree && d.named && d.Job != events.JobID(d.Deployment, d.Revision, d.Agent, d.Occurrence, d.User) {
		agree = false
		c.report(d, Names, "the job's id is not that of its deployment, revision, agent, occurrence and user", first.line)
	}
	d.named = d.named && agree
	return agree
}

// covers says whether a witness would hold what happened at that time.
func (c *checks) covers(who Witness, at time.Time) bool {
	since := c.Since[who]
	return since.IsZero() || !at.IsZero() && !at.Before(since.Add(c.Slack))
}

// begin is a time before which the job cannot have begun: its agent's release, or the creation of its order; zero where
// neither is known.
func (c *checks) begin(d *dossier) time.Time {
	key := revision{d.Deployment, d.Revision}
	if r := c.released[key][d.Agent]; r != nil {
		return r.At
	}
	if o := c.orders[key]; o != nil {
		return o.At
	}
	return time.Time{}
}

// holdsOrder says whether EVENTS holds everything that was said of a revision.
func (c *checks) holdsOrder(d *dossier) bool {
	o := c.orders[revision{d.Deployment, d.Revision}]
	return o != nil && c.covers(InEvents, o.At) || c.Since[InEvents].IsZero()
}

// offersOf is covers for the offers of one agent.
func (c *checks) offersOf(agent string, at time.Time) bool {
	since, cut := c.OffersSince[agent]
	return c.covers(InJobs, at) && (!cut || !at.IsZero() && !at.Before(since.Add(c.Slack)))
}

func (c *checks) gone(deployment string, revision uint64) bool {
	upTo, ok := c.removed[deployment]
	return ok && revision <= upTo
}

// withdrawn says whether a revision was stopped, replaced or removed.
func (c *checks) withdrawn(deployment string, revision uint64) bool {
	upTo, stopped := c.stopped[deployment]
	return stopped && revision <= upTo || c.newest[deployment] > revision || c.gone(deployment, revision)
}

func (c *checks) report(d *dossier, rule Rule, text string, history ...line) {
	c.found = append(c.found, Violation{Rule: rule, Deployment: d.Deployment, Agent: d.Agent, Job: d.Job, Text: text, History: lines(history)})
}
