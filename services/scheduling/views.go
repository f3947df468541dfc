package scheduling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

func (s *Service) deploymentList(ctx context.Context, _ string, _ events.Nothing) (events.DeploymentViews, error) {
	views := events.DeploymentViews{Deployments: []events.DeploymentView{}}
	for _, name := range s.deploymentNames() {
		if d, ok := s.deployment(name); ok {
			views.Deployments = append(views.Deployments, s.view(ctx, d))
		}
	}
	slices.SortFunc(views.Deployments, func(a, b events.DeploymentView) int { return strings.Compare(a.Deployment, b.Deployment) })
	return views, nil
}

// deploymentShow reads the record from its bucket: what an administrator did a moment ago, by whichever
// replica, is there.
func (s *Service) deploymentShow(ctx context.Context, _ string, req events.Named) (events.DeploymentView, error) {
	if err := checkNamed(req); err != nil {
		return events.DeploymentView{}, bus.BadRequest(err)
	}
	r, revision, err := load[deploymentRecord](ctx, s.deploymentStore, kindDeployment+"."+req.Name)
	if err != nil {
		return events.DeploymentView{}, err
	}
	if revision == 0 || r.Removed {
		return events.DeploymentView{}, unknownDeployment(req.Name)
	}
	d, ok := s.deployment(req.Name)
	if !ok {
		return events.DeploymentView{}, fmt.Errorf("deployment %s cannot be read by this version of chandler", req.Name)
	}
	return s.view(ctx, d), nil
}

func (s *Service) view(ctx context.Context, d *deployment) events.DeploymentView {
	v := events.DeploymentView{
		DeploymentNotice: d.record.DeploymentNotice, Life: d.life(s.now()), Expression: d.order.Expression,
		Available: d.order.Available, Deadline: d.order.Deadline(), Expires: d.order.Expires, NotAfter: d.order.NotAfter,
	}
	v.Why = d.record.Because
	s.mu.RLock()
	evaluated := d.members.evaluated
	v.Members = d.members.set.count()
	if log := s.releases[v.Deployment][v.Revision]; log != nil {
		v.Released = log.released.count()
	}
	s.mu.RUnlock()
	if !evaluated { // the reconciler comes to it in a moment
		members, _ := s.matching(d.target)
		v.Members = len(members)
	}
	progress, err := s.progress(ctx, d.record.DeploymentNotice)
	if err != nil {
		s.log.Warn("the progress of a deployment cannot be read", "deployment", v.Deployment, "error", err)
	}
	v.Progress = progress
	return v
}

// progress is what execution said last of this revision; nil: nothing.
func (s *Service) progress(ctx context.Context, n events.DeploymentNotice) (*events.Progress, error) {
	stream, err := s.eventStream(ctx)
	if err != nil {
		return nil, err
	}
	stored, err := stream.GetLastMsgForSubject(ctx, events.DeploymentProgressed.Subject(n.Deployment))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	raw, err := bus.Decode(&nats.Msg{Subject: stored.Subject, Header: stored.Header, Data: stored.Data})
	if err != nil {
		return nil, err
	}
	e, err := bus.Typed[events.Progress](raw)
	if err != nil {
		return nil, err
	}
	if e.Source != events.ServiceSource(events.DeploymentProgressed.Sender) || e.Data.Deployment != n.Deployment {
		return nil, fmt.Errorf("%s tells the progress of %q", e.Source, e.Data.Deployment)
	}
	if e.Data.Revision != n.Revision {
		return nil, nil
	}
	return &e.Data, nil
}

// eventStream is looked up once: the handle outlives restarts of the broker.
func (s *Service) eventStream(ctx context.Context) (jetstream.Stream, error) {
	s.mu.RLock()
	stream := s.events
	s.mu.RUnlock()
	if stream != nil {
		return stream, nil
	}
	stream, err := s.bus.JetStream().Stream(ctx, events.StreamEvents)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.events = stream
	s.mu.Unlock()
	return stream, nil
}
