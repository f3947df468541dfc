package scheduling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
	"chandler/events/sign"
)

// keepDraft keeps an order that lacks signatures, or adds its signatures to the draft that is there. The
// draft of another order is nobody's to replace, unless it can become nothing any more.
func (s *Service) keepDraft(ctx context.Context, caller string, r deploymentRecord) (deploymentRecord, error) {
	return changeNoted(ctx, s.deploymentStore, draftKey(r.Deployment), func(old deploymentRecord, found bool) (deploymentRecord, error) {
		switch {
		case found && old.Order == r.Order && !old.Removed:
			return addSignatures(old, r.Envelope)
		case found && !old.Removed && !s.hopeless(old):
			return old, bus.Conflict(fmt.Errorf("deployment %s has a draft already, of revision %d by %s: sign that one, or remove it first (`chandler deployment rm %s`)",
				r.Deployment, old.Revision, old.By, r.Deployment))
		}
		drafted := r
		drafted.Outbox = outbox{Last: old.Outbox.Last}.with(events.DeploymentDrafted.Declaration, caller, "", r.At)
		return drafted, nil
	})
}

// hopeless says whether a draft can become nothing any more: its time is over, or another order took its place.
func (s *Service) hopeless(r deploymentRecord) bool {
	d, err := openDeployment(r)
	if err != nil || !s.now().Before(end(d.order)) {
		return err == nil
	}
	live, ok := s.deployment(r.Deployment)
	return ok && live.record.Revision >= r.Revision
}

// addSignatures is the record with the signatures of an envelope too; errKeep: it has them all.
func addSignatures(r deploymentRecord, envelope []byte) (deploymentRecord, error) {
	merged, err := sign.Merge(r.Envelope, envelope)
	if err != nil {
		return r, refusedAlike(err)
	}
	if string(merged) == string(r.Envelope) {
		return r, errKeep
	}
	if len(merged) > order.MaxSize {
		return r, bus.BadRequest(fmt.Errorf("the order with all its signatures takes %d bytes, at most %d can be", len(merged), order.MaxSize))
	}
	r.Envelope = merged
	return r, r.checkSize()
}

// deploymentSign adds signatures to a draft. The draft with all of them is stored before it is looked at
// whether they suffice: whoever brings the last ones, at whichever replica, sees those of all others. What
// cannot become the deployment now stays a draft, and is tried again when it is signed again.
func (s *Service) deploymentSign(ctx context.Context, caller string, req events.SignRequest) (events.DeploymentView, error) {
	o, digest, err := order.Open(req.Envelope)
	if err != nil {
		return events.DeploymentView{}, bus.BadRequest(fmt.Errorf("the order is refused: %w", err))
	}
	if got, err := s.signatures(ctx, req.Envelope); err != nil {
		return events.DeploymentView{}, refusedAlike(err)
	} else if !got.known {
		return events.DeploymentView{}, noTrust()
	}
	r, err := changeNoted(ctx, s.deploymentStore, draftKey(o.Deployment), func(old deploymentRecord, found bool) (deploymentRecord, error) {
		switch {
		case !found || old.Removed:
			return old, unknownDraft(o.Deployment)
		case old.Order != digest:
			return old, bus.Conflict(fmt.Errorf("the draft of deployment %s is another order, of revision %d by %s: look at it and sign that one (`chandler deployment sign %s`)",
				o.Deployment, old.Revision, old.By, o.Deployment))
		}
		return addSignatures(old, req.Envelope)
	})
	if err != nil {
		// The deployment is stored before its draft is dropped.
		if v, failed := s.deploymentShow(ctx, caller, events.Named{Name: o.Deployment}); failed == nil && v.Order == digest && v.Life != events.LifeDraft {
			return v, nil // complete already
		}
		return events.DeploymentView{}, err
	}
	got, err := s.signatures(ctx, r.Envelope)
	if err != nil {
		return events.DeploymentView{}, refusedAlike(err)
	}
	s.log.Info("draft signed", "deployment", r.Deployment, "revision", r.Revision, "signatures", len(got.signers), "needed", got.needed, "by", caller)
	if !got.complete {
		return s.showDraft(r)
	}
	return s.accept(ctx, caller, r)
}

// deploymentDraft gives a draft to whoever is to sign it.
func (s *Service) deploymentDraft(ctx context.Context, _ string, req events.Named) (events.DraftView, error) {
	if err := checkNamed(req); err != nil {
		return events.DraftView{}, bus.BadRequest(err)
	}
	r, revision, err := load[deploymentRecord](ctx, s.deploymentStore, draftKey(req.Name))
	if err != nil {
		return events.DraftView{}, err
	}
	if revision == 0 || r.Removed || s.completed(r) {
		return events.DraftView{}, unknownDraft(req.Name)
	}
	got, _ := signedBy(r.Envelope, s.trusted(), s.now()) // a refusal: nobody who is trusted has signed it
	return events.DraftView{DeploymentOrder: r.signed(r.DeploymentNotice), Signed: append([]string{}, got.signers...), Needed: got.needed}, nil
}

func unknownDraft(name string) error {
	return bus.NotFound(fmt.Errorf("there is no draft of deployment %q: `chandler deployment ls` lists drafts too", name))
}

