package bus

import (
	"cmp"
	"context"
	"maps"
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
	pins := m.Header["Nats-Pin-Id"]
	if len(pins) == 0 {
		return ""
	}
	return pins[len(pins)-1]
}

// tracker knows every delivery that is not settled. While the process lives it keeps the broker from
// giving them to somebody else, however long their handlers take.
type tracker struct {
	mu   sync.Mutex
	open map[*delivery]struct{}
}

func (t *tracker) add(d *delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[d] = struct{}{}
}

// settled takes a delivery off. It comes before the acknowledgement: a sign of life after it would be an
// error at the broker.
func (t *tracker) settled(d *delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, d)
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
		for d := range t.open {
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
	for _, d := range slices.SortedFunc(maps.Keys(t.open), func(a, b *delivery) int { return cmp.Compare(a.meta.Sequence.Stream, b.meta.Sequence.Stream) }) {
		_ = d.Nak() // the broker finds out by itself after AckWait
	}
	clear(t.open)
}
