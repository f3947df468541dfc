package execution

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// foldStatuses keeps one partition up to date with STATUS. All replicas attach to its consumer, which is
// pinned to one of them.
func (s *Service) foldStatuses(ctx context.Context, p *partition) error {
	r := statusReader{Service: s, p: p, lag: &lag{gauge: s.metrics.foldLag.WithLabelValues(fmt.Sprint(p.number))}}
	defer r.lag.end()
	if err := r.readOnPatiently(ctx); err != nil {
		return nil // ctx is done
	}
	filter := events.StatusPartition(fmt.Sprint(p.number))
	// Acknowledged one by one: see the package's doc.
	c := bus.Consumer{Stream: events.StreamStatus, Name: consumerOf(p), Filters: []string{filter}, Batch: changeSize, Pinned: true}
	return bus.HandleBatch(ctx, s.bus, c, r.batch)
}

func consumerOf(p *partition) string { return fmt.Sprintf("execution-%d", p.number) }

// statusReader folds the statuses of one partition; for one goroutine.
type statusReader struct {
	*Service
	p   *partition
	pin string // under which the last batch came
	lag *lag
}

// batch folds what the consumer delivered. After a change of the pin it first folds what another replica
// may have left behind.
func (r *statusReader) batch(ctx context.Context, batch []bus.Received[events.JobStatus]) error {
	if pin := batch[0].Pin; pin != r.pin || r.behind() {
		if err := r.readOn(ctx); err != nil {
			return err
		}
		r.pin = pin
	}
	statuses, last := make([]events.JobStatus, 0, len(batch)), uint64(0)
	for _, m := range batch {
		last = max(last, m.StreamSequence)
		if kind, ok := events.StatusType(m.Data.State); ok && m.Type == kind.Name {
			statuses = append(statuses, m.Data)
		}
	}
	defer r.lag.show(batch[len(batch)-1].Pending)
	return r.take(ctx, statuses, last)
}

// behind says that STATUS began anew since this partition was folded.
func (r *statusReader) behind() bool {
	r.p.mu.RLock()
	defer r.p.mu.RUnlock()
	return r.p.jobs.status != r.generations.status()
}

