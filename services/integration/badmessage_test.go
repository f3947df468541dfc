package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// lastStored copies the newest stored message on a subject, as somebody who may read it could, without what
// the broker would know it again by.
func (f *fleet) lastStored(stream, subject string) *nats.Msg {
	f.t.Helper()
	s, err := f.owner.JetStream().Stream(f.t.Context(), stream)
	must(f.t, err)
	m, err := s.GetLastMsgForSubject(f.t.Context(), subject)
	must(f.t, err)
	header := nats.Header(maps.Clone(m.Header))
	maps.DeleteFunc(header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Nats-") })
	return &nats.Msg{Subject: m.Subject, Header: header, Data: m.Data}
}

// send publishes a message to a stream and returns its sequence there.
func (f *fleet) send(m *nats.Msg) uint64 {
	f.t.Helper()
	ack, err := f.owner.JetStream().PublishMsg(f.t.Context(), m)
	must(f.t, err)
	return ack.Sequence
}

// refusal waits for the dead letter of a stored message and returns its reason and its error.
func (f *fleet) refusal(stream string, sequence uint64) (reason, text string) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("a dead letter of %s %d", stream, sequence), func() bool {
		_, err := f.owner.Replay(f.t.Context(), events.StreamDeadLetter, events.DeadLetterSubject(stream), 1, func(m jetstream.Msg) error {
			if m.Headers().Get(bus.HeaderSequence) == fmt.Sprint(sequence) {
				reason, text = m.Headers().Get(bus.HeaderReason), m.Headers().Get(bus.HeaderError)
			}
			return nil
		})
		return err == nil && reason != ""
	})
	return reason, text
}

// letters is what a service counted of dead letters with a reason.
func (f *fleet) letters(service, stream, reason string) float64 {
	f.t.Helper()
	return f.counted(service, "chandler_bus_dead_letters_total", fmt.Sprintf(`stream=%q`, stream), fmt.Sprintf(`reason=%q`, reason))
}

// worksAsBefore deploys once more to everyone.
func (f *fleet) worksAsBefore(p events.PackageInfo, machines ...*machine) {
	f.t.Helper()
	f.deploy("afterwards", p)
	for _, m := range machines {
		f.want("afterwards", m, events.Succeeded)
	}
	f.check("afterwards", machines...)
}

// TestCopiedMessagesChangeNothing copies what one agent may read or say to where it is another's.
func TestCopiedMessagesChangeNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := f.machine("a"), f.machine("b")
	p := f.publish("1.0", payload, "")
	f.everyone(2)
	const onlyA = `agent.hostname == "a"`
	mustAsk(f, events.CollectionSet, events.Collection{Name: "only-a", Expression: onlyA})
	f.deploy("for-a", p, func(o *order.Order) { o.Collection, o.Expression = "only-a", onlyA })
	f.want("for-a", a, events.Succeeded)

	offer := f.lastStored(events.StreamJobs, events.OfferStored(a.id))
	offer.Subject = events.OfferRepublished(b.id)
	must(t, f.owner.Conn().PublishMsg(offer))
	offer.Subject = events.OfferStored(b.id)
	f.send(offer)
	eventually(t, "b has refused both", func() bool {
		return strings.Contains(b.log(), "header Nats-") && strings.Contains(b.log(), "it names agent")
	})

	status := f.lastStored(events.StreamStatus, events.JobSucceeded.Subject(a.id)+".*")
	for name, change := range map[string]func(m *nats.Msg){
		"under another agent's subject": func(m *nats.Msg) {},
		"with another agent's subject and source": func(m *nats.Msg) {
			m.Header.Set("ce-subject", b.id)
			m.Header.Set("ce-source", events.AgentSource(b.id))
		},
		"with another agent's subject, under the agent's own": func(m *nats.Msg) { m.Subject = events.JobSucceeded.Subject(a.id); m.Header.Set("ce-subject", b.id) },
		"with another agent's source, under the agent's own": func(m *nats.Msg) {
			m.Subject = events.JobSucceeded.Subject(a.id)
			m.Header.Set("ce-source", events.AgentSource(b.id))
		},
		"of another state, under the agent's own subject": func(m *nats.Msg) { m.Subject = events.JobFailed.Subject(a.id) },
		"of another state and type, under the agent's own name": func(m *nats.Msg) {
			m.Subject = events.JobFailed.Subject(a.id)
			m.Header.Set("ce-type", events.JobFailed.Name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := f.letters("execution", events.StreamStatus, "disagrees")
			m := &nats.Msg{Subject: events.JobSucceeded.Subject(b.id), Header: nats.Header(maps.Clone(status.Header)), Data: status.Data}
			change(m)
			if reason, text := f.refusal(events.StreamStatus, f.send(m)); reason != "disagrees" || text == "" {
				t.Errorf("refused as %s: %s", reason, text)
			}
			eventually(t, "the letter is counted", func() bool { return f.letters("execution", events.StreamStatus, "disagrees") == before+1 })
		})
	}

	if row, ok := f.row("for-a", b); ok {
		t.Errorf("b has a job: %+v", row)
	}
	f.counts("for-a", map[events.State]int64{events.Succeeded: 1})
	f.worksAsBefore(p, a, b)
	if a, b := len(a.ran()), len(b.ran()); a != 2 || b != 1 {
		t.Errorf("a ran %d programs, b %d", a, b)
	}
	b.stop()
	if n := b.counted("chandler_inbox_refused_total"); n != 2 {
		t.Errorf("b counted %v refused messages", n)
	}
}

