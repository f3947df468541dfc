package execution

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// orderAttempts bounds how often an order is written against others who write it too.
const orderAttempts = 10

// known is a signed order that execution keeps.
type known struct {
	events.DeploymentOrder
	order order.Order
	trace string
	ends  time.Time // of the order's time; zone files are not to be read for every job
}

// storedOrder is a value of the bucket of orders.
type storedOrder struct {
	events.DeploymentOrder
	Trace string `json:"trace,omitempty"`
}

// over says when the order's time ends: nothing starts after it.
func (k *known) over() time.Time { return k.ends }

// occurrence is that of the job which is offered.
func (k *known) occurrence() int64 { return k.order.Occurrence() }

// orders is the bucket of orders in memory, kept by a watch. It is safe for concurrent use.
type orders struct {
	mu           sync.RWMutex
	byDigest     map[string]*known
	byDeployment map[string]map[uint64]*known
}

func newOrders() *orders {
	return &orders{byDigest: map[string]*known{}, byDeployment: map[string]map[uint64]*known{}}
}

func (o *orders) add(k *known) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.byDigest[k.Order] = k
	if o.byDeployment[k.Deployment] == nil {
		o.byDeployment[k.Deployment] = map[uint64]*known{}
	}
	o.byDeployment[k.Deployment][k.Revision] = k
}

func (o *orders) digest(digest string) (*known, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	k, ok := o.byDigest[digest]
	return k, ok
}

func (o *orders) revision(deployment string, revision uint64) (*known, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	k, ok := o.byDeployment[deployment][revision]
	return k, ok
}

// newest revision of a deployment.
func (o *orders) newest(deployment string) (*known, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	var newest *known
	for _, k := range o.byDeployment[deployment] {
		if newest == nil || k.Revision > newest.Revision {
			newest = k
		}
	}
	return newest, newest != nil
}

func (o *orders) knows(deployment string) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return len(o.byDeployment[deployment]) > 0
}

// names of all deployments.
func (o *orders) names() []string {
	o.mu.RLock()
	defer o.mu.RUnlock()
	all := make([]string, 0, len(o.byDeployment))
	for name := range o.byDeployment {
		all = append(all, name)
	}
	return all
}

// until is when the time of the last of a deployment's orders up to a revision ends; zero where there are none.
func (o *orders) until(deployment string, revision uint64) (last time.Time) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, k := range o.byDeployment[deployment] {
		if k.Revision <= revision && k.over().After(last) {
			last = k.over()
		}
	}
	return last
}

// digests of a deployment's orders up to a revision.
func (o *orders) digests(deployment string, upTo uint64) []string {
	o.mu.RLock()
	defer o.mu.RUnlock()
	var all []string
	for _, k := range o.byDeployment[deployment] {
		if k.Revision <= upTo {
			all = append(all, k.Order)
		}
	}
	return all
}

func (o *orders) trace(digest string) string {
	k, ok := o.digest(digest)
	if !ok {
		return ""
	}
	return k.trace
}

// traceOf is the trace of a revision, "" where none is known.
func (o *orders) traceOf(deployment string, revision uint64) string {
	k, ok := o.revision(deployment, revision)
	if !ok {
		return ""
	}
	return k.trace
}

func (o *orders) forget(deployment string, upTo uint64) {
	for _, digest := range o.digests(deployment, upTo) {
		o.forgetDigest(digest)
	}
}

func (o *orders) forgetDigest(digest string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k, ok := o.byDigest[digest]
	if !ok {
		return
	}
	delete(o.byDigest, digest)
	if delete(o.byDeployment[k.Deployment], k.Revision); len(o.byDeployment[k.Deployment]) == 0 {
		delete(o.byDeployment, k.Deployment)
	}
}

// openOrder checks that a notice says what the signed bytes say. Signatures are for agents to verify.
func openOrder(stored storedOrder) (*known, error) {
	o, digest, err := order.Open(stored.Envelope)
	if err != nil {
		return nil, err
	}
	if digest != stored.Order || o.Deployment != stored.Deployment || o.Revision != stored.Revision {
		return nil, fmt.Errorf("the notice names order %.12s, deployment %s, revision %d; the signed order is %.12s, %s, %d",
			stored.Order, stored.Deployment, stored.Revision, digest, o.Deployment, o.Revision)
	}
	if _, err := o.Target(stored.Include, stored.Exclude); err != nil {
		return nil, err
	}
	return &known{stored.DeploymentOrder, o, stored.Trace, o.Over()}, nil
}

// silence is how long an agent of a phase may say nothing after its offer; other where the plan does not say.
func (k *known) silence(wave uint8, other time.Duration) time.Duration {
	if k.Plan == nil || int(wave) >= len(k.Plan.Phases) {
		return other
	}
	if h := k.Plan.Phases[wave].HaltWhen; h != nil && h.Silent != nil {
		return time.Duration(h.Silent.After)
	}
	return other
}

