package closure

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/order"
)

// shelf is what is published, by package@version.
type shelf map[string]events.Manifest

func (s shelf) find(name, version string) (events.Manifest, string, bool) {
	m, ok := s[name+"@"+version]
	return m, digest(name, version), ok
}

func digest(name, version string) string { return events.DigestOf([]byte(name + "@" + version)) }

// add publishes a package whose install asks to run others first; further changes of it follow.
func (s shelf) add(at string, first []string, changes ...func(*events.Manifest)) events.Manifest {
	name, version, _ := strings.Cut(at, "@")
	run := events.Program{Command: events.Command{Line: "true"}, Run: events.RunAdministrative}
	install, remove := run, run
	install.RunFirst, remove.Undoes = first, "install"
	m := events.Manifest{API: manifest.API, Package: name, Version: version, Programs: map[string]events.Program{"install": install, "remove": remove}}
	for _, change := range changes {
		change(&m)
	}
	s[at] = m
	return m
}

func program(name string, f func(*events.Program)) func(*events.Manifest) {
	return func(m *events.Manifest) {
		p, ok := m.Programs[name]
		if !ok {
			p = events.Program{Command: events.Command{Line: "true"}, Run: events.RunAdministrative}
		}
		f(&p)
		m.Programs[name] = p
	}
}

func always(p *events.Program) { p.AlwaysRunFirst = true }

func logon(word string) func(*events.Program) {
	return func(p *events.Program) { p.Logon = word }
}

func supersedes(name, version, uninstall string) func(*events.Manifest) {
	return func(m *events.Manifest) {
		m.Supersedes = append(m.Supersedes, events.Supersede{Package: name, Version: version, Uninstall: uninstall})
	}
}

func platforms(systems ...string) func(*events.Program) {
	return func(p *events.Program) {
		for _, os := range systems {
			p.Platforms = append(p.Platforms, events.Platform{OS: os}, events.Platform{OS: os, Arch: "arm64"})
		}
	}
}

