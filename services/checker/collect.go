package checker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// Collect hears the streams and the services about deployments (none: all that EVENTS names). The bus must be one that may make
// consumers, and caller the name under which it may ask what viewers may ask. It reads each stream once, to the message that was its last when it began. What cannot be
// read as an event is left out, as the services leave it out. The caller of Collect adds what the agents and whoever ran the
// programs know: Journals, Runs, Acknowledged, and who is Away.
func Collect(ctx context.Context, b *bus.Bus, caller string, deployments []string) (Evidence, error) {
	c := collector{bus: b, caller: caller, page: defaultPage, only: map[string]bool{}, words: map[string]string{}}
	return c.collect(ctx, deployments)
}

func (c *collector) collect(ctx context.Context, deployments []string) (Evidence, error) {
	c.Orders, c.Stops, c.Released, c.Counts = []Order{}, []Stop{}, []Release{}, []Count{}
	c.Offers, c.Stored, c.Finished, c.History, c.Jobs = []Offer{}, []Status{}, []End{}, []End{}, []events.JobRow{}
	c.Since, c.OffersSince, c.Deployments = map[Witness]time.Time{}, map[string]time.Time{}, deployments
	for _, d := range deployments {
		c.only[d] = true
	}
	for _, step := range []func(context.Context) error{c.fromEvents, c.offers, c.statuses, c.history, c.services} {
		if err := step(ctx); err != nil {
			return Evidence{}, fmt.Errorf("collect evidence: %w", err)
		}
	}
	return c.Evidence, nil
}

// collector is one call of Collect.
type collector struct {
	Evidence
	bus    *bus.Bus
	caller string
	page   int               // jobs to ask for at once
	only   map[string]bool   // deployments; empty: all
	words  map[string]string // each kept once
}

func (c *collector) wants(deployment string) bool { return len(c.only) == 0 || c.only[deployment] }

// word is s, which need not be kept with the message it came in.
func (c *collector) word(s string) string {
	if kept, ok := c.words[s]; ok {
		return kept
	}
	s = strings.Clone(s)
	c.words[s] = s
	return s
}

func (c *collector) name(job, deployment string, revision uint64, agent string, occurrence int64, user string) Name {
	return Name{Job: c.word(job), Deployment: c.word(deployment), Revision: revision, Agent: c.word(agent), Occurrence: occurrence, User: c.word(user)}
}

// since is when a stream began to hold everything: its creation, or its oldest message where older ones are gone.
func (c *collector) since(ctx context.Context, stream string, who Witness) error {
	there, err := c.bus.JetStream().Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", stream, err)
	}
	info := there.CachedInfo()
	switch state := info.State; {
	case state.FirstSeq <= 1:
		c.Since[who] = info.Created
	case state.Msgs == 0:
		c.Since[who] = time.Now()
	default:
		c.Since[who] = state.FirstTime
	}
	return nil
}

