package execution

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// sayTime bounds the publications of one change.
const sayTime = time.Minute

// say publishes what an outcome states, and returns once all of it is stored. Ids are derived from what is
// stated, so saying it twice is harmless.
func (s *Service) say(ctx context.Context, o outcome) error {
	if len(o.offers)+len(o.cancels)+len(o.ends)+len(o.retries) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sayTime)
	defer cancel()
	stored, plain := s.bus.NewPipeline(), plainPipeline{js: s.js}
	err := s.sayAll(ctx, o, stored, &plain)
	if flushed := stored.Flush(ctx); err == nil {
		err = flushed
	}
	if flushed := plain.flush(ctx); err == nil {
		err = flushed
	}
	return err
}

func (s *Service) sayAll(ctx context.Context, o outcome, stored *bus.Pipeline, plain *plainPipeline) error {
	add := func(m *nats.Msg, err error) error {
		if err != nil {
			return err
		}
		return stored.Add(ctx, m)
	}
	for _, offer := range o.offers {
		if err := add(s.offerMessage(offer)); err != nil {
			return fmt.Errorf("offer: %w", err)
		}
	}
	for _, c := range o.cancels {
		if err := add(bus.Message(events.JobCancelRequested, events.Event[events.CancelRequest]{ID: events.DeriveID("cancel", c.Stop, c.Agent),
			Source: s.bus.Source(), Subject: c.Agent, Time: s.now(), Trace: s.orders.traceOf(c.Deployment, c.Revision), Data: c})); err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
	}
	for _, end := range o.ends {
		if err := add(bus.Message(events.JobFinished, events.Event[events.JobEnd]{ID: endID("finished", end), Source: s.bus.Source(), Subject: end.Agent, Time: end.At,
			Trace: s.orders.trace(end.Order), Data: end})); err != nil {
			return fmt.Errorf("finish: %w", err)
		}
		data, err := json.Marshal(end)
		if err != nil {
			return err
		}
		if err := plain.add(&nats.Msg{Subject: events.HistorySubject(end.Agent), Data: data, Header: nats.Header{jetstream.MsgIDHeader: {endID("history", end)}}}); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	for _, r := range o.retries {
		m, err := s.timerMessage(r)
		if err != nil {
			return fmt.Errorf("timer: %w", err)
		}
		if err := plain.add(m, jetstream.WithScheduleAt(roundUp(r.due, s.now())), jetstream.WithScheduleTarget(events.TimerDue.Subject("execution"))); err != nil {
			return fmt.Errorf("timer: %w", err)
		}
	}
	return nil
}

func (s *Service) offerMessage(o events.JobOffer) (*nats.Msg, error) {
	id := events.DeriveID("offer", o.Job, fmt.Sprint(o.Attempt))
	return bus.Message(events.JobOffered, events.Event[events.JobOffer]{ID: id, Source: s.bus.Source(), Subject: o.Agent, Time: s.now(), Trace: s.orders.trace(o.Order), Data: o})
}

func endID(kind string, e events.JobEnd) string {
	return events.DeriveID(kind, e.Job, string(e.State), fmt.Sprint(e.Attempt), fmt.Sprint(e.Transition), fmt.Sprint(e.Silent))
}

// plainPipeline stores messages that are no events, or go to other subjects than their type's. Its window is
// the connection's: beyond it, add waits.
type plainPipeline struct {
	js     jetstream.JetStream
	flight []jetstream.PubAckFuture
}

func (p *plainPipeline) add(m *nats.Msg, opts ...jetstream.PublishOpt) error {
	future, err := p.js.PublishMsgAsync(m, append(opts, jetstream.WithStallWait(10*time.Second))...)
	if err != nil {
		return fmt.Errorf("publish %s: %w", m.Subject, err)
	}
	p.flight = append(p.flight, future)
	return nil
}

func (p *plainPipeline) flush(ctx context.Context) error {
	for _, future := range p.flight {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			return fmt.Errorf("publish %s: %w", future.Msg().Subject, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
