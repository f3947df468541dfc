package scheduling

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	for _, d := range s.waitingDrafts() {
		views.Deployments = append(views.Deployments, s.draftView(d))
	}
	slices.SortFunc(views.Deployments, byName)
	return views, nil
}

// deploymentShow reads the record from its bucket: what an administrator did a moment ago, by whichever
// replica, is there. A draft is shown where there is no deployment.
func (s *Service) deploymentShow(ctx context.Context, _ string, req events.Named) (events.DeploymentView, error) {
	if err := checkNamed(req); err != nil {
		return events.DeploymentView{}, bus.BadRequest(err)
	}
	r, revision, err := load[deploymentRecord](ctx, s.deploymentStore, kindDeployment+"."+req.Name)
	if err != nil {
		return events.DeploymentView{}, err
	}
	if revision == 0 || r.Removed {
		r, revision, err = load[deploymentRecord](ctx, s.deploymentStore, draftKey(req.Name))
		switch {
		case err != nil:
			return events.DeploymentView{}, err
		case revision == 0 || r.Removed:
			return events.DeploymentView{}, unknownDeployment(req.Name)
		}
		return s.showDraft(r)
	}
	d, ok := s.deployment(req.Name)
	if !ok {
		return events.DeploymentView{}, fmt.Errorf("deployment %s cannot be read by this version of chandler", req.Name)
	}
	return s.view(ctx, d), nil
}

// signedView is what the signed order says.
func (d *deployment) signedView() events.DeploymentView {
	return events.DeploymentView{
		DeploymentNotice: d.record.DeploymentNotice, Expression: d.order.Expression,
		Zone: d.order.Zone, Available: d.order.Available, Deadline: d.order.Deadline(), Expires: d.order.Expires, NotAfter: d.order.NotAfter,
	}
}

func (s *Service) view(ctx context.Context, d *deployment) events.DeploymentView {
	v := d.signedView()
	v.Life, v.Why = s.life(d), d.record.Because
	if got, err := signedBy(d.record.Envelope, s.trusted(), s.now()); err == nil {
		v.Signers = got.signers
	}
	v.Members = s.countMembers(d)
	s.mu.RLock()
	if log := s.releases[v.Deployment][v.Revision]; log != nil {
		v.Released = log.released.count()
	}
	s.mu.RUnlock()
	progress, err := s.progress(ctx, d.record.DeploymentNotice)
	if err != nil {
		s.log.Warn("the progress of a deployment cannot be read", "deployment", v.Deployment, "error", err)
	}
	v.Progress = progress
	s.rolloutView(ctx, d, &v)
	return v
}

// countMembers counts whom a deployment is for.
func (s *Service) countMembers(d *deployment) int {
	s.mu.RLock()
	evaluated, set := d.members.evaluated, s.meant(d, d.members.set)
	n := set.count()
	s.mu.RUnlock()
	if evaluated {
		return n
	}
	members, _ := s.matching(d.target) // the reconciler comes to it in a moment
	set = nil
	for _, place := range s.fleet.places(members) {
		set = set.set(place, true)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.meant(d, set).count()
}

// progress is what execution said last of this revision; nil: nothing.
func (s *Service) progress(ctx context.Context, n events.DeploymentNotice) (*events.Progress, error) {
	p, err := lastTold(ctx, s, events.DeploymentProgressed, n.Deployment)
	if err != nil || p == nil || p.Revision != n.Revision {
		return nil, err
	}
	if p.Deployment != n.Deployment {
		return nil, fmt.Errorf("the progress of %s is that of %q", n.Deployment, p.Deployment)
	}
	return p, nil
}

// lastTold is the newest event of a type about a subject; nil: none is stored.
func lastTold[T any](ctx context.Context, s *Service, t events.Type[T], subject string) (*T, error) {
	stream, err := s.eventStream(ctx)
	if err != nil {
		return nil, err
	}
	stored, err := stream.GetLastMsgForSubject(ctx, t.Subject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e, err := told(t, &nats.Msg{Subject: stored.Subject, Header: stored.Header, Data: stored.Data})
	return &e.Data, err
}

// told reads a stored event and makes sure that it is its sender's.
func told[T any](t events.Type[T], m *nats.Msg) (events.Event[T], error) {
	raw, err := bus.Decode(m)
	if err != nil {
		return events.Event[T]{}, err
	}
	e, err := bus.Typed[T](raw)
	if err == nil && e.Source != events.ServiceSource(t.Sender) {
		err = fmt.Errorf("%s tells %s", e.Source, t.Name)
	}
	return e, err
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
