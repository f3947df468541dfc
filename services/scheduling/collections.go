package scheduling

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/target"
)

// maxText bounds what administrators write beside things, in bytes.
const maxText = 1 << 10

// checkLists sorts the lists and refuses what is no agent id, or too much.
func checkLists(include, exclude []string) (in, out []string, err error) {
	in, out = slices.Compact(slices.Sorted(slices.Values(include))), slices.Compact(slices.Sorted(slices.Values(exclude)))
	if n := len(in) + len(out); n > events.MaxListed {
		return nil, nil, fmt.Errorf("%d agents are included or excluded by id, at most %d can be, since an agent gets the lists in one message: describe them by an expression, for instance over tags", n, events.MaxListed)
	}
	for _, id := range slices.Concat(in, out) {
		if err := events.ValidAgent(id); err != nil {
			return nil, nil, err
		}
	}
	return in, out, nil
}

// checkCollection completes a collection that an administrator sent and compiles its target.
func checkCollection(c events.Collection) (events.Collection, target.Target, error) {
	in, out, err := checkLists(c.Include, c.Exclude)
	if err != nil {
		return c, target.Target{}, err
	}
	c.Include, c.Exclude = in, out
	c.Expression = strings.TrimSpace(c.Expression)
	if len(c.Comment) > maxText {
		return c, target.Target{}, fmt.Errorf("the comment is longer than %d bytes", maxText)
	}
	if len(c.Windows) > order.MaxWindows {
		return c, target.Target{}, fmt.Errorf("%d maintenance windows, at most %d can be", len(c.Windows), order.MaxWindows)
	}
	for _, w := range c.Windows {
		if err := w.Validate(); err != nil {
			return c, target.Target{}, err
		}
	}
	t, err := target.New(c.Expression, c.Include, c.Exclude)
	return c, t, err
}

func (s *Service) collectionSet(ctx context.Context, caller string, req events.Collection) (events.CollectionView, error) {
	if err := events.ValidToken(req.Name); err != nil {
		return events.CollectionView{}, bus.BadRequest(fmt.Errorf("collection: %w", err))
	}
	c, t, err := checkCollection(req)
	if err != nil {
		return events.CollectionView{}, bus.BadRequest(fmt.Errorf("collection %s: %w", req.Name, err))
	}
	c.By, c.Changed = caller, s.now().UTC()
	record, err := changeNoted(ctx, s.collectionStore, c.Name, func(old collectionRecord, found bool) (collectionRecord, error) {
		if found && !old.Removed && sameDefinition(old.Collection, c) && sameWindows(old.Windows, c.Windows) && old.Comment == c.Comment {
			return old, errKeep
		}
		return collectionRecord{Collection: c, Outbox: old.Outbox.with(events.CollectionChanged.Declaration, caller, "", c.Changed)}, nil
	})
	if err != nil {
		return events.CollectionView{}, err
	}
	return s.collectionView(record.Collection, t), nil
}

// sameDefinition says whether two collections mean the same agents.
func sameDefinition(a, b events.Collection) bool {
	return a.Expression == b.Expression && slices.Equal(a.Include, b.Include) && slices.Equal(a.Exclude, b.Exclude)
}

// sameWindows says whether two lists of maintenance windows are the same, as they are kept.
func sameWindows(a, b []calendar.Window) bool {
	one, errOne := encode(a)
	other, errOther := encode(b)
	return errOne == nil && errOther == nil && (string(one) == string(other) || len(a) == 0 && len(b) == 0)
}

// windowsAsSigned says whether an order holds the collection's maintenance windows as they are, with its definition. One
// that ignores windows holds none.
func windowsAsSigned(o order.Order, c events.Collection) bool {
	if o.IgnoreWindows {
		return true
	}
	i := slices.IndexFunc(o.Windows, func(w order.Windows) bool { return w.Collection == c.Name })
	if i < 0 {
		return len(c.Windows) == 0
	}
	w := o.Windows[i]
	return sameWindows(w.Windows, c.Windows) && sameDefinition(events.Collection{Expression: w.Expression, Include: w.Include, Exclude: w.Exclude}, c)
}

func (s *Service) collectionPreview(_ context.Context, _ string, req events.Collection) (events.CollectionView, error) {
	c, t, err := checkCollection(req)
	if err != nil {
		return events.CollectionView{}, bus.BadRequest(err)
	}
	return s.collectionView(c, t), nil
}

func (s *Service) collectionList(context.Context, string, events.Nothing) (events.CollectionViews, error) {
	s.mu.RLock()
	var all []events.Collection
	for _, r := range s.collections {
		if !r.Removed {
			all = append(all, r.Collection)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b events.Collection) int { return strings.Compare(a.Name, b.Name) })
	views := events.CollectionViews{Collections: []events.CollectionView{}}
	for _, c := range all {
		views.Collections = append(views.Collections, s.compiledView(c))
	}
	return views, nil
}

func (s *Service) collectionShow(ctx context.Context, _ string, req events.Named) (events.CollectionView, error) {
	c, err := s.collection(ctx, req.Name)
	if err != nil {
		return events.CollectionView{}, err
	}
	return s.compiledView(c), nil
}

// collection reads a collection from its bucket: what an administrator set a moment ago, by whichever
// replica, is there.
func (s *Service) collection(ctx context.Context, name string) (events.Collection, error) {
	if err := events.ValidToken(name); err != nil {
		return events.Collection{}, bus.BadRequest(fmt.Errorf("collection: %w", err))
	}
	record, revision, err := load[collectionRecord](ctx, s.collectionStore, name)
	if err != nil {
		return events.Collection{}, err
	}
	if revision == 0 || record.Removed {
		return events.Collection{}, bus.NotFound(fmt.Errorf("there is no collection %q: `chandler collection ls` lists them", name))
	}
	return record.Collection, nil
}

