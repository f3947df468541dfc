package checker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"chandler/events"
)

// journals holds the journal against STATUS, and looks for an end.
func (c *checks) journals(d *dossier) {
	if c.Journals != nil {
		c.lastWord(d)
	}
	c.unfinished(d)
}

func (c *checks) lastWord(d *dossier) {
	n := len(d.journals)
	if n > 1 {
		c.report(d, InJournal, "two journals hold the job", d.journals[0].line(), d.journals[1].line())
	}
	if c.Stored == nil {
		return
	}
	last := d.last()
	if n == 0 {
		if last != nil && c.covers(InJournals, d.birth) {
			c.report(d, InJournal, "the agent spoke of a job that its journal does not know", last.line())
		}
		return
	}
	switch j := d.journals[n-1]; {
	case j.Transition == 0 && last == nil:
	case last == nil || last.Transition < j.Transition:
		if !c.Away[d.Agent] && c.covers(InStatus, j.At) {
			history := []line{j.line()}
			if last != nil {
				history = append(history, last.line())
			}
			c.report(d, InJournal, "the journal's last word is not in STATUS", history...)
		}
	case last.Transition > j.Transition:
		c.report(d, InJournal, "the journal does not know what the agent said", j.line(), last.line())
	case j.State == events.Retrying && last.State.Terminal(): // a further attempt was offered, and it has not said anything yet
	case last.State != j.State || last.Attempt != j.Attempt || last.Reason != j.Reason:
		c.report(d, InJournal, "the journal's last word is another one in STATUS", j.line(), last.line())
	}
}

// last is the newest status.
func (d *dossier) last() *Status {
	if len(d.statuses) == 0 {
		return nil
	}
	return d.statuses[len(d.statuses)-1]
}

// unfinished checks that a job has an end where nothing holds it.
func (c *checks) unfinished(d *dossier) {
	silent := slices.ContainsFunc(d.finished, func(e *End) bool { return e.Silent })
	if !d.named || silent || c.Away[d.Agent] || c.Open[d.Deployment] || c.opens(d) || c.gone(d.Deployment, d.Revision) || c.frozen(d) {
		return
	}
	attempt, state, said, known := c.newestWord(d)
	n := len(d.offers)
	again := n > 0 && d.offers[n-1].Attempt > attempt
	if row := c.rowsByJob[d.Job]; again && row != nil && row.Attempt <= attempt {
		again = false // an offer that execution did not stand by
	}
	if again {
		said = append(said, d.offers[n-1].line())
	}
	switch {
	case !known || state == events.Offered && n == 0: // by an end or a run alone, which is another rule's
	case !state.Terminal():
		c.report(d, Unfinished, "the job has no end", said...)
	case again && (state == events.Failed || state == events.Rejected):
		c.report(d, Unfinished, "the last attempt that was offered has no end", said...)
	}
}

// newestWord is the last that the agent said of a job; known is false where STATUS may have lost a later one.
func (c *checks) newestWord(d *dossier) (attempt int, state events.State, said []line, known bool) {
	last := d.last()
	if n := len(d.journals); n > 0 && (last == nil || d.journals[n-1].Transition >= last.Transition) {
		j := d.journals[n-1]
		return j.Attempt, j.State, []line{j.line()}, true
	}
	if last != nil {
		return last.Attempt, last.State, []line{last.line()}, c.covers(InStatus, last.At)
	}
	n := len(d.offers)
	return 0, events.Offered, nil, c.Stored != nil && n > 0 && c.covers(InStatus, d.offers[n-1].At)
}

// frozen says whether something in force may hold the job: whom a site or a collection means is not known here.
func (c *checks) frozen(d *dossier) bool {
	return slices.ContainsFunc(c.Freezes, func(f events.Freeze) bool {
		return f.Scope != "deployment" || f.Name == d.Deployment && d.Revision <= f.Revision
	})
}

// record is of what execution keeps one row.
type record struct{ deployment, agent, user string }

