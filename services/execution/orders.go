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

// known is a signed order that execution keeps.
type known struct {
	events.DeploymentOrder
	order order.Order
	trace string
}

// storedOrder is a value of the bucket of orders.
type storedOrder struct {
	events.DeploymentOrder
	Trace string `json:"trace,omitempty"`
}

// over says when the order's time ends: nothing starts after it.
func (k *known) over() time.Time { return k.order.Over() }

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
	return &known{stored.DeploymentOrder, o, stored.Trace}, nil
}

// created keeps an accepted order.
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
	kv, err := s.js.KeyValue(ctx, events.BucketOrders)
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", events.BucketOrders, err)
	}
	if _, err := kv.Put(ctx, k.Order, value); err != nil {
		return fmt.Errorf("store order %.12s: %w", k.Order, err)
	}
	s.orders.add(k)
	return nil
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
