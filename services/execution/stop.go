package execution

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// stopAttempts bounds how often a mark is written against others who write it too.
const stopAttempts = 10

// stopOf asks the bucket, not the memory: what was stopped a moment ago must not be offered now.
func (s *Service) stopOf(ctx context.Context, k *known) (*stopMark, error) {
	if mark, ok := s.control.stop(k.Deployment, k.Revision); ok {
		return &mark, nil
	}
	kv, err := s.controlBucket(ctx)
	if err != nil {
		return nil, err
	}
	mark, _, err := readStop(ctx, kv, k.Deployment)
	if err != nil || mark == nil || mark.Revision < k.Revision {
		return nil, err
	}
	return mark, nil
}

func readStop(ctx context.Context, kv jetstream.KeyValue, deployment string) (*stopMark, uint64, error) {
	entry, err := kv.Get(ctx, keyStop+deployment)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read stop of %s: %w", deployment, err)
	}
	var mark stopMark
	if err := json.Unmarshal(entry.Value(), &mark); err != nil {
		return nil, 0, fmt.Errorf("read stop of %s: %w", deployment, err)
	}
	return &mark, entry.Revision(), nil
}

// stopCall stops a deployment: first the mark, so that nothing is offered any more, then a cancellation to
// every agent whose job has not ended. Asking again sends them again.
func (s *Service) stopCall(ctx context.Context, caller string, req events.StopRequest) (events.StopAnswer, error) {
	k, err := s.newestTold(ctx, req.Deployment)
	if err != nil {
		return events.StopAnswer{}, err
	}
	mark, err := s.markStopped(ctx, stopMark{Deployment: k.Deployment, Revision: k.Revision, Kill: req.Kill, By: caller, Why: req.Why, At: s.now().UTC()})
	if err != nil {
		return events.StopAnswer{}, err
	}
	if err := s.cancelAll(ctx, mark, true); err != nil {
		return events.StopAnswer{}, err
	}
	if err := s.liftHalt(ctx, k.Deployment, k.Revision, mark.By, mark.At); err != nil {
		return events.StopAnswer{}, err
	}
	notice := k.DeploymentNotice
	notice.By, notice.Why, notice.At = mark.By, mark.Why, mark.At
	_, err = bus.Publish(ctx, s.bus, events.DeploymentHalted, events.Event[events.DeploymentNotice]{ID: events.DeriveID("stopped", mark.ID), Subject: k.Deployment, Time: mark.At, Trace: k.trace, Data: notice})
	if err != nil {
		return events.StopAnswer{}, err
	}
	return s.stopAnswer(k, mark), nil
}

// newestTold is the newest revision of a deployment that was told, also where its event was not handled here yet: whoever
// stops the deployment means that one. What cannot be asked does not hinder the stop of what is known.
func (s *Service) newestTold(ctx context.Context, name string) (*known, error) {
	k, err := s.deployment(name)
	if err != nil {
		return nil, err
	}
	told, err := s.lastCreated(ctx, name)
	if err != nil {
		s.log.WarnContext(ctx, "newest revision of a deployment not looked for", "deployment", name, "error", err)
	}
	if told != nil && told.Deployment == name && told.Revision > k.Revision {
		return told, nil
	}
	return k, nil
}

// lastCreated is the order that EVENTS holds last of a deployment; nil: none.
func (s *Service) lastCreated(ctx context.Context, name string) (*known, error) {
	stream, err := s.js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", events.StreamEvents, err)
	}
	stored, err := stream.GetLastMsgForSubject(ctx, events.DeploymentCreated.Subject(name))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the order of deployment %s: %w", name, err)
	}
	raw, err := bus.Decode(&nats.Msg{Subject: stored.Subject, Header: stored.Header, Data: stored.Data})
	if err != nil {
		return nil, err
	}
	e, err := bus.Typed[events.DeploymentOrder](raw)
	if err == nil && e.Source != events.ServiceSource(events.DeploymentCreated.Sender) {
		err = fmt.Errorf("%s tells %s", e.Source, events.DeploymentCreated.Name)
	}
	if err != nil {
		return nil, err
	}
	return openOrder(storedOrder{e.Data, e.Trace})
}

// markStopped writes the mark and notes that for the audit, or gives the one that is there if it says as much.
func (s *Service) markStopped(ctx context.Context, mark stopMark) (stopMark, error) {
	kv, err := s.controlBucket(ctx)
	if err != nil {
		return mark, err
	}
	mark.ID = events.DeriveID("stop", mark.Deployment, fmt.Sprint(mark.Revision), fmt.Sprint(mark.Kill))
	value, err := json.Marshal(mark)
	if err != nil {
		return mark, err
	}
	key := keyStop + mark.Deployment
	for range stopAttempts {
		old, revision, err := readStop(ctx, kv, mark.Deployment)
		if err != nil {
			return mark, err
		}
		if old != nil && old.Revision >= mark.Revision && (old.Kill || !mark.Kill) {
			bus.NoteChange(ctx, old, old)
			return *old, nil
		}
		if old != nil && old.Until.After(mark.Until) { // of a deployment that was removed and made again
			mark.Until = old.Until
			if value, err = json.Marshal(mark); err != nil {
				return mark, err
			}
		}
		if old == nil {
			_, err = kv.Create(ctx, key, value)
		} else {
			_, err = kv.Update(ctx, key, value, revision)
		}
		if err == nil {
			bus.NoteChange(ctx, old, mark)
			_, err = s.control.see(key, value)
			return mark, err
		}
		if !wrongSequence(err) && !errors.Is(err, jetstream.ErrKeyExists) {
			return mark, fmt.Errorf("store %s: %w", key, err)
		}
	}
	return mark, fmt.Errorf("store %s: others keep changing it", key)
}

