// Package closure works out what has to run on a machine before a program does: the programs that it and they ask to
// run first, and the removal of what their packages supersede. A signed order holds the result, so that whoever signs
// sees all that will run; a package whose programs have none is refused when it is published.
//
// It is pure: the packages come from the caller. Every error shows the chain of programs that led to it.
package closure

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/order"
)

// Steps are the programs that run before a program of m, in running order, each once. What a program asks to run first
// comes before it, and then, right before it, the removal of what its package supersedes; that only where it is one
// that installs, and neither undoes nor repairs another.
//
// find gives a published package and the digest of its manifest; it is asked for m's own too, where a step needs it.
func Steps(m events.Manifest, program string, find func(pkg, version string) (manifest events.Manifest, digest string, ok bool)) ([]order.Step, error) {
	p, ok := m.Programs[program]
	if !ok {
		return nil, fmt.Errorf("package %s %s has no program %s", m.Package, m.Version, program)
	}
	w := walk{find: find, reached: map[manifest.Ref]*node{}}
	root := &node{ref: manifest.Ref{Package: m.Package, Version: m.Version, Program: program}, manifest: m, program: p, needed: true}
	root.chain = root.ref.String()
	w.path = append(w.path, root)
	if err := w.before(root); err != nil {
		return nil, err
	}
	w.done = append(w.done, root)
	if err := errors.Join(w.conflict(), w.sessions(), w.systems()); err != nil {
		return nil, err
	}
	var steps []order.Step
	for _, n := range w.done[:len(w.done)-1] {
		steps = append(steps, n.step())
	}
	return steps, nil
}