func (r *statusReader) readOnPatiently(ctx context.Context) error {
	for {
		err := r.readOn(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		r.log.WarnContext(ctx, "statuses could not be read and will be read again", "partition", r.p.number, "error", err)
		pause(ctx, r.pace.check)
	}
}

// readOn folds what the consumer has delivered, to whomever, after the partition's position: the broker would bring it
// again late. What was not delivered yet comes by itself. If STATUS is another one than the position belongs to, all of
// it is folded.
func (r *statusReader) readOn(ctx context.Context) error {
	r.p.mu.RLock()
	from, generation := r.p.jobs.folded, r.p.jobs.status
	r.p.mu.RUnlock()
	another := generation != r.generations.status() && generation != events.Generation{} // which a partition has that never folded anything
	upTo := uint64(math.MaxUint64)
	if another {
		from = 0
	} else {
		var err error
		if upTo, err = r.delivered(ctx); err != nil {
			return err
		}
	}
	stream, err := r.js.Stream(ctx, events.StreamStatus)
	if err != nil {
		return err
	}
	if stream.CachedInfo().State.LastSeq < from {
		return errors.Join(r.generations.check(ctx), errors.New("STATUS ends before the position of the fold"))
	}
	switch {
	case upTo > from:
		return r.foldBetween(ctx, from+1, upTo)
	case generation != r.generations.status():
		return r.take(ctx, nil, from) // nothing but which STATUS it is
	}
	return nil
}

// delivered is the sequence in STATUS of the last status that the partition's consumer gave to any replica.
func (r *statusReader) delivered(ctx context.Context) (uint64, error) {
	c, err := r.js.Consumer(ctx, events.StreamStatus, consumerOf(r.p))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return c.CachedInfo().Delivered.Stream, nil
}

// foldBetween folds a part of STATUS, without the consumer.
func (r *statusReader) foldBetween(ctx context.Context, from, to uint64) error {
	var statuses []events.JobStatus
	var last uint64
	flush := func() error {
		err := r.take(ctx, statuses, last)
		statuses = statuses[:0]
		return err
	}
	_, err := r.bus.Replay(ctx, events.StreamStatus, events.StatusPartition(fmt.Sprint(r.p.number)), from, func(m jetstream.Msg) error {
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Stream > to {
			return errEnough
		}
		last = meta.Sequence.Stream
		if status, ok := openStatus(m); ok {
			statuses = append(statuses, status)
		}
		if len(statuses) < changeSize {
			return nil
		}
		return flush()
	})
	if errors.Is(err, bus.ErrWentBack) {
		return errors.Join(r.generations.check(ctx), errors.New("STATUS ends before the position of the fold"))
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return flush()
}

// openStatus reads a stored status by the rules by which the bus admits one; what it refuses is left out:
// the consumer delivers it too, and puts it aside.
func openStatus(m jetstream.Msg) (events.JobStatus, bool) {
	parts := strings.Split(m.Subject(), ".") // chandler.job.<state>.<agent>.<partition>
	if len(parts) != 5 {
		return events.JobStatus{}, false
	}
	kind, ok := events.StatusType(events.State(parts[2]))
	if !ok {
		return events.JobStatus{}, false
	}
	e, err := bus.Open(kind, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
	return e.Data, err == nil && string(e.Data.State) == parts[2]
}

// take folds statuses and stores the change; last is the sequence up to which they are folded then.
func (r *statusReader) take(ctx context.Context, statuses []events.JobStatus, last uint64) error {
	started := time.Now()
	known, err := r.ofKnownOrders(ctx, statuses)
	if err != nil {
		return err
	}
	generation := r.generations.status()
	refused := 0
	err = r.change(ctx, r.p, func(jobs *jobs) outcome {
		o := fold(jobs, known)
		refused = o.refused
		o.delta.folded = max(last, jobs.folded)
		if generation != jobs.status {
			o.delta.folded = last // a position in the former STATUS means nothing
		}
		o.delta.status = generation
		return o
	})
	if err != nil {
		return err
	}
	r.metrics.folded.WithLabelValues("taken").Add(float64(len(known) - refused))
	r.metrics.folded.WithLabelValues("over_limit").Add(float64(refused))
	r.metrics.folded.WithLabelValues("unknown_order").Add(float64(len(statuses) - len(known)))
	r.metrics.foldSeconds.Observe(time.Since(started).Seconds())
	return nil
}

// ofKnownOrders leaves out what no order is known of: the statuses of removed deployments, and inventions.
func (r *statusReader) ofKnownOrders(ctx context.Context, statuses []events.JobStatus) ([]events.JobStatus, error) {
	told := statuses[:0:0]
	missing := map[string]bool{}
	for _, status := range statuses {
		if events.ValidDigest(status.Order) != nil {
			continue
		}
		var k *known
		if !missing[status.Order] {
			var err error
			if k, err = r.orderNamed(ctx, status.Order); err != nil {
				return nil, err
			}
		}
		if k == nil {
			missing[status.Order] = true // all agents of a fleet may speak of it: it is looked up once
			if used, ok := r.orders.revision(status.Deployment, status.Revision); ok {
				told = append(told, usedUp(status, used.Order))
			}
			continue
		}
		if k.Deployment == status.Deployment && k.Revision == status.Revision {
			told = append(told, status)
		}
	}
	return told, nil
}

// offersFromJobs brings back what was offered and not answered yet, to partitions that were loaded from less
// than there once was. A partition that never held anything looks the same; then JOBS holds little.
func (s *Service) offersFromJobs(ctx context.Context) error {
	if !slices.ContainsFunc(s.partitions, func(p *partition) bool { return p.incomplete }) {
		return nil
	}
	found := make([][]job, len(s.partitions))
	_, err := s.bus.Replay(ctx, events.StreamJobs, events.OfferStored("*"), 1, func(m jetstream.Msg) error {
		e, err := bus.Open(events.JobOffered, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
		if err != nil {
			return nil // a cancellation: sent again by the sweep
		}
		o := e.Data
		if k, ok := s.orders.digest(o.Order); ok && k.Deployment == o.Deployment && k.Revision == o.Revision {
			n := events.Partition(o.Agent, len(s.partitions))
			if !s.partitions[n].incomplete {
				return nil
			}
			found[n] = append(found[n], job{deployment: o.Deployment, agent: o.Agent, user: o.User, revision: o.Revision, occurrence: o.Occurrence}.offered(o.Attempt, e.Time))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read offers back: %w", err)
	}
	for n, list := range found {
		if err := s.bringBack(ctx, s.partitions[n], list); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) bringBack(ctx context.Context, p *partition, list []job) error {
	for len(list) > 0 {
		some := list[:min(len(list), changeSize)]
		list = list[len(some):]
		err := s.change(ctx, p, func(jobs *jobs) outcome {
			o, newest := unchanged(jobs), map[jobKey]job{}
			for _, j := range some {
				old, ok := newest[j.key()]
				if !ok {
					old, _ = jobs.find(j.key())
				}
				j.flags = flagStray // an offer does not name the phase
				if old.revision == j.revision {
					j.wave, j.flags = old.wave, old.flags&(flagJoined|flagStray|flagClosed)
				}
				if j.newerThan(old) {
					newest[j.key()] = j
				}
			}
			for _, j := range newest {
				o.delta.jobs = append(o.delta.jobs, j)
			}
			return o
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// usedUp is what follows for the order of a revision where an agent speaks of another order with the same one: services
// were restored from an old copy, or the deployment was removed, and its revisions were given anew. The agent takes
// the job for the one that it had, and never runs this.
func usedUp(status events.JobStatus, order string) events.JobStatus {
	status.Order, status.State, status.Reason, status.WaitingFor = order, events.Rejected, events.OrderSerialOld, ""
	return status
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
