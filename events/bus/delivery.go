package bus

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// delivery is one message that the broker gave to this process. It is a [jetstream.Msg], made here because
// the client's own cannot be (see puller).
type delivery struct {
	conn *nats.Conn
	msg  *nats.Msg
	meta jetstream.MsgMetadata

	next, previous *delivery // in the ring of a tracker; nil: in none
}

var _ jetstream.Msg = (*delivery)(nil)

func newDelivery(conn *nats.Conn, m *nats.Msg) (*delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	return &delivery{conn: conn, msg: m, meta: jetstream.MsgMetadata{
		Sequence: jetstream.SequencePair{Consumer: meta.Sequence.Consumer, Stream: meta.Sequence.Stream}, NumDelivered: meta.NumDelivered, NumPending: meta.NumPending,
		Timestamp: meta.Timestamp, Stream: meta.Stream, Consumer: meta.Consumer, Domain: meta.Domain,
	}}, nil
}

func (d *delivery) Metadata() (*jetstream.MsgMetadata, error) { return &d.meta, nil }
func (d *delivery) Data() []byte                              { return d.msg.Data }
func (d *delivery) Headers() nats.Header                      { return d.msg.Header }
func (d *delivery) Subject() string                           { return d.msg.Subject }
func (d *delivery) Reply() string                             { return d.msg.Reply }

// What a message's reader tells the broker. None of it waits for an answer, but for DoubleAck.
func (d *delivery) Ack() error        { return d.tell("+ACK") }
func (d *delivery) Nak() error        { return d.tell("-NAK") }
func (d *delivery) InProgress() error { return d.tell("+WPI") }
func (d *delivery) Term() error       { return d.tell("+TERM") }

func (d *delivery) NakWithDelay(delay time.Duration) error {
	return d.tell(`-NAK {"delay":` + strconv.FormatInt(delay.Nanoseconds(), 10) + "}")
}

func (d *delivery) TermWithReason(reason string) error { return d.tell("+TERM " + reason) }

func (d *delivery) DoubleAck(ctx context.Context) error {
	_, err := d.conn.RequestWithContext(ctx, d.msg.Reply, []byte("+ACK"))
	return err
}

func (d *delivery) tell(word string) error { return d.conn.Publish(d.msg.Reply, []byte(word)) }

func (d *delivery) describe(typeName string) Meta {
	return Meta{Type: typeName, StreamSequence: d.meta.Sequence.Stream, Delivered: d.meta.NumDelivered, Subject: d.Subject(), Stored: d.meta.Timestamp,
		Pending: d.meta.NumPending, Pin: pinOf(d.msg)}
}

// pinOf is the pin under which the broker delivered a message. It writes its header behind one that the
// message's sender may have set.
func pinOf(m *nats.Msg) string {
	pins := m.Header[headerPin]
	if len(pins) == 0 {
		return ""
	}
	return pins[len(pins)-1]
}

// tracker knows every delivery that is not settled. While the process lives it keeps the broker from
// giving them to somebody else, however long their handlers take.
type tracker struct {
	mu   sync.Mutex
	open delivery // the ring of the open ones: its next is the oldest; itself it is none
}

func newTracker() *tracker {
	t := &tracker{}
	t.open.next, t.open.previous = &t.open, &t.open
	return t
}

func (t *tracker) add(d *delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.next == nil {
		last := t.open.previous
		d.previous, d.next = last, &t.open
		last.next, t.open.previous = d, d
	}
}

// settled takes deliveries off. It comes before the acknowledgement: a sign of life after it would be an
// error at the broker.
func (t *tracker) settled(all ...*delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range all {
		t.drop(d)
	}
}

// drop takes one off; mu is held.
func (t *tracker) drop(d *delivery) {
	if d.next != nil {
		d.previous.next, d.next.previous = d.next, d.previous
		d.next, d.previous = nil, nil
	}
}

// keep tells the broker three times per AckWait that the open deliveries are being worked on.
func (t *tracker) keep(ctx context.Context, ackWait time.Duration) {
	tick := time.NewTicker(ackWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.mu.Lock()
		for d := t.open.next; d != &t.open; d = d.next {
			_ = d.InProgress() // a broken connection shows in the pull
		}
		t.mu.Unlock()
	}
}

// release gives the open deliveries back at once and in order, so that another replica has them without
// waiting.
func (t *tracker) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*delivery
	for t.open.next != &t.open {
		all = append(all, t.open.next)
		t.drop(t.open.next)
	}
	slices.SortStableFunc(all, func(a, b *delivery) int { return cmp.Compare(a.meta.Sequence.Stream, b.meta.Sequence.Stream) })
	for _, d := range all {
		_ = d.Nak() // the broker finds out by itself after AckWait
	}
}
