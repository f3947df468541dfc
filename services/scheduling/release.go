package scheduling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// waveAll names the wave of deployments without phases: everybody, and who comes later. It is in the keys of all batches:
// numbers run through all phases, so that of two replicas only one makes the next batch, whichever phase each means.
const waveAll = "1"

// releaseLog is who was handed over of one revision. Batches are numbered without gaps: who creates the
// next one has seen all before it, and therefore hands nobody over twice.
type releaseLog struct {
	batches   map[int]batch
	released  idSet
	phases    map[int]tally
	sites     map[string]int // agents handed over
	forgotten int            // batches that were there and are not any more
}

// tally counts the agents of one phase that were handed over.
type tally struct{ own, joined int }

type batch struct {
	places    []int
	announced bool
	phase     int
	joined    bool
	sites     map[string]int
	at        time.Time
}

func (l *releaseLog) next() int {
	n := 0
	for b := range l.batches {
		n = max(n, b+1)
	}
	return n
}

// log finds or begins the log of a revision. The caller holds the lock.
func (s *Service) releasesOf(deployment string, revision uint64) *releaseLog {
	byRevision, ok := s.releases[deployment]
	if !ok {
		byRevision = map[uint64]*releaseLog{}
		s.releases[deployment] = byRevision
	}
	if byRevision[revision] == nil {
		byRevision[revision] = &releaseLog{batches: map[int]batch{}, phases: map[int]tally{}, sites: map[string]int{}}
	}
	return byRevision[revision]
}

func (s *Service) applyRelease(rest string, value []byte) error {
	key, err := parseReleaseKey(rest)
	if err != nil {
		return err
	}
	var r releaseRecord
	if value != nil {
		if err := json.Unmarshal(value, &r); err != nil {
			return err
		}
	}
	places := s.fleet.places(r.Agents)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.recount(key.deployment)
	log := s.releasesOf(key.deployment, key.revision)
	if value == nil {
		// Only a bucket that was lost or restored forgets batches.
		log.count(log.batches[key.batch], -1)
		delete(log.batches, key.batch)
		log.released = nil
		log.forgotten++
		for _, b := range log.batches {
			for _, p := range b.places {
				log.released = log.released.set(p, true)
			}
		}
		return nil
	}
	_, known := log.batches[key.batch]
	log.note(key.batch, batch{places: places, announced: r.Announced, phase: r.Phase, joined: r.Joined, sites: countSites(r), at: r.At})
	if !known {
		s.work.deployment(key.deployment)
		if back := rollbackName(key.deployment); s.deployments[back] != nil { // it goes to the same agents
			s.work.deployment(back)
		}
	}
	return nil
}

func countSites(r releaseRecord) map[string]int {
	sites := map[string]int{}
	for i := range r.Agents {
		if i < len(r.Sites) {
			sites[r.Sites[i]]++
		} else {
			sites[""]++
		}
	}
	return sites
}

// release hands over who is due and was not, in batches, as far as limits allow.
func (s *Service) release(ctx context.Context, d *deployment) error {
	for first := true; ; first = false {
		next := s.nextLot(d)
		if len(next.places) == 0 {
			s.noteHeld(d, next.held)
			return nil
		}
		if first {
			// Another replica may have paused, halted or replaced it a moment ago; between batches the mirror says so.
			if err := s.refresh(ctx, d); err != nil {
				return err
			}
		}
		if !s.stillActive(d) {
			return nil
		}
		key := releaseKey{d.record.Deployment, d.record.Revision, waveAll, next.number}
		r := releaseRecord{Order: d.record.Order, Phase: next.phase, Phased: next.phased, Joined: next.joined, At: s.now().UTC()}
		r.Agents, r.Sites = s.fleet.sited(next.places)
		err := save(ctx, s.deploymentStore, key.String(), r, 0)
		if lostRace(err) {
			return nil // another replica was first: its batch comes by the mirror, which brings us back here
		}
		if err != nil {
			return err
		}
		if err := s.announceRelease(ctx, key, r, d.record.Trace); err != nil {
			return err
		}
		s.metrics.released.Add(float64(len(r.Agents)))
		s.log.Info("released", "deployment", key.deployment, "revision", key.revision, "phase", r.Phase, "batch", key.batch, "agents", len(r.Agents))
	}
}

// noteHeld remembers how many agents nothing but a limit holds back.
func (s *Service) noteHeld(d *deployment, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.held, d.record.Deployment); n > 0 {
		s.held[d.record.Deployment] = n
	}
}

// noteStuck remembers whether the next phase of a rollout is due and there is nobody for it.
func (s *Service) noteStuck(d *deployment, stuck bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.stuck, d.record.Deployment); stuck {
		s.stuck[d.record.Deployment] = true
	}
}

