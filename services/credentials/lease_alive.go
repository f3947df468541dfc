package credentials

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

const (
	// readTime bounds one look at what is stored of an agent's jobs.
	readTime = 5 * time.Second
	// offerWait is after how long an offer that was not found is looked for once more: a replica of the broker may
	// lag behind the one that stored it.
	offerWait = time.Second
)

// life is what is stored of a job.
type life struct {
	offered   bool // its order, to this agent
	attempt   int  // the newest that was offered of this very job
	withdrawn bool
	ended     int // the newest attempt that came to an end

	// Of the job that opens one for each user; the job itself, where it is for nobody.
	opener        string
	openerAttempt int       // the newest that was offered
	openerEnded   int       // the newest attempt that came to an end, which was stored at
	openerEndedAt time.Time // this time
	accepted      bool      // the agent told of the job before
}

// alive makes sure that execution offered the job to the agent and did not withdraw it, and that it has not ended.
//
// It reads what the broker stores: JOBS, which keeps an agent's 64 newest offers, what execution said of ended jobs
// in EVENTS, and what the agent itself said in STATUS, which is there sooner. A job whose offer is not kept any more
// gets no lease; a retry offers it again.
//
// A job for one user is opened by the agent, and has no offer of its own before it is retried. After the deployment's own
// job has ended it counts only if the agent told of it before: whoever has an agent's key could make up users.
func (s *Service) alive(ctx context.Context, st events.LeaseStatement, o order.Order) error {
	l, err := s.lifeOf(ctx, st, o)
	if err == nil && !l.offered {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(offerWait):
		}
		l, err = s.lifeOf(ctx, st, o)
	}
	switch {
	case err != nil:
		return bus.Unavailable(fmt.Errorf("look at job %s: %w", st.Job, err))
	case !l.offered:
		return deny("deployment %s revision %d was not offered to agent %s, or long ago: `chandler deployment retry` offers it again", o.Deployment, o.Revision, st.Agent)
	case l.withdrawn:
		return deny("deployment %s revision %d was stopped", o.Deployment, o.Revision)
	// A job that the agent opened by itself, for a user who logged on, has no offer of its own before it is retried.
	case st.Attempt > max(l.attempt, 1):
		return deny("attempt %d of job %s was not offered", st.Attempt, st.Job)
	case l.ended >= st.Attempt:
		return deny("attempt %d of job %s has ended", st.Attempt, st.Job)
	case l.attempt == 0 && l.openerOver() && !l.accepted:
		return deny("the job of deployment %s revision %d on agent %s has ended, and did not open job %s before", o.Deployment, o.Revision, st.Agent, st.Job)
	}
	return nil
}

func (s *Service) lifeOf(ctx context.Context, st events.LeaseStatement, o order.Order) (life, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	l := life{opener: events.JobID(o.Deployment, o.Revision, st.Agent, st.Occurrence, "")}
	err := s.browse(ctx, events.StreamJobs, []string{events.OfferStored(st.Agent)}, func(m *nats.Msg, _ time.Time) {
		if offer, err := bus.Open(events.JobOffered, m); err == nil {
			l.seeOffer(offer.Data, st, o)
		} else if cancel, err := bus.Open(events.JobCancelRequested, m); err == nil && cancel.Data.Deployment == o.Deployment && cancel.Data.Revision >= o.Revision {
			l.withdrawn = true
		}
	})
	if err != nil || !l.offered || l.withdrawn {
		return l, err
	}
	err = s.browse(ctx, events.StreamEvents, []string{events.JobFinished.Subject(st.Agent)}, func(m *nats.Msg, stored time.Time) {
		if end, err := bus.Open(events.JobFinished, m); err == nil {
			l.seeEnd(end.Data.JobStatus, st, stored)
		}
	})
	if err != nil {
		return l, err
	}
	ends := endsOf(st.Agent)
	err = s.browse(ctx, events.StreamStatus, slices.Collect(maps.Keys(ends)), func(m *nats.Msg, stored time.Time) {
		if status, err := bus.Open(ends[m.Subject], m); err == nil {
			l.seeEnd(status.Data, st, stored)
		}
	})
	if err != nil || st.User == "" || !l.openerOver() {
		return l, err
	}
	accepted, _ := events.StatusType(events.Accepted)
	err = s.browse(ctx, events.StreamStatus, []string{keptStatus(accepted, st.Agent)}, func(m *nats.Msg, stored time.Time) {
		if status, err := bus.Open(accepted, m); err == nil && status.Data.Job == st.Job && !stored.After(l.openerEndedAt) {
			l.accepted = true
		}
	})
	return l, err
}

// endsOf are the statuses by which an agent ends a job, by the subject that STATUS stores them on.
func endsOf(agent string) map[string]events.Type[events.JobStatus] {
	ends := map[string]events.Type[events.JobStatus]{}
	for _, state := range events.States() {
		if t, ok := events.StatusType(state); ok && state.Terminal() {
			ends[keptStatus(t, agent)] = t
		}
	}
	return ends
}

// keptStatus is the subject that STATUS stores an agent's statuses of a type on.
func keptStatus(t events.Type[events.JobStatus], agent string) string {
	return fmt.Sprintf("%s.%d", t.Subject(agent), events.Partition(agent, events.Partitions))
}

// browse visits what is stored, each message with the time that it was stored at.
func (s *Service) browse(ctx context.Context, stream string, filters []string, see func(m *nats.Msg, stored time.Time)) error {
	return s.bus.Browse(ctx, bus.BrowseOptions{Stream: stream, Filters: filters, Patience: readTime}, func(m jetstream.Msg) error {
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		see(&nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()}, meta.Timestamp)
		return nil
	})
}

func (l *life) seeOffer(offer events.JobOffer, st events.LeaseStatement, o order.Order) {
	if offer.Agent != st.Agent || offer.Deployment != o.Deployment || offer.Revision != o.Revision || offer.Order != st.Order {
		return
	}
	l.offered = true
	if offer.Job == st.Job {
		l.attempt = max(l.attempt, offer.Attempt)
	}
	if offer.Job == l.opener {
		l.openerAttempt = max(l.openerAttempt, offer.Attempt)
	}
}

func (l *life) seeEnd(status events.JobStatus, st events.LeaseStatement, stored time.Time) {
	if status.Agent != st.Agent {
		return
	}
	if status.Job == st.Job {
		l.ended = max(l.ended, status.Attempt)
	}
	if status.Job != l.opener {
		return
	}
	if status.Attempt > l.openerEnded || status.Attempt == l.openerEnded && stored.Before(l.openerEndedAt) {
		l.openerEnded, l.openerEndedAt = status.Attempt, stored
	}
}

// openerOver says whether the job that opens others will open no more.
func (l *life) openerOver() bool { return l.openerEnded >= max(l.openerAttempt, 1) }
