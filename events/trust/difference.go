package trust

import (
	"fmt"

	"chandler/events/sign"
)

// Changes are what differs between two bundles. Keys are the same if their bytes are.
type Changes struct {
	Keys          KeyChanges   `json:"keys,omitzero"`
	Publishers    KeyChanges   `json:"publishers,omitzero"`
	Roots         KeyChanges   `json:"roots,omitzero"`
	Revoked       []RevokedKey `json:"revoked,omitempty"`       // revoked in the new one only
	Restored      []RevokedKey `json:"restored,omitempty"`      // revoked in the old one only
	Threshold     Step         `json:"threshold,omitzero"`      // of orders
	RootThreshold Step         `json:"root_threshold,omitzero"` // of bundles
	Pinned        bool         `json:"pinned,omitempty"`        // references must be pinned now, and had not to be
	Unpinned      bool         `json:"unpinned,omitempty"`      // the other way round
}

// KeyChanges are what differs between two lists of keys. Renamed ones have their new names.
type KeyChanges struct {
	Added   []sign.PublicKey `json:"added,omitempty"`
	Removed []sign.PublicKey `json:"removed,omitempty"`
	Renamed []sign.PublicKey `json:"renamed,omitempty"`
}

// Step is a changed number; both are zero where it did not change.
type Step struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// Difference says what an agent that goes from old to next will do differently.
func Difference(old, next Bundle) Changes {
	c := Changes{
		Keys: compare(old.Keys, next.Keys), Publishers: compare(old.Publishers, next.Publishers), Roots: compare(old.Roots.Keys, next.Roots.Keys),
		Revoked: without(next.Revoked, old.Revoked), Restored: without(old.Revoked, next.Revoked),
		Pinned: next.PinnedReferences && !old.PinnedReferences, Unpinned: old.PinnedReferences && !next.PinnedReferences,
	}
	if old.Threshold != next.Threshold {
		c.Threshold = Step{old.Threshold, next.Threshold}
	}
	if old.Roots.Threshold != next.Roots.Threshold {
		c.RootThreshold = Step{old.Roots.Threshold, next.Roots.Threshold}
	}
	return c
}

// None says whether nothing differs.
func (c Changes) None() bool { return len(c.Lines()) == 0 }

// RootsChanged says whether the new roots must sign besides the old ones.
func (c Changes) RootsChanged() bool {
	return len(c.Roots.Added) > 0 || len(c.Roots.Removed) > 0 || c.RootThreshold != Step{}
}

// Lines says the changes for people, one a line.
func (c Changes) Lines() []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, l := range []struct {
		what string
		KeyChanges
	}{{"deployer", c.Keys}, {"publisher", c.Publishers}, {"root", c.Roots}} {
		for _, k := range l.Added {
			say("add %s %s", l.what, k)
		}
		for _, k := range l.Removed {
			say("remove %s %s", l.what, k)
		}
		for _, k := range l.Renamed {
			say("rename %s %s", l.what, k)
		}
	}
	for _, k := range c.Revoked {
		say("revoke %s", k)
	}
	for _, k := range c.Restored {
		say("revoke %s no longer", k)
	}
	if c.Threshold != (Step{}) {
		say("an order needs %d signatures instead of %d", c.Threshold.To, c.Threshold.From)
	}
	if c.RootThreshold != (Step{}) {
		say("a trust bundle needs %d signatures of roots instead of %d", c.RootThreshold.To, c.RootThreshold.From)
	}
	if c.Pinned {
		say("programs refer to nothing outside without saying its SHA-256")
	}
	if c.Unpinned {
		say("programs may refer to what is outside without saying its SHA-256")
	}
	return lines
}

func compare(old, next []sign.PublicKey) KeyChanges {
	var c KeyChanges
	before, after := byID(old), byID(next)
	for _, k := range next {
		was, ok := before[k.ID()]
		switch {
		case !ok:
			c.Added = append(c.Added, k)
		case was.Name != k.Name:
			c.Renamed = append(c.Renamed, k)
		}
	}
	for _, k := range old {
		if _, ok := after[k.ID()]; !ok {
			c.Removed = append(c.Removed, k)
		}
	}
	return c
}

func byID(keys []sign.PublicKey) map[string]sign.PublicKey {
	m := make(map[string]sign.PublicKey, len(keys))
	for _, k := range keys {
		m[k.ID()] = k
	}
	return m
}

// without gives those of list that are not in minus.
func without(list, minus []RevokedKey) []RevokedKey {
	there := make(map[string]bool, len(minus))
	for _, k := range minus {
		there[k.ID()] = true
	}
	var rest []RevokedKey
	for _, k := range list {
		if !there[k.ID()] {
			rest = append(rest, k)
		}
	}
	return rest
}
