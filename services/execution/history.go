package execution

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

const (
	historyDefault = 100
	historyMost    = 10_000
)

// historyCall reads an agent's ended jobs, newest last. An attempt that ended twice (silent, and then the
// agent spoke after all; or told again) is listed once, as it ended last.
func (s *Service) historyCall(ctx context.Context, _ string, req events.HistoryQuery) (events.HistoryAnswer, error) {
	if err := events.ValidAgent(req.Agent); err != nil {
		return events.HistoryAnswer{}, bus.BadRequest(err)
	}
	if req.Limit < 0 || req.Limit > historyMost {
		return events.HistoryAnswer{}, bus.BadRequest(fmt.Errorf("limit %d is not between 0 and %d", req.Limit, historyMost))
	}
	limit := req.Limit
	if limit == 0 {
		limit = historyDefault
	}
	var ends []events.JobEnd
	_, err := s.bus.Replay(ctx, events.StreamHistory, events.HistorySubject(req.Agent), 1, func(m jetstream.Msg) error {
		var end events.JobEnd
		if err := json.Unmarshal(m.Data(), &end); err != nil || end.Agent != req.Agent {
			return nil // not written by this service
		}
		if !end.At.Before(req.Since) {
			ends = append(ends, end)
		}
		if len(ends) >= 4*historyMost {
			ends = newestEnds(ends, limit)
		}
		return nil
	})
	if err != nil {
		return events.HistoryAnswer{}, fmt.Errorf("read history of %s: %w", req.Agent, err)
	}
	return events.HistoryAnswer{Jobs: newestEnds(ends, limit)}, nil
}

// newestEnds keeps the last end of every attempt, and of those the last ones.
func newestEnds(ends []events.JobEnd, limit int) []events.JobEnd {
	type attempt struct {
		job    string
		number int
	}
	last := map[attempt]int{}
	for i, e := range ends {
		last[attempt{e.Job, e.Attempt}] = i
	}
	kept := make([]events.JobEnd, 0, len(last))
	for i, e := range ends {
		if last[attempt{e.Job, e.Attempt}] == i {
			kept = append(kept, e)
		}
	}
	return kept[max(0, len(kept)-limit):]
}