// TestBadEventsAreDeadLetters sends what no service can take to streams that they read.
func TestBadEventsAreDeadLetters(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("first", p)
	f.want("first", m, events.Succeeded)
	type consumer struct{ stream, name string }
	kept := map[consumer]uint64{} // sequence of what needs a newer reader
	consumers := map[string]string{"scheduling": "scheduling", "execution": fmt.Sprintf("execution-%d", events.Partition(m.id, events.Partitions))}
	for reader, good := range map[string]*nats.Msg{
		"scheduling": f.lastStored(events.StreamEvents, events.AgentReported.Subject(m.id)),
		"execution":  f.lastStored(events.StreamStatus, events.JobSucceeded.Subject(m.id)+".*"),
	} {
		stream := events.StreamEvents
		if reader == "execution" {
			stream, good.Subject = events.StreamStatus, events.JobSucceeded.Subject(m.id) // stored with its partition
		}
		for name, c := range map[string]struct {
			change func(m *nats.Msg)
			reason string
		}{
			"is no event":                  {func(m *nats.Msg) { m.Header, m.Data = nil, []byte("hello") }, "not_cloudevent"},
			"has no type":                  {func(m *nats.Msg) { m.Header.Del("ce-type") }, "not_cloudevent"},
			"is not JSON":                  {func(m *nats.Msg) { m.Data = []byte(`{"job":`) }, "not_json"},
			"says that it is not JSON":     {func(m *nats.Msg) { m.Header.Set("ce-datacontenttype", "text/plain") }, "not_json"},
			"is of an unknown type":        {func(m *nats.Msg) { m.Header.Set("ce-type", events.TypePrefix+"job.exploded.v1") }, "unknown_type"},
			"fails its schema":             {func(m *nats.Msg) { m.Data = []byte(`{}`) }, "schema"},
			"has a field of another kind":  {func(m *nats.Msg) { m.Data = replaced(m.Data, "at", 7) }, "schema"},
			"was sent on by a broker":      {func(m *nats.Msg) { m.Header.Set(jetstream.StreamHeader, "OTHER") }, "relayed"},
			"comes from a service instead": {func(m *nats.Msg) { m.Header.Set("ce-source", events.ServiceSource("execution")) }, "disagrees"},
		} {
			t.Run(reader+" reads what "+name, func(t *testing.T) {
				before := f.letters(reader, stream, c.reason)
				bad := &nats.Msg{Subject: good.Subject, Header: nats.Header(maps.Clone(good.Header)), Data: good.Data}
				c.change(bad)
				if reason, text := f.refusal(stream, f.send(bad)); reason != c.reason || text == "" {
					t.Errorf("refused as %q, not %q: %s", reason, c.reason, text)
				}
				eventually(t, "the letter is counted", func() bool { return f.letters(reader, stream, c.reason) == before+1 })
			})
		}
		t.Run(reader+" keeps what is newer than itself for later", func(t *testing.T) {
			known, _ := events.TypeNamed(good.Header.Get("ce-type"))
			newer := &nats.Msg{Subject: good.Subject, Header: nats.Header(maps.Clone(good.Header)), Data: good.Data}
			newer.Header.Set("ce-type", strings.TrimSuffix(known.Name, "1")+"2")
			kept[consumer{stream, consumers[reader]}] = f.send(newer)
			eventually(t, "the newer event is noticed", func() bool {
				return f.counted(reader, "chandler_bus_newer_events_total", fmt.Sprintf(`type=%q`, known.Name)) >= 1
			})
			if n := f.letters(reader, stream, "newer_version"); n != 0 {
				t.Errorf("%v newer events are dead letters", n)
			}
		})
	}
	f.counts("first", map[events.State]int64{events.Succeeded: 1})
	f.worksAsBefore(f.publish("2.0", payload, ""), m)
	for c, sequence := range kept {
		info, err := f.owner.JetStream().Consumer(t.Context(), c.stream, c.name)
		must(t, err)
		// Later events were settled, this one is still owed: it will come again.
		if i := info.CachedInfo(); i.AckFloor.Stream >= sequence || i.Delivered.Stream <= sequence {
			t.Errorf("consumer %s has settled everything up to %d, the newer event is %d", c.name, i.AckFloor.Stream, sequence)
		}
	}
}

// replaced gives a JSON object with another value of a field.
func replaced(data []byte, field string, value any) []byte {
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		return data
	}
	object[field] = value
	changed, err := json.Marshal(object)
	if err != nil {
		return data
	}
	return changed
}
