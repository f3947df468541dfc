package agent

import (
	"time"

	"chandler/events/order"
	"chandler/events/timing"
)

// machine is what decisions about time need to know of this one.
func (t *task) machine() timing.Machine { return timing.Machine{ID: t.a.id, Zone: time.Local} }

// assignment is the one that the job is of.
func (t *task) assignment() order.Assignment { return t.order.Assignments[0] }

// timing says whether the job's time has come.
func (t *task) timing() timing.Decision {
	return timing.Decide(t.order, t.assignment(), t.job.Offer.Occurrence, t.machine(), t.job.Opened, t.a.Clock())
}
