package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// browseBatch and browseBytes bound one batch of direct gets; the broker exceeds the bytes by at most one
	// message.
	browseBatch, browseBytes = 512, 1 << 20

	headerPending = "Nats-Num-Pending"
	headerLast    = "Nats-Last-Sequence"
)

// cursor is the way through the messages of one filter.
type cursor struct {
	filter string
	next   uint64      // sequence to ask from; 0: nothing has come yet
	held   []*delivery // in order, not handed on yet
	dry    uint64      // up to this sequence the filter matches nothing more
	stale  bool        // the broker is to be asked in any case
}

// behind says whether the broker must be asked before it is known what comes up to sequence need.
func (c *cursor) behind(need uint64) bool {
	return len(c.held) == 0 && (c.stale || c.dry < need)
}

// batchGet is the body of a direct get of many messages (ADR-31 of NATS).
type batchGet struct {
	Sequence uint64     `json:"seq,omitempty"`
	Since    *time.Time `json:"start_time,omitempty"`
	Filter   string     `json:"next_by_subj"`
	Batch    int        `json:"batch"`
	MaxBytes int        `json:"max_bytes"`
}

// get asks for the next batch of a cursor. What came before an error is kept: the next batch goes on behind
// it.
func (w *browser) get(ctx context.Context, c *cursor) error {
	ctx, cancel := w.asking(ctx)
	defer cancel()
	ask := batchGet{Sequence: max(c.next, 1), Filter: c.filter, Batch: browseBatch, MaxBytes: w.maxBytes}
	if c.next == 0 && !w.Since.IsZero() {
		ask.Sequence, ask.Since = 0, &w.Since
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return failed{err}
	}
	w.gets++
	reply := w.inbox + "." + strconv.Itoa(w.gets)
	if err := w.bus.conn.PublishRequest(w.bus.api+"DIRECT.GET."+w.Stream, reply, body); err != nil {
		return err
	}
	known, before := w.stored, uint64(0)
	for {
		m, err := w.answers.NextMsgWithContext(ctx)
		if err != nil {
			return fmt.Errorf("the broker does not answer the direct get: %w", err)
		}
		if m.Subject != reply { // to a get that was given up
			continue
		}
		w.heard = true
		if !isStored(m) {
			return c.close(m, known, before)
		}
		if before, err = c.take(w.bus.conn, m, w.Stream, before); err != nil {
			return err
		}
		newest := c.held[len(c.held)-1]
		w.note(before, newest.meta.Timestamp)
	}
}

// newest asks for the newest message of the whole stream; 0: there is none. By ">" the broker finds it at
// once, but does not look further where the last one was deleted.
func (w *browser) newest(ctx context.Context) (sequence uint64, at time.Time, err error) {
	for _, pattern := range []string{">", "*.>"} {
		m, err := w.bus.conn.RequestWithContext(ctx, w.bus.api+"DIRECT.GET."+w.Stream, []byte(`{"last_by_subj":"`+pattern+`"}`))
		if err != nil {
			return 0, at, fmt.Errorf("ask for the newest message: %w", err)
		}
		if isStored(m) {
			d, _, err := fromDirectGet(w.bus.conn, m, false)
			if err != nil {
				return 0, at, err
			}
			return d.meta.Sequence.Stream, d.meta.Timestamp, nil
		}
		if code := m.Header.Get("Status"); code != "404" {
			return 0, at, fmt.Errorf("ask for the newest message: %q %s", code, m.Header.Get("Description"))
		}
	}
	return 0, at, nil
}

// isStored tells a message of the stream from the broker's own word, whatever the message's sender wrote
// into it: only to the former the broker adds where it comes from.
func isStored(m *nats.Msg) bool { return len(m.Header[jetstream.StreamHeader]) > 0 }

// take holds one message of the batch; each names the one before it.
func (c *cursor) take(conn *nats.Conn, m *nats.Msg, stream string, before uint64) (sequence uint64, err error) {
	d, previous, err := fromDirectGet(conn, m, true)
	if err != nil {
		return before, err
	}
	sequence = d.meta.Sequence.Stream
	if d.meta.Stream != stream || previous != before || sequence < c.next {
		return before, fmt.Errorf("message %d of %s after %d came where one after %d was awaited", sequence, d.meta.Stream, previous, before)
	}
	c.held, c.next = append(c.held, d), sequence+1
	return sequence, nil
}

// close reads the broker's word at the end of a batch that was asked for when sequence known was stored.
func (c *cursor) close(m *nats.Msg, known, before uint64) error {
	switch code := m.Header.Get("Status"); code {
	case "204":
		if last := m.Header.Get(headerLast); last != strconv.FormatUint(before, 10) {
			return fmt.Errorf("the batch ends with message %s, but the last that came is %d", last, before)
		}
		c.stale = false
		if m.Header.Get(headerPending) == "0" {
			c.dry = max(known, before)
		}
		return nil
	case "404":
		c.stale, c.dry = false, max(c.dry, known)
		return nil
	case "408", "412":
		return failed{fmt.Errorf("the broker refuses the direct get: %s %s", code, m.Header.Get("Description"))}
	case "503":
		return nats.ErrNoResponders
	default:
		return fmt.Errorf("direct get: %q %s", code, m.Header.Get("Description"))
	}
}

// fromDirectGet makes of an answer the message as it was stored; in a batch each names the sequence of the
// one before it.
func fromDirectGet(conn *nats.Conn, m *nats.Msg, batch bool) (d *delivery, previous uint64, err error) {
	header := maps.Clone(m.Header)
	added := func(name string) string { // the broker writes its headers behind those of the message's sender
		values := header[name]
		if len(values) == 0 {
			return ""
		}
		if header[name] = values[:len(values)-1]; len(values) == 1 {
			delete(header, name)
		}
		return values[len(values)-1]
	}
	number := func(name string) uint64 {
		n, bad := strconv.ParseUint(added(name), 10, 64)
		if bad != nil {
			err = errors.Join(err, fmt.Errorf("header %s: %w", name, bad))
		}
		return n
	}
	meta := jetstream.MsgMetadata{Stream: added(jetstream.StreamHeader), NumDelivered: 1}
	meta.Sequence.Stream = number(jetstream.SequenceHeader)
	if batch {
		meta.NumPending, previous = number(headerPending), number(headerLast)
	}
	subject := added(jetstream.SubjectHeader)
	at, bad := time.Parse(time.RFC3339Nano, added(jetstream.TimeStampHeaer))
	if meta.Timestamp = at; bad != nil || subject == "" {
		err = errors.Join(err, bad, fmt.Errorf("direct get of %s %d: no subject %q or no time", meta.Stream, meta.Sequence.Stream, subject))
	}
	return &delivery{conn: conn, msg: &nats.Msg{Subject: subject, Header: header, Data: m.Data}, meta: meta}, previous, err
}
