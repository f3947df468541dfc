package manifest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

// related is a package that uses all that relates programs and packages to each other and to machines.
func related() events.Manifest {
	m := valid()
	m.Category = "Office"
	m.Supersedes = []events.Supersede{{Package: "hello", Version: "< 2.10-3", Uninstall: "hello@2.9/remove"}, {Package: "greet"}}
	install := m.Programs["install"]
	install.RunFirst, install.AlwaysRunFirst = []string{"runtime@4.2/install", "prepare"}, true
	install.DiskSpace, install.Interactive, install.Window = 500e6, true, events.WindowMinimized
	install.Platforms = []events.Platform{{OS: "windows", Arch: "amd64", Name: "Microsoft Windows 11", MinVersion: "10.0.9", MaxVersion: "10.0.22631"}, {OS: "linux"}}
	m.Programs["install"] = install
	m.Programs["prepare"] = events.Program{Command: events.Command{Line: "true"}, Run: events.RunAdministrative, Repairs: "", RunFirst: []string{"remove"}}
	m.Programs["repair"] = events.Program{Command: events.Command{Line: "true"}, Run: events.RunAdministrative, Repairs: "install"}
	return m
}

func TestAPackageMayRelateToOthersAndToMachines(t *testing.T) {
	if problems := Check(related()); len(problems) > 0 {
		t.Fatal(problems)
	}
	data, err := Encode(related())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if diff := cmp.Diff(related(), got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestEachMistakeInWhatAProgramNeedsIsSaidWhereItIs(t *testing.T) {
	change := func(name string, f func(*events.Program)) func(*events.Manifest) {
		return func(m *events.Manifest) { p := m.Programs[name]; f(&p); m.Programs[name] = p }
	}
	first := func(texts ...string) func(*events.Manifest) {
		return change("install", func(p *events.Program) { p.RunFirst = texts })
	}
	platform := func(f func(*events.Platform)) func(*events.Manifest) {
		return change("install", func(p *events.Program) { f(&p.Platforms[0]) })
	}
	supersedes := func(s ...events.Supersede) func(*events.Manifest) {
		return func(m *events.Manifest) { m.Supersedes = s }
	}
	for _, c := range []struct {
		name        string
		change      func(*events.Manifest)
		where, text string
	}{
		{"a program to run first without a version", first("runtime/install"), "install'.run-first[0]", "neither package@version/program nor"},
		{"a package to run first without a program", first("prepare", "runtime@4.2"), "install'.run-first[1]", "runtime@4.2/install"},
		{"an empty program to run first", first(""), "install'.run-first[0]", "neither"},
		{"a program to run first that is not there", first("setup"), "install'.run-first[0]", "no such program"},
		{"a program to run first that is not there, by its whole name", first("hello@2.10-3/setup"), "install'.run-first[0]", "no such program"},
		{"a program before itself", first("install"), "install'.run-first[0]", "the program itself"},
		{"a program before itself, by its whole name", first("hello@2.10-3/install"), "install'.run-first[0]", "the program itself"},
		{"a program to run first twice", first("prepare", "hello@2.10-3/prepare"), "install'.run-first[1]", "twice"},
		{"a program to run first of what is superseded", first("greet@1/install"), "install'.run-first[0]", "supersedes greet 1"},
		{"a program to run first of an older version that is superseded", first("hello@2.9/install"), "install'.run-first[0]", "as uninstall"},
		{"too many programs to run first", first(make([]string, MaxRunFirst+1)...), "install'.run-first", "at most 32"},
		{"always first, and nothing is named", change("install", func(p *events.Program) { p.RunFirst = nil }), "install'.always-run-first", "goes with run-first"},
		{"a program for every user before another", change("prepare", func(p *events.Program) { p.EveryUser, p.Logon = true, "user" }), "install'.run-first[1]", "once for every user"},
		{"one needs a user and the other that none is there", func(m *events.Manifest) {
			change("prepare", func(p *events.Program) { p.Logon = "none" })(m)
			change("install", func(p *events.Program) { p.Logon = "user" })(m)
		}, "install'.run-first[1]", "only when a user"},
		{"two programs before each other", change("prepare", func(p *events.Program) { p.RunFirst = []string{"install"} }), "install'.run-first", "install → prepare → install"},
		{"a long way round", func(m *events.Manifest) {
			change("remove", func(p *events.Program) { p.RunFirst = []string{"hello@2.10-3/install"} })(m)
		}, "install'.run-first", "install → prepare → remove → install"},
		{"repairing nothing", change("repair", func(p *events.Program) { p.Repairs = "setup" }), "repair'.repairs", "no other program"},
		{"repairing itself", change("repair", func(p *events.Program) { p.Repairs = "repair" }), "repair'.repairs", "no other program"},
		{"repairing a removal", change("repair", func(p *events.Program) { p.Repairs = "remove" }), "repair'.repairs", "name that one"},
		{"undoing a repair", change("remove", func(p *events.Program) { p.Undoes = "repair" }), "remove'.undoes", "name that one"},
		{"undoing and repairing", change("repair", func(p *events.Program) { p.Undoes = "install" }), "repair'.repairs", "one of them"},
		{"a negative size", change("install", func(p *events.Program) { p.DiskSpace = -1 }), "install'.disk-space", "between"},
		{"an endless size", change("install", func(p *events.Program) { p.DiskSpace = 1 << 60 }), "install'.disk-space", "1048576GiB"},
		{"an unknown window", change("install", func(p *events.Program) { p.Window = "full" }), "install'.window", "minimized"},
		{"a window that nobody sees", change("install", func(p *events.Program) { p.Interactive = false }), "install'.window", "interactive: true"},
		{"a platform without os", platform(func(p *events.Platform) { p.OS = "" }), "install'.platforms[0]", "no os"},
		{"an unknown os", platform(func(p *events.Platform) { p.OS = "debian" }), "install'.platforms[0].os", "linux, windows, darwin"},
		{"an unknown architecture", platform(func(p *events.Platform) { p.Arch = "x86_64" }), "install'.platforms[0].arch", "amd64"},
		{"a version of words", platform(func(p *events.Platform) { p.MinVersion = "bookworm" }), "install'.platforms[0].min-version", "numbers between dots"},
		{"a range upside down", platform(func(p *events.Platform) { p.MinVersion, p.MaxVersion = "10.0.10", "10.0.9" }), "install'.platforms[0].max-version", "below"},
		{"a name with blanks around it", platform(func(p *events.Platform) { p.Name = "debian " }), "install'.platforms[0].name", "blank"},
		{"a platform twice", platform(func(p *events.Platform) { *p = events.Platform{OS: "linux"} }), "install'.platforms[1]", "twice"},
		{"too many platforms", change("install", func(p *events.Program) { p.Platforms = make([]events.Platform, MaxPlatforms+1) }), "install'.platforms", "at most 64"},
		{"a category of two lines", func(m *events.Manifest) { m.Category = "Office\nGames" }, "$.category", "one line"},
		{"a category that is long", func(m *events.Manifest) { m.Category = strings.Repeat("x", MaxCategory+1) }, "$.category", "64 bytes"},
		{"a category that is no text", func(m *events.Manifest) { m.Category = "a\xff" }, "$.category", "not text"},
		{"superseding nothing", supersedes(events.Supersede{Version: "1"}), "$.supersedes[0]", "no package"},
		{"superseding no name", supersedes(events.Supersede{Package: "a b"}), "$.supersedes[0].package", "package name"},
		{"superseding a version that cannot be compared", supersedes(events.Supersede{Package: "greet", Version: "~> 1"}), "$.supersedes[0].version", "< 3.0"},
		{"superseding twice", supersedes(events.Supersede{Package: "greet"}, events.Supersede{Package: "greet"}), "$.supersedes[1]", "twice"},
		{"superseding every version of itself", supersedes(events.Supersede{Package: "hello"}), "$.supersedes[0]", `"< 2.10-3"`},
		{"superseding its own version", supersedes(events.Supersede{Package: "hello", Version: "<= 2.10-3"}), "$.supersedes[0].version", "is itself"},
		{"a removal without a package", supersedes(events.Supersede{Package: "greet", Uninstall: "remove"}), "$.supersedes[0].uninstall", "greet@1.0/remove"},
		{"a removal without a program", supersedes(events.Supersede{Package: "greet", Uninstall: "greet@1"}), "$.supersedes[0].uninstall", "greet@1.0/remove"},
		{"a removal of another package", supersedes(events.Supersede{Package: "greet", Uninstall: "hello@1/remove"}), "$.supersedes[0].uninstall", "another package"},
		{"a removal of another version", supersedes(events.Supersede{Package: "greet", Version: "< 2", Uninstall: "greet@2.0/remove"}), "$.supersedes[0].uninstall", "another version"},
		{"superseding too much", supersedes(make([]events.Supersede, MaxSupersedes+1)...), "$.supersedes", "at most 64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := related()
			c.change(&m)
			problems := Check(m)
			for _, p := range problems {
				if strings.HasSuffix(p.Where, c.where) && strings.Contains(p.Text, c.text) {
					return
				}
			}
			t.Errorf("found %+v, not %s at %s", problems, c.text, c.where)
		})
	}
}

func TestACycleIsToldOnce(t *testing.T) {
	m := related()
	for i, next := range []string{"b", "c", "a"} {
		m.Programs[string(rune('a'+i))] = events.Program{Command: events.Command{Line: "true"}, Run: events.RunAdministrative, RunFirst: []string{next}}
	}
	problems := Check(m)
	if len(problems) != 1 || !strings.Contains(problems[0].Text, "a → b → c → a") {
		t.Error(problems)
	}
}

func TestWhatAPackageSupersedes(t *testing.T) {
	m := related()
	m.Supersedes = append(m.Supersedes, events.Supersede{Package: "hi", Version: "1.5"}, events.Supersede{Package: "hi", Version: ">= 3"})
	for ref, want := range map[Ref]bool{
		{"hello", "2.9", ""}:    true,
		{"hello", "2.10-3", ""}: false,
		{"hello", "2.10-4", ""}: false,
		{"greet", "99", ""}:     true,
		{"hi", "1.5", ""}:       true,
		{"hi", "2", ""}:         false,
		{"hi", "3.0", ""}:       true,
		{"other", "1", ""}:      false,
	} {
		if got := Supersedes(m, ref.Package, ref.Version); got != want {
			t.Errorf("supersedes %s %s: %v", ref.Package, ref.Version, got)
		}
	}
	m.Supersedes = []events.Supersede{{Package: "hello"}}
	if Supersedes(m, "hello", m.Version) {
		t.Error("a package supersedes itself")
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"runtime@4.2/install", "install", "a@1", "a@/b", "@1/b", "a@1/b/c", "a@1@2/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := valid()
		ref, err := ParseRef(text, m)
		if err != nil {
			return
		}
		again, err := ParseRef(ref.String(), m)
		if err != nil || again != ref || text != ref.String() && text != ref.Program {
			t.Fatal(fmt.Sprintf("%q", text), ref, again, err)
		}
	})
}