// said is what a step is in one word: a - before what is removed, a ! behind what always runs.
func said(steps []order.Step) string {
	var words []string
	for _, s := range steps {
		word := s.Package + "@" + s.Version + "/" + s.Program
		if s.Why == order.StepUninstall {
			word = "-" + word
		}
		if s.Always {
			word += "!"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestWhatRunsBeforeAProgram(t *testing.T) {
	for _, c := range []struct {
		name    string
		publish func(shelf)
		program string // of a@1
		want    string
	}{
		{"nothing", func(s shelf) { s.add("a@1", nil) }, "install", ""},
		{"what it asks for, in its order", func(s shelf) {
			s.add("c@1", nil)
			s.add("b@2", nil)
			s.add("a@1", []string{"c@1/install", "b@2/install"})
		}, "install", "c@1/install b@2/install"},
		{"what that asks for comes before it", func(s shelf) {
			s.add("c@1", nil)
			s.add("b@2", []string{"c@1/install"})
			s.add("a@1", []string{"b@2/install"})
		}, "install", "c@1/install b@2/install"},
		{"what two ask for comes once, before both", func(s shelf) {
			s.add("d@1", nil)
			s.add("c@1", []string{"d@1/install"})
			s.add("b@2", []string{"d@1/install"})
			s.add("a@1", []string{"b@2/install", "c@1/install", "d@1/install"})
		}, "install", "d@1/install b@2/install c@1/install"},
		{"a program of its own package", func(s shelf) {
			s.add("a@1", []string{"prepare"}, program("prepare", func(*events.Program) {}))
		}, "install", "a@1/prepare"},
		{"always is meant by who says it, of what it names", func(s shelf) {
			s.add("d@1", nil)
			s.add("c@1", nil)
			s.add("b@2", []string{"c@1/install"})
			s.add("a@1", []string{"b@2/install", "d@1/install"}, program("install", always))
		}, "install", "c@1/install b@2/install! d@1/install!"},
		{"always is kept where a later one says it", func(s shelf) {
			s.add("c@1", nil)
			s.add("b@2", []string{"c@1/install"}, program("install", always))
			s.add("a@1", []string{"c@1/install", "b@2/install"})
		}, "install", "c@1/install! b@2/install"},
		{"what is superseded is removed right before", func(s shelf) {
			s.add("old@1", nil)
			s.add("b@2", nil)
			s.add("a@1", []string{"b@2/install"}, supersedes("old", "", "old@1/remove"))
		}, "install", "b@2/install -old@1/remove"},
		{"what is superseded and replaced needs no step, and need not be there", func(s shelf) {
			s.add("a@1", nil, supersedes("old", "", ""))
		}, "install", ""},
		{"what runs first removes what it supersedes itself", func(s shelf) {
			s.add("old@1", nil)
			s.add("b@2", nil, supersedes("old", "", "old@1/remove"))
			s.add("a@1", []string{"b@2/install"})
		}, "install", "-old@1/remove b@2/install"},
		{"a removal may need something of its own", func(s shelf) {
			s.add("old@1", nil, program("stop", func(*events.Program) {}), program("remove", func(p *events.Program) { p.RunFirst = []string{"stop"} }))
			s.add("a@1", nil, supersedes("old", "", "old@1/remove"))
		}, "install", "old@1/stop -old@1/remove"},
		{"an older version of the same package is removed", func(s shelf) {
			s.add("a@0.9", nil)
			s.add("a@1", nil, supersedes("a", "< 1", "a@0.9/remove"))
		}, "install", "-a@0.9/remove"},
		{"who undoes removes nothing else", func(s shelf) {
			s.add("old@1", nil)
			s.add("a@1", nil, supersedes("old", "", "old@1/remove"))
		}, "remove", ""},
		{"who repairs removes nothing else", func(s shelf) {
			s.add("old@1", nil)
			s.add("a@1", nil, supersedes("old", "", "old@1/remove"), program("repair", func(p *events.Program) { p.Repairs = "install" }))
		}, "repair", ""},
		{"to undo may need something of what is superseded otherwise", func(s shelf) {
			s.add("b@2", nil)
			s.add("a@1", nil, supersedes("old", "", ""), program("remove", func(p *events.Program) { p.RunFirst = []string{"b@2/install"} }))
		}, "remove", "b@2/install"},
		{"with a user, whether or not, is no contradiction", func(s shelf) {
			s.add("b@2", nil)
			s.add("a@1", []string{"b@2/install"}, program("install", logon("user")))
		}, "install", "b@2/install"},
		{"a system in common is enough, and a removal is for those that it is for", func(s shelf) {
			s.add("old@1", nil, program("remove", platforms("darwin")))
			s.add("c@1", nil)
			s.add("b@2", []string{"c@1/install"}, program("install", platforms("linux", "windows")))
			s.add("a@1", []string{"b@2/install"}, program("install", platforms("windows", "darwin")), supersedes("old", "", "old@1/remove"))
		}, "install", "c@1/install b@2/install -old@1/remove"},
		{"as many as there may be", func(s shelf) { s.long(order.MaxSteps) }, "install",
			strings.Join(slices.Collect(func(yield func(string) bool) {
				for i := order.MaxSteps; i > 0 && yield(fmt.Sprintf("s%d@1/install", i)); i-- {
				}
			}), " ")},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := shelf{}
			c.publish(s)
			m, _, _ := s.find("a", "1")
			steps, err := Steps(m, c.program, s.find)
			if err != nil || said(steps) != c.want {
				t.Errorf("%s, %v\nwant %s", said(steps), err, c.want)
			}
			if err := Check(m, s.find, nil); err != nil {
				t.Errorf("it is refused at publish: %v", err)
			}
		})
	}
}

// long publishes a chain of n programs before a@1.
func (s shelf) long(n int) {
	for i := n; i > 0; i-- {
		var first []string
		if i < n {
			first = []string{fmt.Sprintf("s%d@1/install", i+1)}
		}
		s.add(fmt.Sprintf("s%d@1", i), first)
	}
	s.add("a@1", []string{"s1@1/install"})
}

func TestChainsThatCannotBeMetAreRefusedWithTheChain(t *testing.T) {
	for _, c := range []struct {
		name    string
		publish func(shelf)
		want    string
	}{
		{"a package that is not published", func(s shelf) {
			s.add("b@2", []string{"c@1/install"})
			s.add("a@1", []string{"b@2/install"})
		}, "a@1/install → b@2/install → c@1 (not published)"},
		{"a program that is not there", func(s shelf) {
			s.add("b@2", nil)
			s.add("a@1", []string{"b@2/setup"})
		}, "a@1/install → b@2/setup (b@2 has no such program, it has install, remove)"},
		{"a removal that is not published", func(s shelf) {
			s.add("a@1", nil, supersedes("old", "", "old@1/remove"))
		}, "a@1/install → old@1 (not published)"},
		{"a removal that removes nothing", func(s shelf) {
			s.add("old@1", nil)
			s.add("a@1", nil, supersedes("old", "", "old@1/install"))
		}, "a@1/install → old@1/install takes back no program"},
		{"a cycle", func(s shelf) {
			s.add("c@1", []string{"a@1/install"})
			s.add("b@2", []string{"c@1/install"})
			s.add("a@1", []string{"b@2/install"})
		}, "a@1/install → b@2/install → c@1/install → a@1/install: it would have to run before itself"},
		{"a cycle that it only leads to", func(s shelf) {
			s.add("c@1", []string{"b@2/install"})
			s.add("b@2", []string{"c@1/install"})
			s.add("a@1", []string{"b@2/install"})
		}, "a@1/install → b@2/install → c@1/install → b@2/install: it would"},
		{"a program for every user", func(s shelf) {
			s.add("b@2", nil, program("install", func(p *events.Program) { p.EveryUser, p.Logon = true, "user" }))
			s.add("a@1", []string{"b@2/install"})
		}, "a@1/install → b@2/install runs once for every user"},
		{"it depends on what it supersedes", func(s shelf) {
			s.add("b@2", nil)
			s.add("a@1", []string{"b@2/install"}, supersedes("b", "< 3", ""))
		}, "a@1/install → b@2/install: a@1 supersedes b@2"},
		{"it depends on what it supersedes through the chain", func(s shelf) {
			s.add("c@1", nil)
			s.add("b@2", []string{"c@1/install"})
			s.add("a@1", []string{"b@2/install"}, supersedes("c", "", ""))
		}, "a@1/install → b@2/install → c@1/install: a@1 supersedes c@1, which is needed here"},
		{"it depends on the removal of what it supersedes", func(s shelf) {
			s.add("old@1", nil)
			s.add("a@1", []string{"old@1/remove"}, supersedes("old", "", ""))
		}, "name the program under supersedes, as uninstall"},
		{"it depends on what it removes", func(s shelf) {
			s.add("old@1", nil)
			s.add("a@1", []string{"old@1/remove"}, supersedes("old", "", "old@1/remove"))
		}, "a@1/install → old@1/remove is to be removed, and is needed as well"},
		{"two that it needs exclude each other", func(s shelf) {
			s.add("c@1", nil)
			s.add("b@2", nil, supersedes("c", "", ""))
			s.add("a@1", []string{"b@2/install", "c@1/install"})
		}, "a@1/install → c@1/install: b@2 supersedes c@1"},
		{"what it needs supersedes it", func(s shelf) {
			s.add("b@2", nil, supersedes("a", "", ""))
			s.add("a@1", []string{"b@2/install"})
		}, "a@1/install → b@2/install: b@2 supersedes a@1/install"},
		{"found under a removal first, and needed later", func(s shelf) {
			s.add("old@1", nil, program("remove", func(p *events.Program) { p.RunFirst = []string{"tool@1/install"} }))
			s.add("base@1", nil)
			s.add("tool@1", []string{"base@1/install"})
			s.add("b@2", nil, supersedes("old", "", "old@1/remove"))
			s.add("a@1", []string{"b@2/install", "tool@1/install"}, supersedes("base", "", ""))
		}, "base@1/install: a@1 supersedes base@1"},
		{"one needs a user and the other that none is there", func(s shelf) {
			s.add("b@2", nil, program("install", logon("none")))
			s.add("a@1", []string{"b@2/install"}, program("install", logon("user")))
		}, "a@1/install → b@2/install: a@1/install runs only when a user is logged on, b@2/install only when none is"},
		{"two that it needs are for a user and for none", func(s shelf) {
			s.add("c@1", nil, program("install", logon("none")))
			s.add("b@2", []string{"c@1/install"})
			s.add("d@1", nil, program("install", func(p *events.Program) { p.Run = events.RunUser }))
			s.add("a@1", []string{"b@2/install", "d@1/install"})
		}, "a@1/install → b@2/install → c@1/install: d@1/install runs only when a user is logged on, c@1/install only when none is"},
		{"they are for different systems", func(s shelf) {
			s.add("b@2", nil, program("install", platforms("linux", "darwin")))
			s.add("a@1", []string{"b@2/install"}, program("install", platforms("windows")))
		}, "a@1/install → b@2/install: b@2/install and a@1/install run on no machine both"},
		{"three are for different systems, though two have one in common", func(s shelf) {
			s.add("c@1", nil, program("install", platforms("linux", "darwin")))
			s.add("b@2", []string{"c@1/install"}, program("install", platforms("darwin", "windows")))
			s.add("a@1", []string{"b@2/install"}, program("install", platforms("windows", "linux")))
		}, "a@1/install → b@2/install: b@2/install and a@1/install run on no machine both"},
		{"too long a chain", func(s shelf) { s.long(order.MaxSteps + 1) }, "more than 32 programs would run before a@1/install"},
		{"too many", func(s shelf) {
			var all []string
			for i := range 2 {
				var first []string
				for j := range order.MaxSteps/2 + 1 {
					at := fmt.Sprintf("s%d@%d", i, j)
					s.add(at, nil)
					first = append(first, at+"/install")
				}
				at := fmt.Sprintf("b%d@1", i)
				s.add(at, first)
				all = append(all, at+"/install")
			}
			s.add("a@1", all)
		}, "more than 32 programs would run before a@1/install"},
		{"a reference that is none", func(s shelf) { s.add("a@1", []string{"b@2"}) }, "a@1/install: \"b@2\": write package@version/program"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := shelf{}
			c.publish(s)
			m, _, _ := s.find("a", "1")
			steps, err := Steps(m, "install", s.find)
			if err == nil || steps != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %v\nwant %s", said(steps), err, c.want)
			}
			delete(s, "a@1") // it is being published
			if err := Check(m, s.find, nil); err == nil {
				t.Error("it passes at publish")
			}
		})
	}
	if _, err := Steps(shelf{}.add("a@1", nil), "setup", nil); err == nil || !strings.Contains(err.Error(), "no program setup") {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestAStepIsBoundAsItsManifestSays(t *testing.T) {
	s := shelf{}
	s.add("b@2", nil, func(m *events.Manifest) { m.Source = "smb://files.example/b" },
		program("install", func(p *events.Program) {
			p.InstallationAccount, p.References = "corp", []events.Reference{{URL: "smb://files.example/a"}}
		}))
	m := s.add("a@1", []string{"b@2/install"})
	steps, err := Steps(m, "install", s.find)
	want := []order.Step{{Why: order.StepFirst, Package: "b", Version: "2", Manifest: digest("b", "2"), Program: "install", Run: events.RunAdministrative,
		InstallationAccount: "corp", Resources: []string{"smb://files.example/a", "smb://files.example/b"}}}
	if diff := cmp.Diff(want, steps); diff != "" || err != nil {
		t.Fatal(err, diff)
	}
	if err := steps[0].Agrees(s["b@2"]); err != nil {
		t.Error(err)
	}
}

func TestPackagesThatSupersedeEachOtherAreRefused(t *testing.T) {
	s := shelf{}
	b := s.add("b@2", nil, supersedes("a", "", ""))
	a := s.add("a@1", nil, supersedes("b", "", ""))
	if err := Check(a, s.find, []events.Manifest{b}); err == nil || !strings.Contains(err.Error(), "a@1 and b@2 supersede each other") {
		t.Error(err)
	}
	newer := s.add("b@3", nil, supersedes("b", "< 3", ""))
	if err := Check(newer, s.find, []events.Manifest{a, b}); err != nil {
		t.Errorf("one that supersedes and is superseded by others: %v", err)
	}
}

func TestNeedsAreThoseOfAllPrograms(t *testing.T) {
	m := shelf{}.add("a@1", []string{"c@1/install", "prepare"}, supersedes("old", "", "old@1/remove"), supersedes("older", "", ""),
		program("repair", func(p *events.Program) { p.RunFirst = []string{"b@2/install", "c@1/install"} }))
	want := []manifest.Ref{{Package: "a", Version: "1", Program: "prepare"}, {Package: "b", Version: "2", Program: "install"},
		{Package: "c", Version: "1", Program: "install"}, {Package: "old", Version: "1", Program: "remove"}}
	if diff := cmp.Diff(want, Needs(m)); diff != "" {
		t.Error(diff)
	}
}

// Whatever is published: it is refused, or every step comes after all that it needs itself, once, and an order takes them.
func TestStepsAreInAnOrderThatCanRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := shelf{}
		name := func(i int) string { return string(rune('a' + i)) }
		n := rapid.IntRange(1, 8).Draw(t, "packages")
		for i := range n {
			var first []string
			for _, j := range rapid.SliceOfNDistinct(rapid.IntRange(0, n), 0, 3, rapid.ID[int]).Draw(t, "first") {
				first = append(first, name(j)+"@1/install")
			}
			s.add(name(i)+"@1", first, func(m *events.Manifest) {
				if j := rapid.IntRange(0, 3*n).Draw(t, "superseded"); j < n && j != i {
					supersedes(name(j), "", rapid.SampledFrom([]string{"", name(j) + "@1/remove"}).Draw(t, "removal"))(m)
				}
			}, program("install", func(p *events.Program) { p.AlwaysRunFirst = rapid.Bool().Draw(t, "always") }))
		}
		m := s["a@1"]
		steps, err := Steps(m, "install", s.find)
		if err != nil {
			if !strings.Contains(err.Error(), "a@1/install") {
				t.Fatalf("no chain: %v", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, step := range steps {
			if of := s[step.Package+"@1"]; step.Program == "install" {
				for _, f := range of.Programs["install"].RunFirst {
					if !seen[f] {
						t.Fatalf("%s: %s comes too late", said(steps), f)
					}
				}
				for other := range seen {
					if p, _, _ := strings.Cut(other, "@"); strings.HasSuffix(other, "install") && (manifest.Supersedes(of, p, "1") || manifest.Supersedes(s[p+"@1"], of.Package, "1")) {
						t.Fatalf("%s: %s and %s exclude each other", said(steps), other, of.Package)
					}
				}
			}
			seen[step.Package+"@1/"+step.Program] = true
		}
		if len(seen) != len(steps) {
			t.Fatalf("%s: one is there twice", said(steps))
		}
		for _, f := range m.Programs["install"].RunFirst {
			if !seen[f] {
				t.Fatalf("%s lacks %s", said(steps), f)
			}
		}
	})
}