// read gives every event of a type that its stream holds, with where and when it was stored.
func read[T any](ctx context.Context, c *collector, t events.Type[T], each func(e events.Event[T], m *jetstream.MsgMetadata)) error {
	_, err := c.bus.Replay(ctx, t.Stream, t.Filter(), 1, func(m jetstream.Msg) error {
		e, err := bus.Open(t, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
		if err != nil {
			return nil
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		each(e, meta)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", t.Name, err)
	}
	return nil
}

func (c *collector) fromEvents(ctx context.Context) error {
	if err := c.since(ctx, events.StreamEvents, InEvents); err != nil {
		return err
	}
	return errors.Join(
		read(ctx, c, events.DeploymentCreated, func(e events.Event[events.DeploymentOrder], _ *jetstream.MsgMetadata) {
			o, digest, err := order.Open(e.Data.Envelope)
			if err == nil && digest == e.Data.Order && c.wants(o.Deployment) {
				c.Orders = append(c.Orders, Order{Deployment: c.word(o.Deployment), Revision: o.Revision, Order: c.word(digest), Standing: o.Standing(), Occurrence: o.Occurrence(), At: e.Time})
			}
		}),
		read(ctx, c, events.DeploymentHalted, func(e events.Event[events.DeploymentNotice], _ *jetstream.MsgMetadata) { c.stop(e.Data, false) }),
		read(ctx, c, events.DeploymentRemoved, func(e events.Event[events.DeploymentNotice], _ *jetstream.MsgMetadata) { c.stop(e.Data, true) }),
		read(ctx, c, events.DeploymentReleased, func(e events.Event[events.Release], m *jetstream.MsgMetadata) {
			r := e.Data
			if !c.wants(r.Deployment) {
				return
			}
			kept := Release{Deployment: c.word(r.Deployment), Revision: r.Revision, Order: c.word(r.Order), Wave: c.word(r.Wave), Batch: r.Batch, Attempt: r.Attempt, At: e.Time, Sequence: m.Sequence.Stream}
			for _, agent := range r.Agents {
				kept.Agents = append(kept.Agents, c.word(agent))
			}
			c.Released = append(c.Released, kept)
		}),
		read(ctx, c, events.JobFinished, func(e events.Event[events.JobEnd], m *jetstream.MsgMetadata) {
			c.Finished = c.end(c.Finished, e.Data, m)
		}))
}

func (c *collector) stop(n events.DeploymentNotice, removed bool) {
	if c.wants(n.Deployment) {
		c.Stops = append(c.Stops, Stop{Deployment: c.word(n.Deployment), Revision: n.Revision, Removed: removed, At: n.At})
	}
}

func (c *collector) end(list []End, e events.JobEnd, m *jetstream.MsgMetadata) []End {
	if !c.wants(e.Deployment) {
		return list
	}
	return append(list, End{Name: c.name(e.Job, e.Deployment, e.Revision, e.Agent, e.Occurrence, e.User), Attempt: e.Attempt, Transition: e.Transition,
		State: events.State(c.word(string(e.State))), Reason: events.Reason(c.word(string(e.Reason))), Silent: e.Silent, At: e.At, Sequence: m.Sequence.Stream})
}

// offers reads JOBS. Of an agent that has as many messages there as the stream keeps of each, older ones may be gone.
func (c *collector) offers(ctx context.Context) error {
	if err := c.since(ctx, events.StreamJobs, InJobs); err != nil {
		return err
	}
	type kept struct {
		n      int64
		oldest time.Time
	}
	messages := map[string]kept{}
	_, err := c.bus.Replay(ctx, events.StreamJobs, events.OfferStored("*"), 1, func(m jetstream.Msg) error {
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		agent := c.word(m.Subject()[len(events.OfferStored("")):])
		k := messages[agent]
		if k.n++; k.n == 1 {
			k.oldest = meta.Timestamp
		}
		messages[agent] = k
		msg := &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()}
		if e, err := bus.Open(events.JobOffered, msg); err == nil {
			if o := e.Data; c.wants(o.Deployment) {
				c.Offers = append(c.Offers, Offer{Name: c.name(o.Job, o.Deployment, o.Revision, o.Agent, o.Occurrence, o.User), Order: c.word(o.Order), Attempt: o.Attempt, At: e.Time, Sequence: meta.Sequence.Stream})
			}
		} else if e, err := bus.Open(events.JobCancelRequested, msg); err == nil && c.wants(e.Data.Deployment) {
			c.Stops = append(c.Stops, Stop{Deployment: c.word(e.Data.Deployment), Revision: e.Data.Revision, At: e.Time})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read offers: %w", err)
	}
	most := mostOfAgent()
	for agent, k := range messages {
		if most > 0 && k.n >= most {
			c.OffersSince[agent] = k.oldest
		}
	}
	return nil
}

// mostOfAgent is how many messages of an agent JOBS keeps; 0: all.
func mostOfAgent() int64 {
	for _, s := range events.Streams() {
		if s.Name == events.StreamJobs {
			return s.MaxPerSubject
		}
	}
	return 0
}

func (c *collector) statuses(ctx context.Context) error {
	if err := c.since(ctx, events.StreamStatus, InStatus); err != nil {
		return err
	}
	_, err := c.bus.Replay(ctx, events.StreamStatus, events.StatusPartition("*"), 1, func(m jetstream.Msg) error {
		parts := strings.Split(m.Subject(), ".") // chandler.job.<state>.<agent>.<partition>
		if len(parts) != 5 {
			return nil
		}
		kind, ok := events.StatusType(events.State(parts[2]))
		if !ok {
			return nil
		}
		e, err := bus.Open(kind, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
		if err != nil || string(e.Data.State) != parts[2] || !c.wants(e.Data.Deployment) {
			return nil
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		c.Stored = append(c.Stored, c.status(e, meta))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read statuses: %w", err)
	}
	return nil
}

func (c *collector) status(e events.Event[events.JobStatus], m *jetstream.MsgMetadata) Status {
	s := e.Data
	kept := Status{Name: c.name(s.Job, s.Deployment, s.Revision, s.Agent, s.Occurrence, s.User), ID: strings.Clone(e.ID), Order: c.word(s.Order), Step: c.word(s.Step),
		Attempt: s.Attempt, Transition: s.Transition, State: events.State(c.word(string(s.State))), Reason: events.Reason(c.word(string(s.Reason))),
		At: s.At, Sequence: m.Sequence.Stream}
	if s.ExitCode != nil {
		kept.Exited, kept.Exit = true, *s.ExitCode
	}
	return kept
}

// history reads HISTORY, which holds no events.
func (c *collector) history(ctx context.Context) error {
	if err := c.since(ctx, events.StreamHistory, InHistory); err != nil {
		return err
	}
	_, err := c.bus.Replay(ctx, events.StreamHistory, events.HistorySubject("*"), 1, func(m jetstream.Msg) error {
		var end events.JobEnd
		if err := json.Unmarshal(m.Data(), &end); err != nil || events.HistorySubject(end.Agent) != m.Subject() || end.Validate() != nil {
			return nil // not execution's
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		c.History = c.end(c.History, end, meta)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read history: %w", err)
	}
	return nil
}
