package execution

import (
	"chandler/events"
)

// outcome is what follows from looking at a partition's jobs: the records that change, and what is to be
// said to others before the change is stored. Saying it first means that a crash in between says it again,
// under the same ids, and never forgets it.
type outcome struct {
	delta   delta
	offers  []events.JobOffer
	cancels []events.CancelRequest
	ends    []events.JobEnd
	retries []retry
	again   int // offers of jobs that are tried again by themselves
	refused int // statuses that would have exceeded a limit
}

// empty says that there is nothing to store.
func (o outcome) empty(s *jobs) bool {
	return len(o.delta.jobs) == 0 && len(o.delta.places) == 0 && len(o.delta.removed) == 0 && o.delta.folded == s.folded && o.delta.status == s.status
}

// unchanged begins an outcome that leaves the position in STATUS where it is.
func unchanged(s *jobs) outcome {
	return outcome{delta: delta{status: s.status, folded: s.folded}}
}

const (
	// maxJobsOfAgent bounds what one agent can make this service keep; maxUser a user's name, in bytes.
	maxJobsOfAgent = 4096
	maxUser        = 256
)

// fold computes what a batch of statuses changes. It reads s and does not change it; what a batch does
// depends neither on the order of its statuses nor on whether they were folded before.
func fold(s *jobs, batch []events.JobStatus) outcome {
	o := unchanged(s)
	at := make(map[jobKey]int, len(batch)) // in o.delta.jobs
	more := map[string]int{}               // records that the batch adds to an agent
	moves := map[string]string{}           // agents that say they are at another site
	for _, status := range batch {
		key := jobKey{status.Deployment, status.Agent, status.User}
		i, seen := at[key]
		var before job
		if seen {
			before = o.delta.jobs[i]
		} else {
			var known bool
			if before, known = s.find(key); !known {
				if more[status.Agent]+s.countOf(status.Agent) >= maxJobsOfAgent || len(status.User) > maxUser {
					o.refused++
					continue
				}
				more[status.Agent]++
			}
		}
		after, changed := before.take(status)
		moved := changed && after.transition == status.Transition && after.revision == status.Revision && after.occurrence == status.Occurrence
		if status.State.Terminal() && (moved || before.superseded(status)) {
			o.ends = append(o.ends, events.JobEnd{JobStatus: status})
		}
		if moved && status.State == events.Retrying {
			o.retries = append(o.retries, retryOf(after, status.RetryAt))
		}
		if moved && status.Site != "" && len(status.Site) <= maxSite {
			if _, told := moves[status.Agent]; told || s.siteOf(status.Agent) != status.Site {
				moves[status.Agent] = status.Site
			}
		}
		switch {
		case !changed:
		case seen:
			o.delta.jobs[i] = after
		default:
			at[key] = len(o.delta.jobs)
			o.delta.jobs = append(o.delta.jobs, after)
		}
	}
	for agent, site := range moves {
		o.delta.places = append(o.delta.places, place{agent, site})
	}
	return o
}