// umbrella is the job out of which an agent opens the occurrences of a standing order, wherever it got it.
func (k *known) umbrella(agent string) job {
	return job{deployment: k.Deployment, agent: agent, revision: k.Revision}
}

// created keeps an accepted order, with its plan, which may be told anew, and lets it take the place of older revisions.
func (s *Service) created(ctx context.Context, e events.Event[events.DeploymentOrder], _ bus.Meta) error {
	stored := storedOrder{e.Data, e.Trace}
	k, err := openOrder(stored)
	if err != nil {
		return bus.Drop("bad_order", fmt.Errorf("order of deployment %s: %w", e.Data.Deployment, err))
	}
	value, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	k, err = s.keepOrder(ctx, k, value)
	if err != nil {
		return err
	}
	s.orders.add(k)
	return s.replaceOlder(ctx, k)
}

// keepOrder stores an order unless it is there with a newer plan, and gives the one that is stored then.
func (s *Service) keepOrder(ctx context.Context, k *known, value []byte) (*known, error) {
	kv, err := s.js.KeyValue(ctx, events.BucketOrders)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", events.BucketOrders, err)
	}
	for range orderAttempts {
		entry, err := kv.Get(ctx, k.Order)
		switch {
		case err == nil:
			if old, unreadable := readOrder(entry); unreadable == nil && old.At.After(k.At) {
				return old, nil // an event that comes again
			}
			_, err = kv.Update(ctx, k.Order, value, entry.Revision())
		case errors.Is(err, jetstream.ErrKeyNotFound):
			_, err = kv.Create(ctx, k.Order, value)
		}
		if err == nil {
			return k, nil
		}
		if !wrongSequence(err) && !errors.Is(err, jetstream.ErrKeyExists) {
			return nil, fmt.Errorf("store order %.12s: %w", k.Order, err)
		}
	}
	return nil, fmt.Errorf("store order %.12s: others keep changing it", k.Order)
}

// replaceOlder withdraws what does not run of the revisions before this one.
func (s *Service) replaceOlder(ctx context.Context, k *known) error {
	if k.Revision < 2 {
		return nil
	}
	mark, marked := s.control.stop(k.Deployment, k.Revision-1)
	if !marked {
		var err error
		mark, err = s.markStopped(ctx, stopMark{Deployment: k.Deployment, Revision: k.Revision - 1, By: byScheduling,
			Why: fmt.Sprintf("replaced by revision %d", k.Revision), At: s.now().UTC()})
		if err != nil {
			return err
		}
		if err := s.cancelAll(ctx, mark, false); err != nil {
			return err // what is left of it, the sweep does
		}
	}
	return s.liftHalt(ctx, k.Deployment, k.Revision-1, mark.By, mark.At)
}

// orderNamed finds an order in memory, or in the bucket where the watch is behind; nil if there is none.
func (s *Service) orderNamed(ctx context.Context, digest string) (*known, error) {
	if k, ok := s.orders.digest(digest); ok {
		return k, nil
	}
	kv, err := s.js.KeyValue(ctx, events.BucketOrders)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", events.BucketOrders, err)
	}
	entry, err := kv.Get(ctx, digest)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read order %.12s: %w", digest, err)
	}
	k, err := readOrder(entry)
	if err == nil {
		s.orders.add(k)
	}
	return k, err
}

func readOrder(entry jetstream.KeyValueEntry) (*known, error) {
	var stored storedOrder
	if err := json.Unmarshal(entry.Value(), &stored); err != nil {
		return nil, fmt.Errorf("read order %.12s: %w", entry.Key(), err)
	}
	k, err := openOrder(stored)
	if err != nil {
		return nil, fmt.Errorf("read order %.12s: %w", entry.Key(), err)
	}
	return k, nil
}

// seeOrder takes a change of the bucket of orders.
func (s *Service) seeOrder(entry jetstream.KeyValueEntry) error {
	if entry.Operation() != jetstream.KeyValuePut {
		s.orders.forgetDigest(entry.Key())
		return nil
	}
	k, err := readOrder(entry)
	if err != nil {
		return err
	}
	s.orders.add(k)
	return nil
}

// orderCall answers an agent's request for the bytes of an order.
func (s *Service) orderCall(ctx context.Context, _ string, req events.OrderRequest) (events.OrderAnswer, error) {
	if err := events.ValidDigest(req.Order); err != nil {
		return events.OrderAnswer{}, bus.BadRequest(err)
	}
	k, err := s.orderNamed(ctx, req.Order)
	if err != nil {
		return events.OrderAnswer{}, err
	}
	if k == nil {
		return events.OrderAnswer{}, bus.NotFound(fmt.Errorf("there is no order %.12s", req.Order))
	}
	return events.OrderAnswer{Envelope: k.Envelope, Include: k.Include, Exclude: k.Exclude}, nil
}
