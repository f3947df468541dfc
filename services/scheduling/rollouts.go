package scheduling

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/rollout"
)

// rolloutRecord is the value of rollout.<deployment>.<revision>: how far the rollout of one revision has come. There is
// none while no phase has opened and nothing was halted.
type rolloutRecord struct {
	events.DeploymentNotice
	Trace  string        `json:"trace,omitempty"`
	Phases []phaseRecord `json:"phases,omitempty"` // those that have opened, in their order
	// Halted is since when nothing further is released or started; zero: it goes on. Because says why.
	Halted  time.Time `json:"halted,omitzero"`
	Because string    `json:"because,omitempty"`
	// RolledBack is the deployment that takes this one back; it is final for the revision.
	RolledBack string    `json:"rolled_back,omitempty"`
	RolledBy   string    `json:"rolled_by,omitempty"` // "": a gate
	RolledWhy  string    `json:"rolled_why,omitempty"`
	RolledAt   time.Time `json:"rolled_at,omitzero"`
	Outbox     outbox    `json:"outbox"`
}

// phaseRecord is a phase that has opened. It keeps the phase as it was then: a plan that is changed later does not move
// who is in it.
type phaseRecord struct {
	events.Phase
	Opened time.Time `json:"opened"`
	Cut    float64   `json:"cut,omitempty"`  // by percent or count: the place up to which agents are in it
	All    bool      `json:"all,omitempty"`  // also those that were not heard of for long: nothing came after it
	Size   int       `json:"size,omitempty"` // agents in it when it opened, without those of the phases before it
	// Met is since when the success gate is met; Judged is the sequence in EVENTS of the progress by which that was last
	// found out, so that a replica that lags behind does not judge by older news.
	Met       time.Time        `json:"met,omitzero"`
	Judged    uint64           `json:"judged,omitempty"`
	Approved  string           `json:"approved,omitempty"` // by whom
	Skipped   string           `json:"skipped,omitempty"`  // by whom
	Signalled bool             `json:"signalled,omitempty"`
	Forgiven  rollout.Forgiven `json:"forgiven,omitzero"`
	Resumed   time.Time        `json:"resumed,omitzero"` // when somebody let it go on after a halt
}

// decided is what a verdict about a phase depends on, beside counts and time.
type decided struct {
	met, resumed      time.Time
	judged            uint64
	approved, skipped string
	signalled         bool
	forgiven          rollout.Forgiven
}

func (p *phaseRecord) decided() decided {
	return decided{p.Met.UTC(), p.Resumed.UTC(), p.Judged, p.Approved, p.Skipped, p.Signalled, p.Forgiven}
}

// asJudged says whether a rollout still is as it was when its newest phase was judged.
func (r *rolloutRecord) asJudged(then *rolloutRecord) bool {
	if len(r.Phases) != len(then.Phases) || !r.Halted.IsZero() {
		return false
	}
	return len(r.Phases) == 0 || r.newest().decided() == then.newest().decided()
}

func (r rolloutRecord) kept() any {
	r.Outbox = outbox{}
	return r
}

// newest is the phase that opened last; nil: none has.
func (r *rolloutRecord) newest() *phaseRecord {
	if len(r.Phases) == 0 {
		return nil
	}
	return &r.Phases[len(r.Phases)-1]
}

// takenBack begins what is said of a rollout that another deployment takes back.
const takenBack = "taken back by deployment "

// why says what a rollout was halted by, and who had it taken back; "": neither.
func (r rolloutRecord) why() string {
	if r.RolledBack == "" {
		return r.Because
	}
	says := takenBack + r.RolledBack
	if !r.RolledAt.IsZero() {
		says += ", asked for " + because(cmp.Or(r.RolledBy, "its gate")+" at "+r.RolledAt.Format(time.RFC3339), r.RolledWhy)
	}
	if r.Because == "" || r.Because == r.RolledWhy || strings.HasPrefix(r.Because, takenBack) {
		return says
	}
	return r.Because + "; " + says
}

// clone lets an edit change phases without changing what this replica holds in memory.
func (r rolloutRecord) clone() rolloutRecord {
	r.Phases = slices.Clone(r.Phases)
	return r
}

func rolloutKey(deployment string, revision uint64) string {
	return fmt.Sprintf("%s.%s.%d", kindRollout, deployment, revision)
}

func (s *Service) applyRollout(rest string, value []byte) error {
	name, number, _ := strings.Cut(rest, ".")
	revision, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return fmt.Errorf("rollout key %q: %w", rest, err)
	}
	var r rolloutRecord
	if value != nil {
		if err := json.Unmarshal(value, &r); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.work.deployment(name)
	if value == nil {
		delete(s.rollouts[name], revision)
		if len(s.rollouts[name]) == 0 {
			delete(s.rollouts, name)
		}
		return nil
	}
	if s.rollouts[name] == nil {
		s.rollouts[name] = map[uint64]rolloutRecord{}
	}
	s.rollouts[name][revision] = r
	return nil
}

// rolloutOf is how far a deployment's rollout has come, as this replica knows it.
func (s *Service) rolloutOf(d *deployment) rolloutRecord {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rollouts[d.record.Deployment][d.record.Revision]
}

// changeRollout edits the rollout of one revision; what edit tells is told for it.
func (s *Service) changeRollout(ctx context.Context, d *deployment, edit func(*rolloutRecord) error) (rolloutRecord, error) {
	n := d.record.DeploymentNotice
	return changeNoted(ctx, s.deploymentStore, rolloutKey(n.Deployment, n.Revision), func(old rolloutRecord, found bool) (rolloutRecord, error) {
		r := old.clone()
		if !found {
			r.DeploymentNotice, r.Trace = n, d.record.Trace
		}
		return r, edit(&r)
	})
}

