package main

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/services/checker"
)

// jobTimes is when the broker stored what there is about one job.
type jobTimes struct {
	offered, accepted, ended time.Time
	state                    events.State // of the first end
	ends                     int          // told, each by its id
}

// history is what the streams hold of a run, by job.
type history struct {
	of   map[string]bool // the deployments
	jobs map[string]*jobTimes
	last time.Time       // a status was stored
	ends map[string]bool // the ids of ends
}

// about is the part of offers and statuses that is looked at.
type about struct {
	Job        string       `json:"job"`
	Deployment string       `json:"deployment"`
	Attempt    int          `json:"attempt"`
	State      events.State `json:"state"`
}

// examine reads the streams and what the agents' processes saw, and completes the result.
func (s *simulation) examine(ctx context.Context, raw *rawBroker) error {
	names := s.names
	of := map[string]bool{}
	for _, name := range names {
		of[name] = true
	}
	h := &history{of: of, jobs: map[string]*jobTimes{}, ends: map[string]bool{}}
	for _, name := range []string{events.StreamJobs, events.StreamStatus} {
		err := s.client.read(ctx, reading{stream: name, since: s.result.began}, func(m jetstream.Msg) error {
			return h.take(name, m)
		})
		if err != nil {
			return err
		}
	}
	s.describe()
	s.judge(h, names)
	s.result.rates()
	var seen checker.Evidence
	if err := s.hear(ctx, &seen); err != nil {
		return err
	}
	s.countTwice(seen.Runs)
	if s.result.stopped != nil {
		s.result.stopped.count(seen.Runs)
	}
	if err := s.countForgotten(); err != nil {
		return err
	}
	return s.check(ctx, raw)
}

// take notes one message.
func (h *history) take(stream string, m jetstream.Msg) error {
	var a about
	if err := json.Unmarshal(m.Data(), &a); err != nil || a.Job == "" || !h.of[a.Deployment] {
		return nil // not of this run: a cancellation, or another's
	}
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	j := h.jobs[a.Job]
	if j == nil {
		j = &jobTimes{}
		h.jobs[a.Job] = j
	}
	j.note(stream, a, meta.Timestamp)
	if stream != events.StreamStatus {
		return nil
	}
	h.last = meta.Timestamp
	if id := m.Headers().Get("ce-id"); a.State.Terminal() && !h.ends[id] { // one that is told again has the same
		h.ends[id] = true
		j.ends++
	}
	return nil
}

// note keeps the first time of each.
func (j *jobTimes) note(stream string, a about, at time.Time) {
	first := func(t *time.Time) bool {
		if !t.IsZero() {
			return false
		}
		*t = at
		return true
	}
	switch {
	case stream == events.StreamJobs:
		first(&j.offered)
	case a.State == events.Accepted:
		first(&j.accepted)
	case a.State.Terminal():
		if first(&j.ended) {
			j.state = a.State
		}
	}
}

// judge counts the jobs that must be there, and measures those of agents that stayed.
func (s *simulation) judge(h *history, names []string) {
	r := &s.result
	var accepted, succeeded []time.Duration
	var lastOffer, lastAccepted time.Time
	for _, m := range s.members {
		for _, name := range names {
			j := h.jobs[events.JobID(name, 1, m.ID, 0, "")]
			switch {
			case j == nil && r.stopped != nil:
				r.NotOffered++
				continue
			case j == nil || j.ended.IsZero():
				r.Lost++
				continue
			case j.state == events.Cancelled:
				r.Cancelled++
			case j.state == events.Succeeded:
				r.Succeeded++
			default:
				r.Failed++
			}
			r.Duplicated += j.ends - 1
			if m.Away || j.offered.IsZero() {
				continue
			}
			lastOffer = latest(lastOffer, j.offered)
			if !j.accepted.IsZero() {
				accepted, lastAccepted = append(accepted, j.accepted.Sub(j.offered)), latest(lastAccepted, j.accepted)
			}
			if j.state == events.Succeeded {
				succeeded = append(succeeded, j.ended.Sub(j.offered))
			}
		}
	}
	since := func(t time.Time) float64 { return max(0, t.Sub(r.began).Seconds()) }
	r.Seconds, r.OfferedSeconds, r.AcceptedSeconds = since(h.last), since(lastOffer), since(lastAccepted)
	r.AcceptedP50, r.AcceptedP90, r.AcceptedP99 = percentiles(accepted)
	r.SucceededP50, r.SucceededP90, r.SucceededP99 = percentiles(succeeded)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// percentiles are, in seconds, the shortest times within which 50, 90 and 99 of a hundred were done; 0 of none. The times
// are sorted in place.
func percentiles(times []time.Duration) (p50, p90, p99 float64) {
	if len(times) == 0 {
		return 0, 0, 0
	}
	slices.Sort(times)
	at := func(share float64) float64 {
		return times[max(0, int(math.Ceil(share*float64(len(times))))-1)].Seconds()
	}
	return at(0.5), at(0.9), at(0.99)
}