func noTrust() error {
	return bus.Conflict(errors.New("scheduling has not heard whose signatures are needed: hand over the trust bundle first (`chandler trust show` tells which one the fleet has)"))
}

func draftKey(name string) string { return kindDraft + "." + name }

// showDraft is a draft that was just read, among deployments.
func (s *Service) showDraft(r deploymentRecord) (events.DeploymentView, error) {
	d, err := openDeployment(r)
	if err != nil {
		return events.DeploymentView{}, err
	}
	return s.draftView(d), nil
}

func (s *Service) draftView(d *deployment) events.DeploymentView {
	v := d.signedView()
	v.Life = events.LifeDraft
	got, err := signedBy(d.record.Envelope, s.trusted(), s.now())
	if v.Signers, v.Needed = got.signers, got.needed; err != nil {
		v.Why = err.Error() // the keys that signed it are trusted no longer
	}
	v.Members = s.countMembers(d)
	return v
}

// drafts that wait for signatures.
func (s *Service) waitingDrafts() (all []*deployment) {
	s.mu.RLock()
	drafts := slices.Collect(maps.Values(s.drafts))
	s.mu.RUnlock()
	for _, d := range drafts {
		if !d.record.Removed && !s.completed(d.record) {
			all = append(all, d)
		}
	}
	return all
}

// completed says whether the draft's order is the deployment's: it waits to be forgotten only.
func (s *Service) completed(r deploymentRecord) bool {
	d, ok := s.deployment(r.Deployment)
	return ok && d.record.Order == r.Order
}

func (s *Service) draftNames() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Keys(s.drafts))
}

// removeDraft drops the draft of a name, if there is one.
func (s *Service) removeDraft(ctx context.Context, name string) (removed bool, err error) {
	_, err = changeNoted(ctx, s.deploymentStore, draftKey(name), func(old deploymentRecord, found bool) (deploymentRecord, error) {
		if removed = found && !old.Removed && !s.completed(old); !removed {
			return old, errKeep
		}
		return old.withoutDraft(), nil
	})
	return removed, err
}

// withoutDraft is what stays of a draft until every replica has forgotten it.
func (r deploymentRecord) withoutDraft() deploymentRecord {
	return deploymentRecord{DeploymentNotice: r.DeploymentNotice, Trace: r.Trace, Removed: true, Outbox: r.Outbox}
}

// applyDraft takes over what the bucket says.
func (s *Service) applyDraft(name string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.work.deployment(name)
	delete(s.drafts, name)
	if value == nil {
		return nil
	}
	var r deploymentRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	d := &deployment{record: r}
	if !r.Removed {
		var err error
		if d, err = openDeployment(r); err != nil {
			return err
		}
	}
	s.drafts[name] = d
	return nil
}

// settleDraft tells of a draft, drops one whose time is over or which became the deployment, and forgets
// what was dropped.
func (s *Service) settleDraft(ctx context.Context, name string) error {
	s.mu.RLock()
	d, ok := s.drafts[name]
	s.mu.RUnlock()
	if !ok {
		return nil
	}
	if len(d.record.Outbox.Notes) > 0 {
		if err := s.announce(ctx, draftKey(name)); err != nil {
			return err
		}
	}
	if !d.record.Removed {
		if s.now().Before(end(d.order)) && !s.completed(d.record) {
			return nil
		}
		_, err := change(ctx, s.deploymentStore, draftKey(name), func(old deploymentRecord, found bool) (deploymentRecord, error) {
			if !found || old.Removed || old.Order != d.record.Order {
				return old, errKeep
			}
			return old.withoutDraft(), nil
		})
		if err != nil {
			return fmt.Errorf("drop draft of deployment %s: %w", name, err)
		}
	}
	return s.forgetDraft(ctx, name)
}

// forgetDraft purges a draft that was dropped, unless there is another one meanwhile.
func (s *Service) forgetDraft(ctx context.Context, name string) error {
	key := draftKey(name)
	r, revision, err := load[deploymentRecord](ctx, s.deploymentStore, key)
	if err != nil || revision > 0 && (!r.Removed || len(r.Outbox.Notes) > 0) {
		return err
	}
	if revision > 0 {
		if err := s.purge(ctx, events.BucketDeployments, key, revision); err != nil {
			return fmt.Errorf("forget draft of deployment %s: %w", name, err)
		}
	}
	return s.deploymentStore.missed(ctx, key)
}

// purge drops a key with its history, up to a revision. A marker of a deleted key would stay for ever;
// without one, each replica forgets the key when it meets it again.
func (s *Service) purge(ctx context.Context, bucket, key string, upTo uint64) error {
	stream, err := s.bus.JetStream().Stream(ctx, "KV_"+bucket)
	if err != nil {
		return err
	}
	return stream.Purge(ctx, jetstream.WithPurgeSubject("$KV."+bucket+"."+key), jetstream.WithPurgeSequence(upTo+1))
}

func byName(a, b events.DeploymentView) int {
	if a.Deployment != b.Deployment {
		return strings.Compare(a.Deployment, b.Deployment)
	}
	return int(a.Revision) - int(b.Revision)
}
