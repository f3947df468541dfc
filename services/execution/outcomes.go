package execution

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

const (
	// outcomesMost is how many ended jobs are looked at, outcomesAtOnce how many of them are held at the same time.
	outcomesMost   = 100_000
	outcomesAtOnce = 10_000
	// outcomesTime is when an answer is given with what was found so far.
	outcomesTime = 10 * time.Second
	// outcomesAsked bounds the questions that one replica works on.
	outcomesAsked = 2
	// quantiles are the numbers that tell of run times, less one.
	quantiles = 20
)

var errEnough = errors.New("enough was read")

// survey counts ended jobs, newest first.
type survey struct {
	query   events.OutcomeQuery
	answer  events.OutcomeAnswer
	seconds []float64
	seen    map[attemptKey]bool
}

// attemptKey names an attempt of a job; it may have ended twice, of which the newest end counts.
type attemptKey struct {
	job     string
	attempt int
}

func (v *survey) take(end events.JobEnd) {
	key := attemptKey{end.Job, end.Attempt}
	if v.query.Package != "" && end.Package != v.query.Package || v.query.Program != "" && end.Program != v.query.Program || v.seen[key] {
		return
	}
	v.seen[key] = true
	v.answer.Jobs++
	switch events.OutcomeOf(end.State, end.Reason) {
	case events.OutcomeSucceeded:
		v.answer.Succeeded++
	case events.OutcomeFailed:
		v.answer.Failed++
		if end.Reason != events.NoReason {
			v.answer.Reasons[end.Reason]++
		}
	}
	if end.Seconds > 0 {
		v.seconds = append(v.seconds, end.Seconds)
	}
}

// result is the answer with the quantiles of the run times.
func (v *survey) result() events.OutcomeAnswer {
	slices.Sort(v.seconds)
	for i := range quantiles + 1 {
		if last := len(v.seconds) - 1; last >= 0 {
			v.answer.Seconds = append(v.answer.Seconds, v.seconds[i*last/quantiles])
		}
	}
	return v.answer
}

// outcomesCall tells how programs ended of late, as far as it could look within its time.
func (s *Service) outcomesCall(ctx context.Context, _ string, q events.OutcomeQuery) (events.OutcomeAnswer, error) {
	select {
	case s.surveying <- struct{}{}:
		defer func() { <-s.surveying }()
	default:
		return events.OutcomeAnswer{}, bus.Unavailable(errors.New("others ask for outcomes: ask again in a few seconds"))
	}
	stream, err := s.js.Stream(ctx, events.StreamHistory)
	if err != nil {
		return events.OutcomeAnswer{}, fmt.Errorf("open stream %s: %w", events.StreamHistory, err)
	}
	state := stream.CachedInfo().State
	v := survey{query: q, seen: map[attemptKey]bool{}, answer: events.OutcomeAnswer{Reasons: map[events.Reason]int64{}}}
	deadline := time.Now().Add(outcomesTime)
	looked := uint64(0)
	for to := state.LastSeq; to >= max(state.FirstSeq, 1) && looked < outcomesMost && time.Now().Before(deadline); {
		from := max(state.FirstSeq, 1, to-min(to-1, outcomesAtOnce-1))
		ends, err := s.endsBetween(ctx, from, to)
		if err != nil {
			return events.OutcomeAnswer{}, fmt.Errorf("read history: %w", err)
		}
		for _, end := range slices.Backward(ends) {
			v.take(end)
		}
		looked += to - from + 1
		to = from - 1
	}
	return v.result(), nil
}

// endsBetween reads a part of HISTORY, oldest first.
func (s *Service) endsBetween(ctx context.Context, from, to uint64) ([]events.JobEnd, error) {
	var ends []events.JobEnd
	_, err := s.bus.Replay(ctx, events.StreamHistory, events.HistorySubject("*"), from, func(m jetstream.Msg) error {
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		var end events.JobEnd
		if meta.Sequence.Stream <= to && json.Unmarshal(m.Data(), &end) == nil { // what is no end was not written by this service
			ends = append(ends, end)
		}
		if meta.Sequence.Stream >= to {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return ends, err
}