// keepStop notes in a deployment's mark, before its orders are forgotten, until when agents may still obey those: one that
// was away is told of the stop as long. Where there is no mark nothing was stopped.
func (s *Service) keepStop(ctx context.Context, deployment string, until time.Time) error {
	kv, err := s.controlBucket(ctx)
	if err != nil {
		return err
	}
	for range stopAttempts {
		mark, revision, err := readStop(ctx, kv, deployment)
		if err != nil || mark == nil || !mark.Until.Before(until) {
			return err
		}
		mark.Until = until
		value, err := json.Marshal(mark)
		if err != nil {
			return err
		}
		key := keyStop + deployment
		if _, err = kv.Update(ctx, key, value, revision); err == nil {
			_, err = s.control.see(key, value)
			return err
		}
		if !wrongSequence(err) {
			return fmt.Errorf("store %s: %w", key, err)
		}
	}
	return fmt.Errorf("store %s%s: others keep changing it", keyStop, deployment)
}

// cancelAll sends the stop to the agents whose jobs have not ended: to those who did not get it yet, or to all.
func (s *Service) cancelAll(ctx context.Context, mark stopMark, again bool) error {
	pick := func(j job) bool {
		return j.revision <= mark.Revision && s.lives(j) && (again || j.flags&flagCancel == 0)
	}
	// All partitions at the same time: each waits for its turn, which statuses take too, and programs start meanwhile.
	errs := make([]error, len(s.partitions))
	var all sync.WaitGroup
	for i, p := range s.partitions {
		all.Go(func() { errs[i] = s.cancelPart(ctx, p, mark, pick) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// cancelPart is cancelAll for the agents of one partition.
func (s *Service) cancelPart(ctx context.Context, p *partition, mark stopMark, pick func(job) bool) error {
	// What another replica offered before it could see the mark must be among the jobs.
	p.turn.Lock()
	err := s.catchUp(ctx, p, false)
	p.turn.Unlock()
	if err != nil {
		return fmt.Errorf("catch up partition %d: %w", p.number, err)
	}
	return s.changeEach(ctx, p, mark.Deployment, pick, func(j job, o *outcome) {
		o.cancels = append(o.cancels, mark.cancel(j.agent))
		if j.flags&flagCancel == 0 {
			j.flags |= flagCancel
			o.delta.jobs = append(o.delta.jobs, j)
		}
	})
}

// lives says whether anything may come of a job that is still to be withdrawn: the agent also holds a standing order whose
// last occurrence has ended.
func (s *Service) lives(j job) bool {
	if !j.state.Terminal() {
		return true
	}
	k, ok := s.orders.revision(j.deployment, j.revision)
	return ok && j.occurrence != 0 && j.flags&flagClosed == 0 && k.order.Standing() && s.now().Before(k.over())
}

// stoppedCall tells how far a stop has got. That older revisions were stopped, or replaced, is no stop of the deployment.
func (s *Service) stoppedCall(_ context.Context, _ string, req events.StopQuery) (events.StopAnswer, error) {
	k, err := s.deployment(req.Deployment)
	if err != nil {
		return events.StopAnswer{}, err
	}
	mark, ok := s.control.stop(req.Deployment, k.Revision)
	if !ok {
		return events.StopAnswer{}, bus.NotFound(fmt.Errorf("deployment %s is not stopped", req.Deployment))
	}
	return s.stopAnswer(k, mark), nil
}

func (s *Service) stopAnswer(k *known, mark stopMark) events.StopAnswer {
	p := s.countUpTo(mark.Deployment, mark.Revision)
	answer := events.StopAnswer{Deployment: mark.Deployment}
	for state, n := range p.States {
		switch {
		case state == events.Cancelled:
			answer.Stopped += n
		case state.Terminal():
			answer.Ended += n
		case state.BeforeRunning():
			answer.Unreachable += n
		default:
			answer.Running += n
		}
	}
	s.countStanding(k, mark, &answer)
	if answer.Unreachable > 0 {
		over := k.over()
		answer.MayStart = &over
	}
	return answer
}

// countStanding corrects the answer for agents whose last occurrence of a standing order has ended: until they confirm the
// stop, they may open another one.
func (s *Service) countStanding(k *known, mark stopMark, answer *events.StopAnswer) {
	if !k.order.Standing() {
		return
	}
	for _, p := range s.partitions {
		p.mu.RLock()
		for j := range p.jobs.all(mark.Deployment) {
			if j.revision > mark.Revision || j.user != "" || j.occurrence == 0 || !j.state.Terminal() {
				continue
			}
			was := &answer.Ended
			if j.state == events.Cancelled {
				was = &answer.Stopped
			}
			is := was
			if s.lives(j) {
				is = &answer.Unreachable
			} else if j.flags&(flagClosed|flagCancel) == flagClosed|flagCancel {
				is = &answer.Stopped
			}
			*was--
			*is++
		}
		p.mu.RUnlock()
	}
}
