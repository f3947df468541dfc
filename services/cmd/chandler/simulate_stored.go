package main

import (
	"context"
	"fmt"
	"time"

	"chandler/events"
)

// storing are the streams in which a job leaves messages. Buckets, timers and dead letters are not counted.
func storing() []string {
	return []string{events.StreamJobs, events.StreamStatus, events.StreamLogs, events.StreamEvents, events.StreamHistory, events.StreamFold}
}

// storage is what streams have stored so far.
type storage struct{ messages, bytes int64 }

// storedNow asks the broker. Messages are counted by the last sequence, which no removal lessens; bytes are those that are
// there.
func (s *simulation) storedNow(ctx context.Context) (storage, error) {
	ctx, cancel := context.WithTimeout(ctx, simulatedAnswer)
	defer cancel()
	var all storage
	for _, name := range storing() {
		stream, err := s.client.bus.JetStream().Stream(ctx, name)
		if err != nil {
			return all, fmt.Errorf("ask how much stream %s holds: %w", name, err)
		}
		state := stream.CachedInfo().State
		all.messages += int64(state.LastSeq)
		all.bytes += int64(state.Bytes)
	}
	return all, nil
}

// countStored adds what is stored now to the result, or takes it away (-1).
func (s *simulation) countStored(ctx context.Context, sign int64) error {
	now, err := s.storedNow(ctx)
	if err != nil {
		return err
	}
	s.result.Events += sign * now.messages
	s.result.Bytes += sign * now.bytes
	return nil
}

// Services store what follows from the last status a moment later. It is over when nothing more has come for a while.
const (
	settleQuiet   = 1500 * time.Millisecond
	settleLongest = 30 * time.Second
)

// settle waits until nothing more is stored. A fleet in which others work is never quiet: that is no error.
func (s *simulation) settle(ctx context.Context) error {
	deadline, quiet := s.now().Add(settleLongest), s.now()
	var last storage
	for s.now().Before(deadline) {
		now, err := s.storedNow(ctx)
		if err != nil {
			return err
		}
		if now.messages != last.messages {
			last, quiet = now, s.now()
		}
		if s.now().Sub(quiet) >= settleQuiet {
			return nil
		}
		if !pause(ctx, simulatedPause) {
			return context.Cause(ctx)
		}
	}
	return nil
}
