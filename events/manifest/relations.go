package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/versions"
)

// MaxRunFirst bounds the programs that one asks to run first, and MaxSupersedes what a package supersedes.
const (
	MaxRunFirst   = 32
	MaxSupersedes = 64
)

// relations checks what a program has to do with other ones.
func (c *checker) relations(where, name string, p events.Program, m events.Manifest) {
	for _, r := range []struct{ key, verb, other string }{{"undoes", "undoes", p.Undoes}, {"repairs", "repairs", p.Repairs}} {
		if r.other == "" {
			continue
		}
		other, ok := m.Programs[r.other]
		switch {
		case !ok || r.other == name:
			c.add(where+"."+r.key, "program %s %s %q, which is no other program of this package", name, r.verb, r.other)
		case other.Undoes != "" || other.Repairs != "":
			c.add(where+"."+r.key, "program %s %s %s, which undoes or repairs one itself: name that one", name, r.verb, r.other)
		}
	}
	if p.Undoes != "" && p.Repairs != "" {
		c.add(where+".repairs", "program %s both undoes and repairs: it does one of them", name)
	}
	c.runFirst(where, name, p, m)
}

func (c *checker) runFirst(where, name string, p events.Program, m events.Manifest) {
	switch {
	case p.AlwaysRunFirst && len(p.RunFirst) == 0:
		c.add(where+".always-run-first", "program %s: always-run-first goes with run-first, which names what to run", name)
	case len(p.RunFirst) > MaxRunFirst:
		c.add(where+".run-first", "program %s: %d programs to run first, at most %d are allowed", name, len(p.RunFirst), MaxRunFirst)
		return
	}
	var seen []Ref
	for i, text := range p.RunFirst {
		here := fmt.Sprintf("%s.run-first[%d]", where, i)
		ref, err := ParseRef(text, m)
		if err != nil {
			c.add(here, "program %s: run-first %s", name, err)
			continue
		}
		own := ref.Package == m.Package && ref.Version == m.Version
		other, there := m.Programs[ref.Program]
		switch {
		case slices.Contains(seen, ref):
			c.add(here, "program %s: run-first names %s twice", name, text)
		case own && ref.Program == name:
			c.add(here, "program %s: run-first names the program itself", name)
		case own && !there:
			c.add(here, "program %s: run-first %s: this package has no such program", name, text)
		case own && other.EveryUser:
			c.add(here, "program %s: run-first %s: that one runs once for every user, it cannot run before another", name, text)
		case own && contradict(p, other):
			c.add(here, "program %s: run-first %s: one of them runs only when a user is logged on and the other only when none is", name, text)
		case Supersedes(m, ref.Package, ref.Version):
			c.add(here, "program %s: run-first %s: this package supersedes %s %s; to remove that one first, name the program under supersedes, as uninstall", name, text, ref.Package, ref.Version)
		}
		seen = append(seen, ref)
	}
}

// contradict says whether the one needs a user and the other that none is there.
func contradict(a, b events.Program) bool {
	logons := []string{a.LogonNeeded(), b.LogonNeeded()}
	return slices.Contains(logons, events.LogonUser) && slices.Contains(logons, events.LogonNone)
}

// cycles finds programs of the package that would have to run before themselves; each cycle is told once, at the first of
// its programs by name.
func (c *checker) cycles(m events.Manifest) {
	told := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(m.Programs)) {
		if cycle := cycleFrom(m, name); cycle != nil && !slices.ContainsFunc(cycle, func(n string) bool { return told[n] }) {
			c.add("$.programs.'"+name+"'.run-first", "program %s would have to run before itself: %s", name, strings.Join(append(cycle, name), " → "))
			for _, n := range cycle {
				told[n] = true
			}
		}
	}
}

// cycleFrom is a way over run-first from a program to itself, of two programs or more; nil: there is none.
func cycleFrom(m events.Manifest, start string) []string {
	from := map[string]string{} // by which program each was reached
	queue := []string{start}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, text := range m.Programs[at].RunFirst {
			ref, err := ParseRef(text, m)
			if err != nil || ref.Package != m.Package || ref.Version != m.Version {
				continue
			}
			if ref.Program == start && at != start {
				way := []string{at}
				for at != start {
					at = from[at]
					way = append(way, at)
				}
				slices.Reverse(way)
				return way
			}
			if _, seen := from[ref.Program]; !seen && ref.Program != start {
				from[ref.Program] = at
				queue = append(queue, ref.Program)
			}
		}
	}
	return nil
}

func (c *checker) supersedes(m events.Manifest) {
	if len(m.Supersedes) > MaxSupersedes {
		c.add("$.supersedes", "%d packages are superseded, at most %d are allowed", len(m.Supersedes), MaxSupersedes)
		return
	}
	for i, s := range m.Supersedes {
		where := fmt.Sprintf("$.supersedes[%d]", i)
		if s.Package == "" {
			c.add(where, "supersedes: entry %d has no package", i+1)
			continue
		}
		if err := events.ValidPackage(s.Package); err != nil {
			c.add(where+".package", "supersedes: %s", err)
			continue
		}
		if err := versions.Valid(s.Version); err != nil {
			c.add(where+".version", "supersedes %s: %s", s.Package, err)
			continue
		}
		if slices.ContainsFunc(m.Supersedes[:i], func(o events.Supersede) bool { return o.Package == s.Package && o.Version == s.Version }) {
			c.add(where, "supersedes: %s %s is there twice", s.Package, s.Version)
		}
		if s.Package == m.Package {
			c.supersedesOwn(where, s, m)
		}
		c.uninstall(where+".uninstall", s, m)
	}
}

// supersedesOwn wants other versions of the package named so that this one, and later ones, are not among them.
func (c *checker) supersedesOwn(where string, s events.Supersede, m events.Manifest) {
	if s.Version == "" {
		c.add(where, "supersedes %s, which is this package: say which versions, for instance version: \"< %s\"; all others would be later ones too", s.Package, m.Version)
	} else if ok, err := versions.Satisfies(m.Version, s.Version); ok && err == nil {
		c.add(where+".version", "supersedes %s %s, which %s is itself: write for instance \"< %s\"", s.Package, s.Version, m.Version, m.Version)
	}
}

func (c *checker) uninstall(where string, s events.Supersede, m events.Manifest) {
	if s.Uninstall == "" {
		return
	}
	ref, err := ParseRef(s.Uninstall, m)
	switch {
	case err != nil || !strings.Contains(s.Uninstall, "@"):
		c.add(where, "supersedes %s: uninstall %.200q: write package@version/program, for instance %s@1.0/remove", s.Package, s.Uninstall, s.Package)
	case ref.Package != s.Package:
		c.add(where, "supersedes %s: uninstall %s is a program of another package", s.Package, ref)
	default:
		if ok, err := versions.Satisfies(ref.Version, s.Version); !ok && err == nil {
			c.add(where, "supersedes %s %s: uninstall %s is of another version", s.Package, s.Version, ref)
		}
	}
}
