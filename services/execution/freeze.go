package execution

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/target"
)

const (
	// maxFrozen bounds the frozen collections together, in bytes of JSON: a beacon, and the answer to each
	// agent's sync, carries these freezes in one message. Freezes of the fleet and of sites always fit; those of halted
	// deployments are bounded by themselves.
	maxFrozen = 128 << 10
	maxWhy    = 1 << 10
)

// collectionChanged keeps a collection's definition, so that it can be frozen while scheduling is down.
func (s *Service) collectionChanged(ctx context.Context, e events.Event[events.Collection], _ bus.Meta) error {
	if err := events.ValidToken(e.Data.Name); err != nil {
		return bus.Drop("bad_collection", err)
	}
	if old, ok := s.control.collection(e.Data.Name); ok && old.Changed.After(e.Data.Changed) {
		return nil // an event that comes again, after a newer one
	}
	return s.put(ctx, keyCollection+e.Data.Name, e.Data)
}

func (s *Service) collectionRemoved(ctx context.Context, e events.Event[events.Collection], _ bus.Meta) error {
	if err := events.ValidToken(e.Data.Name); err != nil {
		return bus.Drop("bad_collection", err)
	}
	if old, ok := s.control.collection(e.Data.Name); !ok || old.Changed.After(e.Data.Changed) {
		return nil
	}
	return s.drop(ctx, keyCollection+e.Data.Name)
}

// freezeCall sets a freeze. Agents hear of it by an immediate beacon; one that is away hears of it before
// it starts anything it is told meanwhile, with the answer to its sync.
func (s *Service) freezeCall(ctx context.Context, caller string, req events.Freeze) (events.Freeze, error) {
	f := events.Freeze{Scope: req.Scope, Name: req.Name, By: caller, Why: req.Why, At: s.now().UTC()}
	if len(f.Why) > maxWhy {
		return f, bus.BadRequest(fmt.Errorf("the reason is longer than %d bytes", maxWhy))
	}
	if f.Scope != "fleet" {
		if err := events.ValidToken(f.Name); err != nil {
			return f, bus.BadRequest(err)
		}
	}
	switch f.Scope {
	case "fleet":
		if f.Name != "" {
			return f, bus.BadRequest(fmt.Errorf("a freeze of the fleet has no name, not %q", f.Name))
		}
		f.ID = f.Scope
	case "site":
		f.ID = f.Scope + "-" + f.Name
	case "collection":
		f.ID = f.Scope + "-" + f.Name
		c, err := s.frozenCollection(req)
		if err != nil {
			return f, err
		}
		f.Collection = &c
	default:
		return f, bus.BadRequest(fmt.Errorf("scope %q is neither fleet, collection nor site", f.Scope))
	}
	if err := events.ValidToken(f.ID); err != nil {
		return f, bus.BadRequest(err) // the longest names leave no room for the scope
	}
	before, there := s.control.freeze(f.ID)
	if err := s.put(ctx, keyFreeze+f.ID, f); err != nil {
		return f, err
	}
	if there {
		bus.NoteChange(ctx, before, f)
	} else {
		bus.NoteChange(ctx, nil, f)
	}
	kick(s.beaconNow)
	return f, s.tellFreeze(ctx, events.FreezeSet, f)
}

// frozenCollection is the definition by which agents decide whether they are frozen: the caller's, or the
// newest that execution has heard of.
func (s *Service) frozenCollection(req events.Freeze) (events.Collection, error) {
	c, ok := s.control.collection(req.Name)
	if req.Collection != nil {
		c, ok = *req.Collection, true
	}
	switch {
	case !ok:
		return c, bus.NotFound(fmt.Errorf("execution knows no collection %s: enclose its definition", req.Name))
	case c.Name != req.Name:
		return c, bus.BadRequest(fmt.Errorf("the definition enclosed is of collection %q, not %q", c.Name, req.Name))
	}
	if size, err := s.frozenSize(c); err != nil || size > maxFrozen {
		return c, errors.Join(err, bus.BadRequest(fmt.Errorf("the frozen collections would take %d bytes together, at most %d can be: freeze a site, the fleet, or a collection that lists fewer agents", size, maxFrozen)))
	}
	if _, err := target.New(c.Expression, c.Include, c.Exclude); err != nil {
		return c, bus.BadRequest(fmt.Errorf("collection %s: %w", c.Name, err))
	}
	return c, nil
}

