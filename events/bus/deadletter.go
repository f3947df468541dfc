package bus

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// Headers of a dead letter, beside those of the message itself.
const (
	HeaderReason    = "Chandler-Reason"    // one word
	HeaderError     = "Chandler-Error"     // for people, percent-encoded like an attribute
	HeaderSubject   = "Chandler-Subject"   // as the stream stored it
	HeaderStream    = "Chandler-Stream"    // where it came from
	HeaderSequence  = "Chandler-Sequence"  // its sequence there
	HeaderConsumer  = "Chandler-Consumer"  // which reader could not take it
	HeaderTruncated = "Chandler-Truncated" // bytes of the whole message, if only the beginning of its data is kept
)

// keptPrefix stands before headers of the message that would mean something to the broker, or pretend to
// be ours: a stranger's "Nats-Expected-Last-Sequence" must not decide whether his letter is stored.
const keptPrefix = "Original-"

const maxErrorText = 2048

// deadLetter stores the message with the reason, and returns once the store has confirmed it.
func (b *Bus) deadLetter(ctx context.Context, c Consumer, d *delivery, reason string, cause error) error {
	letter := deadLetterMessage(c, d, reason, cause, int(b.conn.MaxPayload()))
	// A process that is told to end still finishes this letter.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
	defer cancel()
	if _, err := b.js.PublishMsg(ctx, letter); err != nil {
		return fmt.Errorf("store dead letter of %s %d: %w", c.Stream, d.meta.Sequence.Stream, err)
	}
	b.metrics.deadLetters.WithLabelValues(c.Stream, reason).Inc()
	b.log.WarnContext(ctx, "event was put on the dead-letter stream", "consumer", c.Name, "stream", c.Stream, "sequence", d.meta.Sequence.Stream,
		"subject", d.Subject(), "reason", reason, "error", cause)
	return nil
}

func deadLetterMessage(c Consumer, d *delivery, reason string, cause error, maxPayload int) *nats.Msg {
	sequence := strconv.FormatUint(d.meta.Sequence.Stream, 10)
	text := cause.Error()
	own := nats.Header{
		HeaderReason: {reason}, HeaderError: {escape(text[:min(len(text), maxErrorText)])}, HeaderSubject: {d.Subject()}, HeaderStream: {c.Stream},
		HeaderSequence: {sequence}, HeaderConsumer: {c.Name},
		// A letter stored just before a crash is not stored twice when the event comes again.
		jetstream.MsgIDHeader: {events.DeriveID("deadletter", c.Stream, c.Name, sequence, d.meta.Timestamp.UTC().Format(time.RFC3339Nano))},
	}
	m := &nats.Msg{Subject: events.DeadLetterSubject(c.Stream), Header: maps.Clone(own), Data: d.Data()}
	for name, values := range d.Headers() {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "nats-") || strings.HasPrefix(lower, "chandler-") {
			name = keptPrefix + name
		}
		m.Header[name] = values
	}
	if m.Size() <= maxPayload {
		return m
	}
	// The broker counts headers too: half of what it takes leaves room for ours, and none for a stranger's.
	own[HeaderTruncated] = []string{strconv.Itoa(d.msg.Size())}
	m.Header, m.Data = own, m.Data[:min(len(m.Data), maxPayload/2)]
	return m
}