// life of a deployment with what its rollout says.
func (s *Service) life(d *deployment) events.Life {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.lifeLocked(d, s.now())
}

// lifeLocked is life for who holds the lock.
func (s *Service) lifeLocked(d *deployment, now time.Time) events.Life {
	l := d.life(now)
	if l != events.LifeActive && l != events.LifePending {
		return l
	}
	if !s.rollouts[d.record.Deployment][d.record.Revision].Halted.IsZero() {
		return events.LifeHalted
	}
	return l
}

// plan is the deployment's with the phases that have opened as they were then; only their limits are those of now.
func (d *deployment) plan(r rolloutRecord) events.Plan {
	var p events.Plan
	if d.record.Plan != nil {
		p = *d.record.Plan
	}
	var phases []events.Phase
	for i, opened := range r.Phases {
		phase := opened.Phase
		if i < len(p.Phases) {
			phase.MaxInFlight = p.Phases[i].MaxInFlight
		}
		phases = append(phases, phase)
	}
	if len(r.Phases) < len(p.Phases) {
		phases = append(phases, p.Phases[len(r.Phases):]...)
	}
	p.Phases = phases
	return p
}

// awaits says whether a phase that is in a collection is open, or still to open.
func (d *deployment) awaits(rollouts map[string]map[uint64]rolloutRecord, collection string) bool {
	return slices.ContainsFunc(d.plan(rollouts[d.record.Deployment][d.record.Revision]).Phases, func(p events.Phase) bool { return p.Collection == collection })
}

// phased says whether the deployment goes out in phases.
func (d *deployment) phased() bool { return d.record.Plan != nil && len(d.record.Plan.Phases) > 0 }

// announceRollouts tells what is in the outboxes of a deployment's rollouts, also of revisions that were replaced.
func (s *Service) announceRollouts(ctx context.Context, name string) error {
	s.mu.RLock()
	var owing []uint64
	for revision, r := range s.rollouts[name] {
		if len(r.Outbox.Notes) > 0 {
			owing = append(owing, revision)
		}
	}
	s.mu.RUnlock()
	slices.Sort(owing)
	for _, revision := range owing {
		if err := s.announceRollout(ctx, rolloutKey(name, revision)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) announceRollout(ctx context.Context, key string) error {
	r, revision, err := load[rolloutRecord](ctx, s.deploymentStore, key)
	if err != nil || revision == 0 || len(r.Outbox.Notes) == 0 {
		return err
	}
	for _, n := range r.Outbox.Notes {
		if err := s.tellRollout(ctx, r, n); err != nil {
			return err
		}
	}
	told := r.Outbox.Last
	_, err = change(ctx, s.deploymentStore, key, func(old rolloutRecord, found bool) (rolloutRecord, error) {
		if !found || len(old.Outbox.without(told).Notes) == len(old.Outbox.Notes) {
			return old, errKeep
		}
		old.Outbox = old.Outbox.without(told)
		return old, nil
	})
	return err
}

func (s *Service) tellRollout(ctx context.Context, r rolloutRecord, n note) error {
	notice := r.DeploymentNotice
	notice.By, notice.Why, notice.At = n.By, n.Why, n.At
	if n.Type == events.DeploymentResumed.Name {
		return tell(ctx, s.bus, events.DeploymentResumed, r.Deployment, r.Trace, n, notice)
	}
	for _, t := range []events.Type[events.PhaseNotice]{events.RolloutOpened, events.RolloutHalted, events.RolloutApproved, events.RolloutSkipped, events.RolloutRolledBack} {
		if n.Type == t.Name {
			return tell(ctx, s.bus, t, r.Deployment, r.Trace, n, events.PhaseNotice{DeploymentNotice: notice, Phase: n.Phase, Index: n.Index, Size: n.Size, Rolls: n.Rolls})
		}
	}
	return fmt.Errorf("the rollout of %s is to tell %q, which this version does not know", r.Deployment, n.Type)
}

// note adds what is to be told of the phase that opened last.
func (r *rolloutRecord) note(t events.Declaration, by, why string, at time.Time) {
	r.Outbox = r.Outbox.with(t, by, why, at)
	if p := r.newest(); p != nil {
		n := &r.Outbox.Notes[len(r.Outbox.Notes)-1]
		n.Phase, n.Index, n.Size = p.Name, len(r.Phases)-1, p.Size
	}
}

// forgetRollouts drops the rollouts of revisions that were replaced, and of deployments that were removed, once all of
// them was told.
func (s *Service) forgetRollouts(ctx context.Context) error {
	s.mu.RLock()
	olds := map[string]string{} // deployment by key
	for name, byRevision := range s.rollouts {
		for revision, r := range byRevision {
			d, there := s.deployments[name]
			removed, gone := s.removed[name]
			if len(r.Outbox.Notes) == 0 && (there && revision < d.record.Revision || gone && revision <= removed) {
				olds[rolloutKey(name, revision)] = name
			}
		}
	}
	s.mu.RUnlock()
	var failures []error
	for key, name := range olds {
		r, revision, err := load[rolloutRecord](ctx, s.deploymentStore, key)
		if err == nil && revision > 0 && len(r.Outbox.Notes) == 0 {
			err = s.purge(ctx, events.BucketDeployments, key, revision)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("forget a rollout of deployment %s: %w", name, err))
			continue
		}
		if err := s.applyRollout(strings.TrimPrefix(key, kindRollout+"."), nil); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}