// rows holds execution's answers against STATUS, and the journal where STATUS lacks what it says.
func (c *checks) rows() {
	if c.Jobs == nil {
		return
	}
	newest := map[record]*dossier{}
	for _, d := range c.dossiers {
		key := record{d.Deployment, d.Agent, d.User}
		if old := newest[key]; d.named && (len(d.statuses) > 0 || len(d.offers) > 0) && (old == nil || cmp.Or(cmp.Compare(d.Revision, old.Revision), cmp.Compare(d.Occurrence, old.Occurrence)) > 0) {
			newest[key] = d
		}
	}
	rows := map[record]*events.JobRow{}
	for _, r := range sortedRows(c.Jobs) {
		key := record{r.Deployment, r.Agent, r.User}
		switch {
		case len(c.only) > 0 && !c.only[r.Deployment]:
		case rows[key] != nil:
			c.reportRow(r, "execution holds two jobs of one agent", lineOf(rows[key]), lineOf(r))
		default:
			rows[key] = r
			c.row(r, newest[key])
		}
	}
	for key, d := range newest {
		known := c.Orders == nil || c.orders[revision{d.Deployment, d.Revision}] != nil
		if rows[key] == nil && known && !c.gone(d.Deployment, d.Revision) {
			c.report(d, InExecution, "execution does not know the job", d.newestLine()...)
		}
	}
}

func sortedRows(jobs []events.JobRow) []*events.JobRow {
	rows := make([]*events.JobRow, 0, len(jobs))
	for i := range jobs {
		rows = append(rows, &jobs[i])
	}
	slices.SortFunc(rows, func(a, b *events.JobRow) int {
		return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.State, b.State), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Reason, b.Reason),
			a.Changed.Compare(b.Changed), cmp.Compare(a.Agent, b.Agent))
	})
	return rows
}

// row holds one answer against the newest job of the same agent that others know.
func (c *checks) row(r *events.JobRow, d *dossier) {
	if d == nil {
		if c.byID[r.Job] == nil && c.wouldKnow(r) {
			c.reportRow(r, "execution knows a job that nobody offered or spoke of", lineOf(r))
		}
		return
	}
	last := d.last()
	switch age := cmp.Or(cmp.Compare(r.Revision, d.Revision), cmp.Compare(r.Occurrence, d.Occurrence)); {
	case age > 0:
		if c.wouldKnow(r) {
			c.reportRow(r, "execution knows a newer job that nobody offered or spoke of", lineOf(r))
		}
	case age < 0:
		c.reportRow(r, "execution does not know the newer job", append(d.newestLine(), lineOf(r))...)
	case r.State == events.Offered:
		offered := slices.ContainsFunc(d.offers, func(o *Offer) bool { return o.Attempt == r.Attempt })
		if last != nil && (r.Attempt <= last.Attempt || !offered && c.wouldKnow(r)) {
			c.reportRow(r, "execution does not know what the agent said", lineOf(r), last.line())
		}
	case d.journalSays(r):
	case last == nil:
		if c.wouldKnow(r) {
			c.reportRow(r, "execution knows what no agent said", lineOf(r))
		}
	case r.State != last.State || r.Reason != last.Reason && last.Reason.Known(), r.Attempt < last.Attempt:
		if c.covers(InStatus, r.Changed) || r.Changed.Before(last.At.Truncate(time.Second)) {
			c.reportRow(r, "execution has another last word", lineOf(r), last.line())
		}
	}
}

// wouldKnow says whether the stream that execution learnt a row from would hold the like.
func (c *checks) wouldKnow(r *events.JobRow) bool {
	if r.State == events.Offered {
		return c.Offers != nil && c.offersOf(r.Agent, r.Changed)
	}
	return c.Stored != nil && c.covers(InStatus, r.Changed)
}

// journalSays says whether the journal is ahead of STATUS, and says the same as execution.
func (d *dossier) journalSays(r *events.JobRow) bool {
	n := len(d.journals)
	return n > 0 && (d.last() == nil || d.journals[n-1].Transition > d.last().Transition) && d.journals[n-1].State == r.State
}

// newestLine is the newest word about the job.
func (d *dossier) newestLine() []line {
	if last := d.last(); last != nil {
		return []line{last.line()}
	}
	return []line{d.offers[len(d.offers)-1].line()}
}

func lineOf(r *events.JobRow) line {
	return line{r.Changed, Execution, fmt.Sprintf("job %s of revision %d, attempt %d: %s%s", r.Job, r.Revision, r.Attempt, r.State, because(string(r.Reason), false, 0))}
}

func (c *checks) reportRow(r *events.JobRow, text string, history ...line) {
	c.report(&dossier{Name: Name{Job: r.Job, Deployment: r.Deployment, Agent: r.Agent}}, InExecution, text, history...)
}
