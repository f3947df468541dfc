package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"chandler/events"
	"chandler/events/bus"
)

// examineTopology compares what is stored with what is declared.
func examineTopology(ctx context.Context, c *client) ([]finding, error) {
	const advice = "restart a service: each makes what is missing at its start"
	js := c.bus.JetStream()
	var found []finding
	for _, s := range events.Streams() {
		stream, err := js.Stream(ctx, s.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			found = append(found, problem("stream "+s.Name, advice, "is missing: %s", s.Description))
			continue
		}
		if err != nil {
			return found, fmt.Errorf("look at stream %s: %w", s.Name, err)
		}
		config := stream.CachedInfo().Config
		for _, subject := range s.Subjects {
			if !slices.Contains(config.Subjects, subject) {
				found = append(found, problem("stream "+s.Name, advice, "does not take %s", subject))
			}
		}
	}
	for _, b := range events.Buckets() {
		var err error
		if b.Objects {
			_, err = js.ObjectStore(ctx, b.Name)
		} else {
			_, err = js.KeyValue(ctx, b.Name)
		}
		if errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
			found = append(found, problem("bucket "+b.Name, advice, "is missing: %s", b.Description))
		} else if err != nil {
			return found, fmt.Errorf("look at bucket %s: %w", b.Name, err)
		}
	}
	if len(found) == 0 {
		found = append(found, ok("topology", "%d streams and %d buckets are as declared", len(events.Streams()), len(events.Buckets())))
	}
	return found, nil
}

// pingTime is how long services are waited for.
const pingTime = 2 * time.Second

// examineServices asks every service to answer.
func examineServices(ctx context.Context, c *client) ([]finding, error) {
	var found []finding
	for _, name := range services() {
		ping, err := pingService(ctx, c.bus.Conn(), name, pingTime)
		if err != nil {
			found = append(found, problem("service "+name, "start it with `chandler serve "+name+"`, or everything with `chandler up`", "does not answer"))
			continue
		}
		found = append(found, ok("service "+name, "version %s answers", ping.Version))
	}
	return found, nil
}

// pingService waits for one instance of a service to answer.
func pingService(ctx context.Context, nc *nats.Conn, name string, patience time.Duration) (micro.Ping, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var ping micro.Ping
	subject, err := micro.ControlSubject(micro.PingVerb, name, "")
	if err != nil {
		return ping, err
	}
	answer, err := nc.RequestWithContext(ctx, subject, nil)
	if err != nil {
		return ping, err
	}
	return ping, json.Unmarshal(answer.Data, &ping)
}

// lagging is the number of events behind which a reader is called slow.
const lagging = 10_000

// examineConsumers looks how far the services' readers are behind.
func examineConsumers(ctx context.Context, c *client) ([]finding, error) {
	var found []finding
	total, readers := uint64(0), 0
	for _, s := range events.Streams() {
		stream, err := c.bus.JetStream().Stream(ctx, s.Name)
		if err != nil {
			continue // examineTopology has said so
		}
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			if info.Config.Durable == "" {
				continue // somebody who looks, not a service
			}
			readers++
			total += info.NumPending
			if info.NumPending > lagging {
				found = append(found, warning("reader "+info.Name, "look at the metrics and the log of its service", "is %s events behind in %s, %s not acknowledged",
					count(info.NumPending), s.Name, count(info.NumAckPending)))
			}
		}
		if err := list.Err(); err != nil {
			return found, fmt.Errorf("list readers of %s: %w", s.Name, err)
		}
	}
	if len(found) == 0 {
		found = append(found, ok("readers", "%s, %s events behind together", plural(readers, "reader", "readers"), count(total)))
	}
	return found, nil
}

// lettersShown is how many of the last dead letters are looked at.
const lettersShown = 20

// examineDeadLetters says how many events nobody could take, and why the last of them.
func (a *app) examineDeadLetters(ctx context.Context, c *client) ([]finding, error) {
	stream, err := c.bus.JetStream().Stream(ctx, events.StreamDeadLetter)
	if err != nil {
		return nil, fmt.Errorf("look at dead letters: %w", err)
	}
	state := stream.CachedInfo().State
	if state.Msgs == 0 {
		return []finding{ok("dead letters", "none")}, nil
	}
	counts := map[string]int{}
	var reasons []string
	for seq := state.LastSeq; seq >= state.FirstSeq && seq+lettersShown > state.LastSeq && seq > 0; seq-- {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil {
			continue // removed since
		}
		reason := fmt.Sprintf("%s of %s in %s", cellOr(m.Header.Get(bus.HeaderReason), "no reason"), cellOr(m.Header.Get("ce-type"), "no event"), m.Header.Get(bus.HeaderStream))
		if counts[reason]++; counts[reason] == 1 {
			reasons = append(reasons, reason)
		}
	}
	for i, r := range reasons {
		reasons[i] = fmt.Sprintf("%d × %s", counts[r], r)
	}
	return []finding{warning("dead letters", "they stay for 90 days in stream DEADLETTER; the header Chandler-Error of each says more", "%s; of the last: %s; the newest %s",
		count(state.Msgs), firstOf(reasons, 5), a.ago(state.LastTime))}, nil
}