// frozenSize is that of all frozen collections with this one, in bytes of JSON.
func (s *Service) frozenSize(c events.Collection) (int, error) {
	all := []events.Collection{c}
	for _, f := range s.control.peoplesFreezes() {
		if f.Collection != nil && f.Collection.Name != c.Name {
			all = append(all, *f.Collection)
		}
	}
	value, err := json.Marshal(all)
	return len(value), err
}

// unfreezeCall lifts a freeze by its id.
func (s *Service) unfreezeCall(ctx context.Context, caller string, req events.Named) (events.Freeze, error) {
	f, ok, err := s.freezeNamed(ctx, req.Name)
	if err != nil {
		return f, err
	}
	if !ok {
		if halts := s.control.haltFreezes(func(deployment string) bool { return haltID(deployment) == req.Name }); len(halts) > 0 {
			name := halts[0].Name
			return f, bus.Conflict(fmt.Errorf("the rollout of deployment %s is halted: resume the deployment (chandler deployment resume %s)", name, name))
		}
		return f, bus.NotFound(fmt.Errorf("there is no freeze %q", req.Name))
	}
	bus.NoteChange(ctx, f, nil)
	f.By, f.Why, f.At = caller, req.Why, s.now().UTC()
	if err := s.drop(ctx, keyFreeze+f.ID); err != nil {
		return f, err
	}
	kick(s.beaconNow)
	return f, s.tellFreeze(ctx, events.FreezeLifted, f)
}

// freezeNamed finds a freeze, also one that this replica has not heard of yet: another may just have set it.
func (s *Service) freezeNamed(ctx context.Context, id string) (f events.Freeze, ok bool, err error) {
	if f, ok = s.control.freeze(id); ok || events.ValidToken(id) != nil {
		return f, ok, nil
	}
	kv, err := s.controlBucket(ctx)
	if err != nil {
		return f, false, err
	}
	entry, err := kv.Get(ctx, keyFreeze+id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return f, false, nil
	}
	if err == nil {
		err = json.Unmarshal(entry.Value(), &f)
	}
	if err != nil {
		return f, false, fmt.Errorf("read freeze %s: %w", id, err)
	}
	return f, true, nil
}

func (s *Service) freezesCall(context.Context, string, events.Nothing) (events.FreezeList, error) {
	return events.FreezeList{Freezes: s.control.freezesWith(anyDeployment)}, nil
}

func (s *Service) tellFreeze(ctx context.Context, t events.Type[events.Freeze], f events.Freeze) error {
	_, err := bus.Publish(ctx, s.bus, t, events.Event[events.Freeze]{ID: events.DeriveID(t.Name, f.ID, f.At.Format("2006-01-02T15:04:05.999999999Z")), Subject: f.ID, Time: f.At, Data: f})
	return err
}

// sendBeacons tells all agents the generations and the freezes, at intervals and at once when they change.
func (s *Service) sendBeacons(ctx context.Context) error {
	return s.every(ctx, s.pace.beacon, s.beaconNow, "beacon", func(ctx context.Context) error {
		now := s.now().UTC()
		note := events.BeaconNote{Jobs: s.generations.jobs(), Status: s.generations.status(), Freezes: s.control.freezesWith(anyDeployment), At: now}
		err := bus.Send(ctx, s.bus, events.Beacon, events.Event[events.BeaconNote]{ID: events.DeriveID("beacon", fmt.Sprint(s.author), fmt.Sprint(now.UnixNano())), Time: now, Data: note})
		if err != nil {
			return errors.Join(errors.New("agents were not told"), err)
		}
		return nil
	})
}