// Check is [Steps] for every program of a package that is not published yet. It refuses also what [Steps] cannot see: two
// packages that supersede each other. others are those that are published, as far as they have to do with m's package.
func Check(m events.Manifest, find func(pkg, version string) (manifest events.Manifest, digest string, ok bool), others []events.Manifest) error {
	var errs []error
	for _, o := range others {
		if manifest.Supersedes(m, o.Package, o.Version) && manifest.Supersedes(o, m.Package, m.Version) {
			errs = append(errs, fmt.Errorf("%s@%s and %s@%s supersede each other: where one is, the other would never run", m.Package, m.Version, o.Package, o.Version))
		}
	}
	own := func(name, version string) (events.Manifest, string, bool) {
		if name == m.Package && version == m.Version {
			return m, "", true
		}
		return find(name, version)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Programs)) {
		if _, err := Steps(m, name, own); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Needs are the programs that a package's own ask for by name, of any package, sorted and each once.
func Needs(m events.Manifest) (refs []manifest.Ref) {
	add := func(text string) {
		if ref, err := manifest.ParseRef(text, m); err == nil {
			refs = append(refs, ref)
		}
	}
	for _, p := range m.Programs {
		for _, text := range p.RunFirst {
			add(text)
		}
	}
	for _, s := range m.Supersedes {
		if s.Uninstall != "" {
			add(s.Uninstall)
		}
	}
	slices.SortFunc(refs, func(a, b manifest.Ref) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(refs)
}

// node is a program that runs.
type node struct {
	ref      manifest.Ref
	manifest events.Manifest
	digest   string
	program  events.Program
	why      string
	always   bool
	needed   bool   // something depends on it: it is not there for a removal alone
	chain    string // of programs that led to it first, itself included
}

func (n *node) step() order.Step {
	return order.Step{Why: n.why, Package: n.ref.Package, Version: n.ref.Version, Manifest: n.digest, Program: n.ref.Program, Run: n.program.Run,
		InstallationAccount: n.program.InstallationAccount, Resources: manifest.Resources(n.manifest, n.ref.Program), Always: n.always}
}

type walk struct {
	find    func(pkg, version string) (events.Manifest, string, bool)
	path    []*node // from the program that is deployed to the one that is looked at
	done    []*node // in running order
	reached map[manifest.Ref]*node
}

// before works out what runs before the last program of the path.
func (w *walk) before(n *node) error {
	for _, text := range n.program.RunFirst {
		if err := w.reach(n, text, order.StepFirst); err != nil {
			return err
		}
	}
	if n.program.Undoes != "" || n.program.Repairs != "" {
		return nil
	}
	for _, s := range n.manifest.Supersedes {
		if s.Uninstall == "" {
			continue
		}
		if err := w.reach(n, s.Uninstall, order.StepUninstall); err != nil {
			return err
		}
	}
	return nil
}

// reach adds a program that from needs, and what comes before it.
func (w *walk) reach(from *node, text, why string) error {
	ref, err := manifest.ParseRef(text, from.manifest)
	if err != nil {
		return fmt.Errorf("%s: %w", w.chain(), err)
	}
	if slices.ContainsFunc(w.path, func(n *node) bool { return n.ref == ref }) {
		return fmt.Errorf("%s → %s: it would have to run before itself", w.chain(), ref)
	}
	needed := why == order.StepFirst && from.needed
	always := why == order.StepFirst && from.program.AlwaysRunFirst
	n, there := w.reached[ref]
	switch {
	case !there:
		if n, err = w.look(ref, why); err != nil {
			return err
		}
		w.reached[ref] = n
	case n.why != why:
		return fmt.Errorf("%s → %s is to be removed, and is needed as well: %s", w.chain(), ref, n.chain)
	}
	n.always = n.always || always
	if there && (n.needed || !needed) {
		return nil
	}
	n.needed = n.needed || needed // and then all below, also where that was reached already
	w.path = append(w.path, n)
	defer func() { w.path = w.path[:len(w.path)-1] }()
	if !there {
		n.chain = w.chain()
	}
	if err := w.before(n); err != nil || there {
		return err
	}
	w.done = append(w.done, n)
	if len(w.done) > order.MaxSteps {
		return fmt.Errorf("%s: more than %d programs would run before %s", n.chain, order.MaxSteps, w.path[0].ref)
	}
	return nil
}

// look finds a program and says why it cannot be a step.
func (w *walk) look(ref manifest.Ref, why string) (*node, error) {
	m, digest, ok := w.find(ref.Package, ref.Version)
	if !ok {
		return nil, fmt.Errorf("%s → %s@%s (not published)", w.chain(), ref.Package, ref.Version)
	}
	p, ok := m.Programs[ref.Program]
	switch {
	case !ok:
		return nil, fmt.Errorf("%s → %s (%s@%s has no such program, it has %s)", w.chain(), ref, ref.Package, ref.Version, strings.Join(slices.Sorted(maps.Keys(m.Programs)), ", "))
	case p.EveryUser:
		return nil, fmt.Errorf("%s → %s runs once for every user: it cannot run before another", w.chain(), ref)
	case why == order.StepUninstall && p.Undoes == "":
		return nil, fmt.Errorf("%s → %s takes back no program (undoes): it cannot be what removes it", w.chain(), ref)
	case len(w.path) > order.MaxSteps:
		return nil, fmt.Errorf("%s → %s: more than %d programs would run before %s", w.chain(), ref, order.MaxSteps, w.path[0].ref)
	}
	return &node{ref: ref, manifest: m, digest: digest, program: p, why: why}, nil
}

// chain is the path in words.
func (w *walk) chain() string {
	words := make([]string, len(w.path))
	for i, n := range w.path {
		words[i] = n.ref.String()
	}
	return strings.Join(words, " → ")
}

// conflict finds a package that takes the place of one which something depends on.
func (w *walk) conflict() error {
	for _, by := range w.done {
		for _, n := range w.done {
			if !by.needed || !n.needed || by.program.Undoes != "" || !manifest.Supersedes(by.manifest, n.ref.Package, n.ref.Version) {
				continue
			}
			root := w.done[len(w.done)-1]
			if n == root {
				return fmt.Errorf("%s: %s@%s supersedes %s, which would not run any more then", by.chain, by.ref.Package, by.ref.Version, n.ref)
			}
			text := fmt.Sprintf("%s: %s@%s supersedes %s@%s, which is needed here", n.chain, by.ref.Package, by.ref.Version, n.ref.Package, n.ref.Version)
			if n.program.Undoes != "" {
				text += "; to remove it first, name the program under supersedes, as uninstall"
			}
			return errors.New(text)
		}
	}
	return nil
}

// sessions finds two programs of which one needs a user and the other that none is there.
func (w *walk) sessions() error {
	var user, none *node
	for _, n := range w.done {
		switch n.program.LogonNeeded() {
		case events.LogonUser:
			user = n
		case events.LogonNone:
			none = n
		}
	}
	if user == nil || none == nil {
		return nil
	}
	return fmt.Errorf("%s: %s runs only when a user is logged on, %s only when none is: they cannot run one after the other", deeper(user, none), user.ref, none.ref)
}

// systems finds a program that needs another operating system than those before it. A removal does not count: where there is
// nothing to remove it does not run.
func (w *walk) systems() error {
	var common []string
	var narrows *node
	for _, n := range w.done {
		if !n.needed || len(n.program.Platforms) == 0 {
			continue
		}
		var left []string // each once
		for _, p := range n.program.Platforms {
			if !slices.Contains(left, p.OS) && (narrows == nil || slices.Contains(common, p.OS)) {
				left = append(left, p.OS)
			}
		}
		if len(left) == 0 {
			return fmt.Errorf("%s: %s and %s run on no machine both: their platforms have no operating system in common", deeper(narrows, n), narrows.ref, n.ref)
		}
		if narrows == nil || len(left) < len(common) {
			narrows = n
		}
		common = left
	}
	return nil
}

// deeper is the chain of that program which is farther from the one that is deployed.
func deeper(a, b *node) string {
	if len(b.chain) > len(a.chain) {
		return b.chain
	}
	return a.chain
}
