package checker

import (
	"cmp"
	"fmt"
	"slices"

	"chandler/events"
)

// handedOver checks what scheduling released, and that it was offered.
func (c *checks) handedOver() {
	for _, d := range c.dossiers {
		n := d.anyName()
		key := holder{revision{n.Deployment, n.Revision}, n.Agent}
		c.ofAgents[key] = append(c.ofAgents[key], d)
		c.ofUsers[key] = c.ofUsers[key] || n.User != ""
	}
	if c.Released == nil {
		return
	}
	batches := make([]*Release, 0, len(c.Released))
	for i := range c.Released {
		batches = append(batches, &c.Released[i])
	}
	slices.SortFunc(batches, func(a, b *Release) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.Batch, b.Batch))
	})
	for _, r := range batches {
		if len(c.only) > 0 && !c.only[r.Deployment] {
			continue
		}
		key := revision{r.Deployment, r.Revision}
		if c.released[key] == nil {
			c.released[key] = map[string]*Release{}
		}
		for _, agent := range r.Agents {
			old := c.released[key][agent]
			if old == nil {
				c.released[key][agent] = r
				continue
			}
			if (old.Batch != r.Batch || old.Wave != r.Wave) && max(r.Attempt, 1) == max(old.Attempt, 1) && c.covers(InEvents, old.At) {
				c.report(&dossier{Name: Name{Deployment: r.Deployment, Agent: agent}}, ReleasedTwice, "the agent is in two batches of one revision", old.line(agent), r.line(agent))
			}
		}
	}
	c.counts()
	if c.Offers == nil {
		return
	}
	for key, agents := range c.released {
		for agent, r := range agents {
			c.offered(key, agent, r)
		}
	}
}

// counts checks that EVENTS holds all that scheduling says it released.
func (c *checks) counts() {
	for _, n := range c.Counts {
		key := revision{n.Deployment, n.Revision}
		o := c.orders[key]
		if len(c.only) > 0 && !c.only[n.Deployment] || len(c.released[key]) == n.Released || o == nil || !c.covers(InEvents, o.At) {
			continue
		}
		c.report(&dossier{Name: Name{Deployment: n.Deployment}}, ReleaseLost, fmt.Sprintf("scheduling says that it released %d agents for revision %d, EVENTS names %d",
			n.Released, n.Revision, len(c.released[key])), o.line())
	}
}

// offered checks that a released agent has an offer. One that has the job from before the release needs none.
func (c *checks) offered(key revision, agent string, r *Release) {
	if c.withdrawn(key.deployment, key.number) || !c.offersOf(agent, r.At) {
		return
	}
	for _, d := range c.ofAgents[holder{key, agent}] {
		if !d.birth.IsZero() && d.birth.Before(r.At) || len(d.offers) > 0 && d.offers[0].Attempt == 1 && d.offers[0].User == "" {
			return
		}
	}
	c.report(&dossier{Name: Name{Deployment: key.deployment, Agent: agent}}, NotOffered, fmt.Sprintf("the agent was released for revision %d, and JOBS holds no offer to it", key.number), r.line(agent))
}

// offers checks the offers of one job, and that each attempt that its agent speaks of was offered.
func (c *checks) offers(d *dossier) {
	if c.Offers == nil {
		return
	}
	o := c.orders[revision{d.Deployment, d.Revision}]
	for i, offer := range d.offers {
		if i > 0 && offer.Attempt == d.offers[i-1].Attempt {
			if offer.Order != d.offers[i-1].Order {
				c.report(d, WrongOffer, "one attempt was offered with two orders", d.offers[i-1].line(), offer.line())
			}
			continue // told again
		}
		switch {
		case o != nil && offer.Order != o.Order:
			c.report(d, WrongOffer, "the offer names an order that is not the deployment's", o.line(), offer.line())
		case o != nil && offer.Attempt == 1 && offer.User == "" && offer.Occurrence != o.Occurrence:
			c.report(d, WrongOffer, fmt.Sprintf("occurrence %d was offered, and the order's is %d", offer.Occurrence, o.Occurrence), offer.line())
		}
		c.causeOf(d, offer)
	}
	if released := c.released[revision{d.Deployment, d.Revision}]; len(d.offers) > 0 && c.Released != nil && released[d.Agent] == nil && c.holdsOrder(d) {
		c.report(d, NotReleased, "the agent was offered a job, and scheduling did not release it", d.offers[0].line())
	}
	c.attempts(d, o)
}

// causeOf checks that an attempt was offered because the one before is to be tried again.
func (c *checks) causeOf(d *dossier, offer *Offer) {
	if offer.Attempt < 2 || !c.whole(d) || d.again(offer.Attempt-1) != nil {
		return
	}
	history := []line{offer.line()}
	if end := d.lastOf(offer.Attempt - 1); end != nil {
		history = append(history, end.line())
	}
	c.report(d, WrongOffer, fmt.Sprintf("attempt %d was offered, and the one before did not fail", offer.Attempt), history...)
}

// attempts checks that what an agent speaks of was offered to it, but for what it opens by itself: occurrences of a standing
// order and the jobs of single users.
func (c *checks) attempts(d *dossier, o *Order) {
	opened := d.User != "" || o == nil && d.Occurrence != 0 || o != nil && o.Standing && d.Occurrence != 0
	at := c.begin(d)
	for _, attempt := range byAttempt(d.statuses) {
		first := attempt[0]
		offered := slices.ContainsFunc(d.offers, func(offer *Offer) bool { return offer.Attempt == first.Attempt })
		if !offered && c.offersOf(d.Agent, at) && !(opened && first.Attempt == 1) {
			c.report(d, NoOffer, fmt.Sprintf("the agent speaks of attempt %d, which nobody offered", first.Attempt), first.line())
		}
		at = attempt[len(attempt)-1].At
	}
}

// lastOf is the last status of an attempt.
func (d *dossier) lastOf(attempt int) (last *Status) {
	for _, s := range d.statuses {
		if s.Attempt == attempt {
			last = s
		}
	}
	return last
}

// again is the status by which an attempt may be followed by another.
func (d *dossier) again(attempt int) *Status {
	for _, s := range d.statuses {
		if s.Attempt == attempt && (s.State == events.Retrying || s.State == events.Failed || s.State == events.Rejected) {
			return s
		}
	}
	return nil
}

// anyName is what is known of a job's name before it is checked.
func (d *dossier) anyName() Name {
	switch {
	case len(d.copies) > 0:
		return d.copies[0].Name
	case len(d.offers) > 0:
		return d.offers[0].Name
	case len(d.journals) > 0:
		return d.journals[0].Name
	case len(d.finished) > 0:
		return d.finished[0].Name
	case len(d.history) > 0:
		return d.history[0].Name
	}
	return Name{}
}
