package backup

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	sinceBatch = 256
	// maxLine bounds one stored message as text: 2 MiB with its headers, in base64.
	maxLine = 8 << 20
)

// kept is a message that was stored after the broker's copy of a bucket began, one a line.
type kept struct {
	Subject string      `json:"subject"`
	Header  nats.Header `json:"header,omitempty"`
	Data    []byte      `json:"data,omitempty"`
}

// since writes what a bucket's stream holds after a sequence, until there is no more: what a message took the place of is
// before it, so that nothing is missing then. It gives the number of messages.
func since(ctx context.Context, js jetstream.JetStream, stream string, after uint64, w io.Writer) (n uint64, err error) {
	c, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
		AckPolicy: jetstream.AckNonePolicy, InactiveThreshold: time.Minute, MemoryStorage: true, Replicas: 1,
	})
	if err != nil {
		return 0, fmt.Errorf("read what came to %s since: %w", stream, err)
	}
	defer func() { _ = js.DeleteConsumer(ctx, stream, c.CachedInfo().Name) }() // else the broker forgets it soon
	out := json.NewEncoder(w)
	for pending := c.CachedInfo().NumPending; pending > 0; {
		batch, err := c.Fetch(sinceBatch, jetstream.FetchMaxWait(stall))
		if err != nil {
			return n, fmt.Errorf("read what came to %s since: %w", stream, err)
		}
		got := n
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return n, fmt.Errorf("read what came to %s since: %w", stream, err)
			}
			if n++; meta.Sequence.Consumer != n {
				return n, fmt.Errorf("read what came to %s since: message %d got lost on its way", stream, n)
			}
			if err := out.Encode(kept{m.Subject(), m.Headers(), m.Data()}); err != nil {
				return n, err
			}
			if pending = meta.NumPending; pending == 0 {
				break
			}
		}
		if err := batch.Error(); err != nil && pending > 0 {
			return n, fmt.Errorf("read what came to %s since: %w", stream, err)
		}
		if n == got {
			return n, fmt.Errorf("read what came to %s since: the broker is silent, with %d messages to come", stream, pending)
		}
	}
	return n, nil
}

// readSince gives each message of an entry.
func readSince(r io.Reader, each func(kept) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var k kept
		if err := json.Unmarshal(lines.Bytes(), &k); err != nil {
			return fmt.Errorf("a message is not one: %w", err)
		}
		if err := each(k); err != nil {
			return err
		}
	}
	return lines.Err()
}

// store puts a message back. Conditions under which it was stored, and the id by which the broker knows it, are
// of then.
func (k kept) store(ctx context.Context, js jetstream.JetStream, stream string) error {
	m := nats.NewMsg(k.Subject)
	m.Data = k.Data
	for name, values := range k.Header {
		if !strings.HasPrefix(name, "Nats-Expected-") && name != jetstream.MsgIDHeader {
			m.Header[name] = values
		}
	}
	ack, err := js.PublishMsg(ctx, m)
	if err != nil {
		return fmt.Errorf("store what came to %s since: %w", stream, err)
	}
	if ack.Stream != stream {
		return fmt.Errorf("a message of %s went to %s", stream, ack.Stream)
	}
	return nil
}
