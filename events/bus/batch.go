package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"chandler/events"
)

// MaxBatch is the largest atomic batch that the broker takes.
const MaxBatch = 1000

// Headers of an atomic batch (ADR-50 of NATS).
const (
	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
)

// Error codes of the broker about batches.
const (
	errBatchDuplicate = 10201 // a message of the batch is in the duplicate window
	errBatchInflight  = 10210 // too many batches at once
	batchAttempts     = 5
)

// PublishBatch stores up to [MaxBatch] messages, made by [Message], all or none, and waits for the commit.
// All subjects must be of one stream that is declared with AtomicBatches. If a message of the batch was
// stored already (an earlier attempt whose answer got lost), those that are missing are stored one by one.
// After any other error nothing of this attempt is stored, or all of it; calling again is harmless.
func PublishBatch(ctx context.Context, b *Bus, msgs []*nats.Msg) error {
	if len(msgs) == 0 {
		return nil
	}
	if len(msgs) > MaxBatch {
		return fmt.Errorf("batch of %d messages is larger than %d", len(msgs), MaxBatch)
	}
	stream, err := batchStream(msgs)
	if err != nil {
		return err
	}
	for _, m := range msgs {
		if err := b.check(m); err != nil {
			return err
		}
	}
	ctx, cancel := withDefaultTimeout(ctx, apiTimeout)
	defer cancel()
	for attempt := uint64(1); ; attempt++ {
		err = b.commit(ctx, msgs)
		api, _ := errors.AsType[*jetstream.APIError](err)
		switch {
		case err == nil:
			for _, m := range msgs {
				b.metrics.published.WithLabelValues(typeOf(m), "stored").Inc()
			}
			return nil
		case api != nil && api.ErrorCode == errBatchDuplicate:
			return b.publishEach(ctx, msgs)
		case attempt < batchAttempts && (unready(err) || api != nil && api.ErrorCode == errBatchInflight) && wait(ctx, reconnectPause(attempt)):
			continue
		}
		for _, m := range msgs {
			b.metrics.published.WithLabelValues(typeOf(m), "error").Inc()
		}
		return fmt.Errorf("publish batch of %d to %s: %w", len(msgs), stream, err)
	}
}

// commit sends the batch: the first message and the last wait for an answer, the first because it learns
// of a stream that takes no batches before the rest is sent.
func (b *Bus) commit(ctx context.Context, msgs []*nats.Msg) error {
	id := nuid.Next()
	for i, m := range msgs {
		part := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: maps.Clone(m.Header)}
		part.Header[headerBatchID] = []string{id}
		part.Header[headerBatchSequence] = []string{strconv.Itoa(i + 1)}
		last := i == len(msgs)-1
		if last {
			part.Header[headerBatchCommit] = []string{"1"}
		}
		if i > 0 && !last {
			if err := b.conn.PublishMsg(part); err != nil {
				return err
			}
			continue
		}
		answer, err := b.conn.RequestMsgWithContext(ctx, part)
		if err != nil {
			return err
		}
		if err := batchAnswer(answer.Data, last); err != nil {
			return err
		}
	}
	return nil
}

func batchAnswer(data []byte, committed bool) error {
	if len(data) == 0 && !committed {
		return nil
	}
	var answer struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return fmt.Errorf("read answer to batch: %w", err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	if answer.Stream == "" {
		return errors.New("the batch was answered without being committed")
	}
	return nil
}

func (b *Bus) publishEach(ctx context.Context, msgs []*nats.Msg) error {
	p := b.NewPipeline()
	for _, m := range msgs {
		if err := p.Add(ctx, m); err != nil {
			break // Flush tells it
		}
	}
	return p.Flush(ctx)
}

// batchStream is the stream that takes all of the messages as a batch.
func batchStream(msgs []*nats.Msg) (string, error) {
	for _, s := range events.Streams() {
		if !subjectIn(msgs[0].Subject, s.Subjects) {
			continue
		}
		if !s.AtomicBatches {
			return "", fmt.Errorf("stream %s is not declared to take atomic batches", s.Name)
		}
		for _, m := range msgs {
			if !subjectIn(m.Subject, s.Subjects) {
				return "", fmt.Errorf("subject %s is not of stream %s like the first of the batch", m.Subject, s.Name)
			}
		}
		return s.Name, nil
	}
	return "", fmt.Errorf("subject %s is of no declared stream", msgs[0].Subject)
}

func subjectIn(subject string, patterns []string) bool {
	for _, p := range patterns {
		if subjectMatches(subject, p) {
			return true
		}
	}
	return false
}

// subjectMatches says whether pattern matches all that subject, which may be a pattern itself, matches.
func subjectMatches(subject, pattern string) bool {
	s, p := strings.Split(subject, "."), strings.Split(pattern, ".")
	for i, token := range p {
		if token == ">" {
			return len(s) > i
		}
		if i >= len(s) || s[i] == ">" || token != "*" && token != s[i] {
			return false
		}
	}
	return len(s) == len(p)
}

func withDefaultTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}
