package scheduling

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// outbox holds what is still to be told about a record. It is stored with the change that it tells of, and
// emptied after the broker has stored the events: so every change is told, in order, at least once.
type outbox struct {
	Last uint64 `json:"last,omitempty"` // number of the last note ever written
	// At is the time of the last note ever written. Each one is later than all before it, also where the clocks of replicas
	// differ: who hears the events in another order compares their times.
	At    time.Time `json:"at,omitzero"`
	Notes []note    `json:"notes,omitempty"`
	// Told are the last notes that were: a broker that loses its newest events in a power cut is told them again.
	Told []note `json:"told,omitempty"`
}

// Of what was told so many notes of each record are kept, and for so long: longer than a broker takes to sync what it stored.
const (
	toldNotes = 8
	toldFor   = 10 * time.Minute
)

// note is one event to publish.
type note struct {
	Number uint64    `json:"number"`
	Type   string    `json:"type"` // name of the event type
	By     string    `json:"by,omitempty"`
	Why    string    `json:"why,omitempty"`
	At     time.Time `json:"at"`
	// Of a rollout: the phase that the note is about.
	Phase string `json:"phase,omitempty"`
	Index int    `json:"index,omitempty"`
	Size  int    `json:"size,omitempty"`
	Rolls string `json:"rolls,omitempty"`
}

func (o outbox) with(t events.Declaration, by, why string, at time.Time) outbox {
	if !at.After(o.At) {
		at = o.At.Add(time.Nanosecond)
	}
	n := note{Number: o.Last + 1, Type: t.Name, By: by, Why: why, At: at}
	return outbox{Last: n.Number, At: at, Notes: append(slices.Clone(o.Notes), n), Told: o.Told}
}

// without takes the notes up to a number for told.
func (o outbox) without(upTo uint64) outbox {
	var left []note
	told := slices.Clone(o.Told)
	for _, n := range o.Notes {
		if n.Number <= upTo {
			told = append(told, n)
		} else {
			left = append(left, n)
		}
	}
	o.Notes, o.Told = left, told[max(0, len(told)-toldNotes):]
	return o
}

// toldSince are the notes that were told of changes since then.
func (o outbox) toldSince(since time.Time) (notes []note) {
	for _, n := range o.Told {
		if n.At.After(since) {
			notes = append(notes, n)
		}
	}
	return notes
}

// id of the note's event. The time is in it because numbers begin again after a removal.
func (n note) id(name string) string {
	return events.DeriveID(n.Type, name, strconv.FormatUint(n.Number, 10), strconv.FormatInt(n.At.UnixNano(), 10))
}

func tell[T any](ctx context.Context, b *bus.Bus, t events.Type[T], name, trace string, n note, data T) error {
	_, err := bus.Publish(ctx, b, t, events.Event[T]{ID: n.id(name), Subject: name, Time: n.At, Trace: trace, Data: data})
	return err
}

// announceCollection tells what is in the collection's outbox, then empties it; a removed collection is
// forgotten after that.
func (s *Service) announceCollection(ctx context.Context, name string) error {
	record, revision, err := load[collectionRecord](ctx, s.collectionStore, name)
	if err != nil {
		return err
	}
	if revision == 0 {
		return s.forgetCollection(ctx, name) // another replica purged it
	}
	if err := s.tellCollection(ctx, record, record.Outbox.Notes); err != nil {
		return err
	}
	told := record.Outbox.Last
	record, err = change(ctx, s.collectionStore, name, func(old collectionRecord, found bool) (collectionRecord, error) {
		if !found || len(old.Outbox.without(told).Notes) == len(old.Outbox.Notes) {
			return old, errKeep
		}
		old.Outbox = old.Outbox.without(told)
		return old, nil
	})
	if err != nil || !record.Removed {
		return err
	}
	return s.forgetCollection(ctx, name)
}

func (s *Service) tellCollection(ctx context.Context, r collectionRecord, notes []note) error {
	for _, n := range notes {
		t := events.CollectionChanged
		if n.Type == events.CollectionRemoved.Name {
			t = events.CollectionRemoved
		}
		if err := tell(ctx, s.bus, t, r.Name, "", n, r.Collection); err != nil {
			return err
		}
	}
	return nil
}

// announceDeployment tells what is in the deployment's outbox, then empties it.
func (s *Service) announceDeployment(ctx context.Context, name string) error {
	return s.announce(ctx, kindDeployment+"."+name)
}

// announce does it for a deployment or a draft.
func (s *Service) announce(ctx context.Context, key string) error {
	record, revision, err := load[deploymentRecord](ctx, s.deploymentStore, key)
	if err != nil || revision == 0 || len(record.Outbox.Notes) == 0 {
		return err
	}
	for _, n := range record.Outbox.Notes {
		if err := s.tellDeployment(ctx, record, n); err != nil {
			return err
		}
	}
	told := record.Outbox.Last
	_, err = change(ctx, s.deploymentStore, key, func(old deploymentRecord, found bool) (deploymentRecord, error) {
		if !found || len(old.Outbox.without(told).Notes) == len(old.Outbox.Notes) {
			return old, errKeep
		}
		old.Outbox = old.Outbox.without(told)
		return old, nil
	})
	return err
}

func (s *Service) tellDeployment(ctx context.Context, r deploymentRecord, n note) error {
	notice := r.DeploymentNotice
	notice.By, notice.Why, notice.At = n.By, n.Why, n.At
	if n.Type == events.DeploymentCreated.Name {
		if len(r.Envelope) == 0 {
			return nil // removed before anybody heard of it
		}
		return tell(ctx, s.bus, events.DeploymentCreated, r.Deployment, r.Trace, n, r.signed(notice))
	}
	for _, t := range []events.Type[events.DeploymentNotice]{events.DeploymentDrafted, events.DeploymentPaused, events.DeploymentResumed, events.DeploymentLapsed, events.DeploymentRemoved} {
		if n.Type == t.Name {
			return tell(ctx, s.bus, t, r.Deployment, r.Trace, n, notice)
		}
	}
	return fmt.Errorf("deployment %s is to tell %q, which this version does not know", r.Deployment, n.Type)
}

// signed is the order as others need it.
func (r deploymentRecord) signed(notice events.DeploymentNotice) events.DeploymentOrder {
	return events.DeploymentOrder{DeploymentNotice: notice, Envelope: r.Envelope, Include: r.Include, Exclude: r.Exclude, Plan: r.Plan, RollbackTo: r.rollbackTo()}
}
