package scheduling

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// progress is what execution said last of a deployment, as far as rollouts need it.
type progress struct {
	revision uint64
	sequence uint64 // in EVENTS
	waves    []events.WaveCounts
	sites    map[string]events.SiteCounts
}

// followProgress keeps the newest progress of every deployment, as it is told. Each replica reads it by itself; what is
// missed is looked up by the reconciler, at the latest a tick later.
func (s *Service) followProgress(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.bus.Browse(ctx, bus.BrowseOptions{Stream: events.StreamEvents, Filters: []string{events.DeploymentProgressed.Filter()}, OnlyNew: true, Follow: true}, func(m jetstream.Msg) error {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			e, err := told(events.DeploymentProgressed, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
			if err != nil || e.Subject != e.Data.Deployment {
				return nil // bus refuses it where it is handled
			}
			s.learnProgress(e.Data, meta.Sequence.Stream)
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, bus.ErrWentBack) {
			s.forgetProgress()
		}
		s.log.Warn("reading the progress of deployments is interrupted and begins again", "error", err)
		pause(ctx, rand.N(retryWait))
	}
	return nil
}

// learnProgress keeps what is newer than what is known, and wakes who may be waiting for it.
func (s *Service) learnProgress(p events.Progress, sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.deployments[p.Deployment]
	if old := s.progressed[p.Deployment]; !ok || sequence <= old.sequence || p.Revision < old.revision {
		return
	}
	s.progressed[p.Deployment] = progress{revision: p.Revision, sequence: sequence, waves: p.Waves, sites: p.Sites}
	s.recount(p.Deployment)
	if d.record.Plan != nil {
		s.work.deployment(p.Deployment)
	}
	for name := range s.held { // there may be room now
		s.work.deployment(name)
	}
}

// forgetProgress is for a stream that was lost or restored: positions of before mean nothing any more.
func (s *Service) forgetProgress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.progressed {
		p.sequence = 0
		s.progressed[name] = p
	}
}

// recallProgress looks up what was told last of a deployment whose plan, or the fleet's limits, depend on it.
func (s *Service) recallProgress(ctx context.Context, d *deployment) error {
	s.mu.RLock()
	needed := d.record.Plan != nil || s.limits.MaxInFlight > 0 || s.limits.MaxInFlightPerSite > 0
	s.mu.RUnlock()
	if !needed {
		return nil
	}
	p, sequence, err := s.lastProgress(ctx, d.record.Deployment)
	if err != nil || p == nil || p.Deployment != d.record.Deployment {
		return err
	}
	s.learnProgress(*p, sequence)
	return nil
}

func (s *Service) lastProgress(ctx context.Context, name string) (*events.Progress, uint64, error) {
	stream, err := s.eventStream(ctx)
	if err != nil {
		return nil, 0, err
	}
	stored, err := stream.GetLastMsgForSubject(ctx, events.DeploymentProgressed.Subject(name))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	e, err := told(events.DeploymentProgressed, &nats.Msg{Subject: stored.Subject, Header: stored.Header, Data: stored.Data})
	return &e.Data, stored.Sequence, err
}

// countsOf are those of one phase, and the sequence of the progress that they are from; 0: there is none of this revision.
func (s *Service) countsOf(d *deployment, phase int) (events.WaveCounts, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.progressed[d.record.Deployment]
	if p.revision != d.record.Revision {
		return events.WaveCounts{Wave: phase}, 0
	}
	return p.wave(phase), p.sequence
}

func (p progress) wave(phase int) events.WaveCounts {
	for _, w := range p.waves {
		if w.Wave == phase {
			return w
		}
	}
	return events.WaveCounts{Wave: phase}
}
