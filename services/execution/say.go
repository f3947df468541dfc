package execution

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
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
	p := s.bus.NewPipeline()
	err := s.sayAll(ctx, o, p)
	if flushed := p.Flush(ctx); err == nil {
		err = flushed
	}
	return err
}

func (s *Service) sayAll(ctx context.Context, o outcome, p *bus.Pipeline) error {
	add := func(m *nats.Msg, err error) error {
		if err != nil {
			return err
		}
		return p.Add(ctx, m)
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
		m, err := historyMessage(end)
		if err != nil {
			return err
		}
		if err := p.AddPlain(ctx, m); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	for _, r := range o.retries {
		m, err := s.timerMessage(r)
		if err != nil {
			return fmt.Errorf("timer: %w", err)
		}
		if err := p.AddPlain(ctx, m); err != nil {
			return fmt.Errorf("timer: %w", err)
		}
	}
	return nil
}

func (s *Service) offerMessage(o events.JobOffer) (*nats.Msg, error) {
	id := events.DeriveID("offer", o.Job, strconv.Itoa(o.Attempt))
	return bus.Message(events.JobOffered, events.Event[events.JobOffer]{ID: id, Source: s.bus.Source(), Subject: o.Agent, Time: s.now(), Trace: s.orders.trace(o.Order), Data: o})
}

// historyMessage is the end of a job as HISTORY keeps it: its data alone.
func historyMessage(end events.JobEnd) (*nats.Msg, error) {
	data, ok := events.AppendEnd(make([]byte, 0, 512), &end)
	if !ok {
		var err error
		if data, err = json.Marshal(end); err != nil {
			return nil, err
		}
	}
	return &nats.Msg{Subject: events.HistorySubject(end.Agent), Data: data, Header: nats.Header{jetstream.MsgIDHeader: {endID("history", end)}}}, nil
}

func endID(kind string, e events.JobEnd) string {
	return events.DeriveID(kind, e.Job, string(e.State), strconv.Itoa(e.Attempt), strconv.FormatUint(uint64(e.Transition), 10), strconv.FormatBool(e.Silent))
}
