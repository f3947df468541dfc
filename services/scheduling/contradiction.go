package scheduling

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// contradict says whether one of two programs takes back what the other installs or repairs. Versions do not matter: on one
// machine both cannot be meant.
func (s *Service) contradict(a, b order.Order) bool {
	if a.Package != b.Package || rollsBack(a, b) || rollsBack(b, a) {
		return false
	}
	return s.undoes(a, b) || s.undoes(b, a)
}

func (s *Service) undoes(a, b order.Order) bool {
	undone := s.packages[a.Manifest].Undoes[a.Program]
	return undone != "" && (b.Program == undone || s.packages[b.Manifest].Repairs[b.Program] == undone)
}

func rollsBack(a, b order.Order) bool {
	return a.Rolls != nil && a.Rolls.Deployment == b.Deployment && a.Rolls.Revision == b.Revision
}

// programIndex holds the names of one package's deployments by their program. Ten thousand of one program contradict
// nothing, and cost nothing.
type programIndex map[string]map[string]bool

// index adds a deployment, or takes it out. The caller holds the lock.
func (s *Service) index(d *deployment, in bool) {
	of, program, name := d.order.Package, d.order.Program, d.record.Deployment
	if !in {
		delete(s.byProgram[of][program], name)
		if len(s.byProgram[of][program]) == 0 {
			delete(s.byProgram[of], program)
		}
		if len(s.byProgram[of]) == 0 {
			delete(s.byProgram, of)
		}
		return
	}
	if s.byProgram[of] == nil {
		s.byProgram[of] = programIndex{}
	}
	if s.byProgram[of][program] == nil {
		s.byProgram[of][program] = map[string]bool{}
	}
	s.byProgram[of][program][name] = true
}

// others gives the deployments of the same package whose program is another one. The caller holds the lock.
func (s *Service) others(d *deployment) iter.Seq[*deployment] {
	return func(yield func(*deployment) bool) {
		for program, names := range s.byProgram[d.order.Package] {
			if program == d.order.Program {
				continue
			}
			for name := range names {
				if name != d.record.Deployment && !yield(s.deployments[name]) {
					return
				}
			}
		}
	}
}

// contradicting lists the live deployments that contradict one, by name. The caller holds the lock.
func (s *Service) contradicting(d *deployment) (all []*deployment) {
	now := s.now()
	for other := range s.others(d) {
		if live(other.life(now)) && s.contradict(d.order, other.order) {
			all = append(all, other)
		}
	}
	slices.SortFunc(all, func(a, b *deployment) int { return cmp.Compare(a.record.Deployment, b.record.Deployment) })
	return all
}

// issuedBefore orders deployments that contradict each other: the later one counts.
func issuedBefore(a, b *deployment) bool {
	if c := a.order.Issued.Compare(b.order.Issued); c != 0 {
		return c < 0
	}
	return a.record.Deployment < b.record.Deployment
}

// barred are agents that a deployment must not be handed over to, since one that contradicts it and was issued later was.
// The caller holds the lock.
func (s *Service) barred(d *deployment) (held idSet) {
	for _, other := range s.contradicting(d) {
		if log := s.releases[other.record.Deployment][other.record.Revision]; log != nil && issuedBefore(d, other) {
			held = held.or(log.released)
		}
	}
	return held
}

// checkContradictions refuses a deployment to machines that another one means the contrary for. One that takes another back
// is meant to.
func (s *Service) checkContradictions(ctx context.Context, d *deployment) error {
	if d.order.Rolls != nil {
		return nil
	}
	s.learnPrograms(ctx, d)
	s.mu.RLock()
	others := slices.DeleteFunc(s.contradicting(d), func(o *deployment) bool { return o.order.Rolls != nil })
	s.mu.RUnlock()
	var said []string
	for _, other := range others {
		if n := s.inBoth(d, other); n > 0 {
			said = append(said, fmt.Sprintf("%s (%s of %s %s, %d machines)", other.record.Deployment, other.record.Program, other.record.Package, other.record.Version, n))
		}
	}
	if len(said) == 0 {
		return nil
	}
	return bus.Conflict(fmt.Errorf("%s of %s %s contradicts what is live for the same machines: %s: stop that first, or take the machines out of one of them",
		d.record.Program, d.record.Package, d.record.Version, strings.Join(said, ", ")))
}

// inBoth counts the machines in both targets.
func (s *Service) inBoth(a, b *deployment) (n int) {
	for _, agent := range s.fleet.all() {
		inA, errA := a.target.Matches(agent.facts)
		if !inA || errA != nil {
			continue
		}
		if inB, errB := b.target.Matches(agent.facts); inB && errB == nil {
			n++
		}
	}
	return n
}

// learnPrograms asks content, once for each package, what the programs of an order's package take back and repair; what is
// not known contradicts nothing. It asks only where another program of the package is deployed.
func (s *Service) learnPrograms(ctx context.Context, d *deployment) {
	missing := map[string]bool{}
	s.mu.RLock()
	for other := range s.others(d) {
		missing[other.order.Manifest], missing[d.order.Manifest] = true, true
	}
	s.knownPrograms(missing)
	s.mu.RUnlock()
	s.recallPrograms(ctx, missing)
}

// learnAllPrograms asks for those of all packages of which several programs are deployed, where content did not answer before.
func (s *Service) learnAllPrograms(ctx context.Context) {
	missing := map[string]bool{}
	s.mu.RLock()
	for _, programs := range s.byProgram {
		if len(programs) < 2 {
			continue
		}
		for _, names := range programs {
			for name := range names {
				missing[s.deployments[name].order.Manifest] = true
			}
		}
	}
	s.knownPrograms(missing)
	s.mu.RUnlock()
	s.recallPrograms(ctx, missing)
}

// knownPrograms takes out the packages of which is known what there is to know. The caller holds the lock.
func (s *Service) knownPrograms(missing map[string]bool) {
	for digest := range missing {
		if p, ok := s.packages[digest]; !ok || p.Known {
			delete(missing, digest)
		}
	}
}

func (s *Service) recallPrograms(ctx context.Context, digests map[string]bool) {
	if len(digests) == 0 {
		return
	}
	if err := s.keepPrograms(ctx, digests); err != nil {
		s.log.Debug("what programs take back is not known, since content does not say", "packages", len(digests), "error", err)
	}
}

// keepPrograms keeps of packages what their programs take back and repair.
func (s *Service) keepPrograms(ctx context.Context, digests map[string]bool) error {
	asking, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	all, err := bus.Request(asking, s.bus, serviceName, events.ContentList, events.Nothing{})
	if err != nil {
		return err
	}
	for _, p := range all.Packages {
		if !digests[p.Digest] {
			continue
		}
		_, err := change(ctx, s.deploymentStore, kindPackage+"."+p.Digest, func(old packageRecord, found bool) (packageRecord, error) {
			if !found || old.Known {
				return old, errKeep
			}
			return old.withPrograms(p.Manifest), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// withPrograms adds what a manifest says of its programs.
func (r packageRecord) withPrograms(m events.Manifest) packageRecord {
	r.Known, r.Undoes, r.Repairs = true, map[string]string{}, map[string]string{}
	for name, p := range m.Programs {
		if p.Undoes != "" {
			r.Undoes[name] = p.Undoes
		}
		if p.Repairs != "" {
			r.Repairs[name] = p.Repairs
		}
	}
	return r
}