// refresh brings memory up to the deployment's record.
func (s *Service) refresh(ctx context.Context, d *deployment) error {
	if _, _, err := load[deploymentRecord](ctx, s.deploymentStore, kindDeployment+"."+d.record.Deployment); err != nil {
		return err
	}
	_, _, err := load[rolloutRecord](ctx, s.deploymentStore, rolloutKey(d.record.Deployment, d.record.Revision))
	return err
}

func (s *Service) stillActive(d *deployment) bool {
	now, ok := s.deployment(d.record.Deployment)
	return ok && now.record.Order == d.record.Order && s.life(now) == events.LifeActive
}

// eventID of a batch. The agents are in it: after a restored bucket the same number may mean others.
func (k releaseKey) eventID(r releaseRecord) string {
	return events.DeriveID("release", k.deployment, strconv.FormatUint(k.revision, 10), r.wave(), strconv.Itoa(k.batch), events.DigestOf([]byte(strings.Join(r.Agents, "\n"))))
}

// announceRelease tells of a batch and notes that it did.
func (s *Service) announceRelease(ctx context.Context, key releaseKey, r releaseRecord, trace string) error {
	if _, err := s.tellRelease(ctx, key, r, key.eventID(r), trace); err != nil {
		return err
	}
	_, err := change(ctx, s.deploymentStore, key.String(), func(old releaseRecord, found bool) (releaseRecord, error) {
		if !found || old.Announced {
			return old, errKeep
		}
		old.Announced = true
		return old, nil
	})
	return err
}

func (s *Service) tellRelease(ctx context.Context, key releaseKey, r releaseRecord, id, trace string) (*jetstream.PubAck, error) {
	return bus.Publish(ctx, s.bus, events.DeploymentReleased, events.Event[events.Release]{ID: id, Subject: key.deployment, Time: r.At, Trace: trace,
		Data: events.Release{Deployment: key.deployment, Revision: key.revision, Order: r.Order, Wave: r.wave(), Batch: key.batch,
			Agents: r.Agents, Sites: r.Sites, Phase: r.Phase, Joined: r.Joined}})
}

// announceReleases tells of the batches of which nobody is known to have told: a replica died, or the
// broker went away, between two steps.
func (s *Service) announceReleases(ctx context.Context, d *deployment) error {
	s.mu.RLock()
	var owed []int
	if log := s.releases[d.record.Deployment][d.record.Revision]; log != nil {
		for n, b := range log.batches {
			if !b.announced {
				owed = append(owed, n)
			}
		}
	}
	s.mu.RUnlock()
	slices.Sort(owed)
	for _, n := range owed {
		key := releaseKey{d.record.Deployment, d.record.Revision, waveAll, n}
		r, revision, err := load[releaseRecord](ctx, s.deploymentStore, key.String())
		if err != nil {
			return err
		}
		if revision == 0 || r.Announced {
			continue
		}
		if err := s.announceRelease(ctx, key, r, d.record.Trace); err != nil {
			return err
		}
	}
	return nil
}

// forgetReleases drops the batches of revisions that were replaced, and of deployments that were removed.
func (s *Service) forgetReleases(ctx context.Context) error {
	type old struct {
		name     string
		revision uint64
	}
	var olds []old
	s.mu.RLock()
	rolling := map[string]bool{} // what is being taken back: only who got it is told so
	for _, d := range s.deployments {
		if rolls := d.order.Rolls; rolls != nil && live(d.life(s.now())) {
			rolling[rolloutKey(rolls.Deployment, rolls.Revision)] = true
		}
	}
	for name, byRevision := range s.releases {
		for revision := range byRevision {
			d, there := s.deployments[name]
			removed, gone := s.removed[name]
			if (there && revision < d.record.Revision || gone && revision <= removed) && !rolling[rolloutKey(name, revision)] {
				olds = append(olds, old{name, revision})
			}
		}
	}
	s.mu.RUnlock()
	var failures []error
	for _, o := range olds {
		// Purged, not deleted: markers of deleted keys would stay for ever.
		stream, err := s.bus.JetStream().Stream(ctx, "KV_"+events.BucketDeployments)
		if err == nil {
			err = stream.Purge(ctx, jetstream.WithPurgeSubject(fmt.Sprintf("$KV.%s.%s.%s.%d.>", events.BucketDeployments, kindRelease, o.name, o.revision)))
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("forget batches of deployment %s revision %d: %w", o.name, o.revision, err))
			continue
		}
		s.mu.Lock()
		delete(s.releases[o.name], o.revision)
		if len(s.releases[o.name]) == 0 {
			delete(s.releases, o.name)
		}
		s.mu.Unlock()
	}
	return errors.Join(failures...)
}

// names of everything that reconciling looks at.
func (s *Service) deploymentNames() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.deployments))
}