func (s *Service) collectionRemove(ctx context.Context, caller string, req events.Named) (events.Nothing, error) {
	if _, err := s.collection(ctx, req.Name); err != nil {
		return events.Nothing{}, err
	}
	if named := s.liveDeployments(func(d *deployment) bool { return d.record.Collection == req.Name || d.awaits(s.rollouts, req.Name) }); len(named) > 0 {
		return events.Nothing{}, bus.Conflict(fmt.Errorf("collection %s is named by live deployments: %s: stop or remove them first", req.Name, strings.Join(named, ", ")))
	}
	_, err := changeNoted(ctx, s.collectionStore, req.Name, func(old collectionRecord, found bool) (collectionRecord, error) {
		if !found || old.Removed {
			return old, errKeep
		}
		old.Removed = true
		old.Outbox = old.Outbox.with(events.CollectionRemoved.Declaration, caller, req.Why, s.now().UTC())
		return old, nil
	})
	if err != nil {
		return events.Nothing{}, err
	}
	return events.Nothing{}, nil
}

// forgetCollection purges a collection whose removal was told, unless it was made again meanwhile.
func (s *Service) forgetCollection(ctx context.Context, name string) error {
	record, revision, err := load[collectionRecord](ctx, s.collectionStore, name)
	if err != nil || revision > 0 && (!record.Removed || len(record.Outbox.Notes) > 0) {
		return err
	}
	if revision > 0 {
		if err := s.purge(ctx, events.BucketCollections, name, revision); err != nil {
			return fmt.Errorf("forget collection %s: %w", name, err)
		}
	}
	return s.collectionStore.missed(ctx, name)
}

// compiledView is the view of a stored collection; one that no longer compiles says so as its fault.
func (s *Service) compiledView(c events.Collection) events.CollectionView {
	t, err := target.New(c.Expression, c.Include, c.Exclude)
	if err != nil {
		return events.CollectionView{Collection: c, Members: []string{}, Faults: len(s.fleet.all()), Fault: err.Error()}
	}
	return s.collectionView(c, t)
}

func (s *Service) collectionView(c events.Collection, t target.Target) events.CollectionView {
	members, faults := s.matching(t)
	view := events.CollectionView{Collection: c, Members: members, Faults: faults.count}
	if faults.first != nil {
		view.Fault = faults.first.Error()
	}
	if c.Name != "" {
		view.OutdatedWindows = s.outdatedWindows(c, members)
		view.Outdated = s.liveDeployments(func(d *deployment) bool { return d.record.Collection == c.Name && !signedAs(d.order, c) })
	}
	return view
}

// outdatedWindows names the live deployments that hold other maintenance windows of a collection, where that matters: to
// somebody in their target who is in the collection, as it is or as it was when they were signed.
func (s *Service) outdatedWindows(c events.Collection, members []string) []string {
	var now idSet
	for _, place := range s.fleet.places(members) {
		now = now.set(place, true)
	}
	return s.liveDeployments(func(d *deployment) bool {
		if windowsAsSigned(d.order, c) {
			return false
		}
		return !d.members.evaluated || d.members.set.and(now).count() > 0 || s.windowsHold(d, c)
	})
}

// windowsHold says whether the windows of a collection that a deployment was signed with hold anybody in its target, where
// the collection is another one since. The caller holds the lock.
func (s *Service) windowsHold(d *deployment, c events.Collection) bool {
	i := slices.IndexFunc(d.order.Windows, func(w order.Windows) bool { return w.Collection == c.Name })
	if i < 0 {
		return false
	}
	w := d.order.Windows[i]
	if sameDefinition(events.Collection{Expression: w.Expression, Include: w.Include, Exclude: w.Exclude}, c) {
		return false
	}
	t, err := target.New(w.Expression, w.Include, w.Exclude)
	if err != nil {
		return true // agents hold what they cannot find out to be held
	}
	for _, a := range s.fleet.at(d.members.set.firstNotIn(nil, d.members.set.count())) {
		if in, err := t.Matches(a.facts); in || err != nil {
			return true
		}
	}
	return false
}

// matching lists the ids of the members of a target now, sorted.
func (s *Service) matching(t target.Target) ([]string, faults) {
	members := []string{}
	var faults faults
	for _, a := range s.fleet.all() {
		ok, err := t.Matches(a.facts)
		faults.note(err)
		if ok {
			members = append(members, a.facts.ID)
		}
	}
	return members, faults
}

// signedAs says whether the order's signed target is the collection as it is.
func signedAs(o order.Order, c events.Collection) bool {
	return o.Expression == c.Expression && o.IncludeDigest == order.ListDigest(c.Include) && o.ExcludeDigest == order.ListDigest(c.Exclude)
}

// applyCollection takes over what the bucket says.
func (s *Service) applyCollection(name string, value []byte) {
	var r collectionRecord
	if value != nil {
		if err := json.Unmarshal(value, &r); err != nil {
			s.log.Error("the record of a collection cannot be read", "collection", name, "error", err)
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if value == nil {
		delete(s.collections, name)
		return
	}
	s.collections[name] = r
	if len(r.Outbox.Notes) > 0 {
		s.work.collection(name)
	}
}
