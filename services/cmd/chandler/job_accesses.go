package main

import (
	"cmp"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/advice"
	"chandler/events/resource"
)

// telling is what is known of a whole job while its accesses to external sources are told one after the other.
type telling struct {
	advised string // what is said at the end, and therefore nowhere else
	spared  bool   // the job succeeded
	changed []foundElse
}

// foundElse is what was found in an attempt to be something else than was published.
type foundElse struct {
	attempt  int
	resource string
}

// newTelling looks at what the agent said last of a job, at the job's state, and at all that is told of it.
func newTelling(last events.JobStatus, state events.State, all []events.JobStatus) telling {
	t := telling{advised: adviceOf(last.Reason, last.Accesses), spared: state == events.Succeeded}
	for _, s := range all {
		for _, access := range s.Accesses {
			if access.Reason == events.ContentChanged {
				t.changed = append(t.changed, foundElse{s.Attempt, access.Resource})
			}
		}
	}
	return t
}

// adviceOf is what to do about a job's reason. Where an access to an external source was the reason, its own advice says
// more than the reason's.
func adviceOf(r events.Reason, accesses []events.Access) string {
	if r == events.NoReason {
		return ""
	}
	for _, access := range slices.Backward(accesses) {
		if access.Reason == r {
			return advice.For(access)
		}
	}
	return r.Info().Advice
}

// once takes out of what an agent and the accesses say what has a line of its own.
func (t telling) once(lines []string) []string {
	if t.advised == "" {
		return lines
	}
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], "; "+t.advised, "")
	}
	return lines
}

// access is one access in a line, and what would fix it, as far as that is not said already.
func (t telling) access(access events.Access, attempt int, said string) string {
	when := map[string]string{
		events.AccessContent: "for the content", events.AccessReference: "to check a reference", events.AccessRun: "while the program ran", events.AccessTest: "as a test",
	}[access.When]
	sentence, fix := t.sentence(access, attempt), t.fix(access)
	var parts []string
	if !strings.Contains(said, sentence) {
		parts = append(parts, sentence)
	}
	if fix != "" && fix != t.advised && !strings.Contains(said, fix) && !strings.Contains(sentence, fix) {
		parts = append(parts, fix)
	}
	if len(parts) == 0 {
		return ""
	}
	return cmp.Or(when, "meanwhile") + ": " + strings.Join(parts, "; ")
}

// sentence says what came of an access. Of what was found to be something else than was published in the same attempt,
// "read" would say the opposite: it was opened first.
func (t telling) sentence(access events.Access, attempt int) string {
	if access.Reason == events.NoReason && slices.Contains(t.changed, foundElse{attempt, access.Resource}) {
		return advice.Who(access) + " was let in first, and opened " + resource.Shown(access.Resource)
	}
	return advice.Sentence(access)
}

// fix is what would fix an access. One that the program did without needs no mending.
func (t telling) fix(access events.Access) string {
	if t.spared && access.Reason != events.NoReason && access.When == events.AccessRun {
		return "the job succeeded without it"
	}
	return advice.For(access)
}
