package manifest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"chandler/events"
	"chandler/events/resource"
)

func valid() events.Manifest {
	return events.Manifest{
		API: API, Package: "hello", Version: "2.10-3", Published: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC),
		Files: []events.File{
			{Path: "data/a.txt", Size: 3, Mode: 0o644, SHA256: events.DigestOf([]byte("abc"))},
			{Path: "hello.deb", Size: 3, Mode: 0o644, SHA256: events.DigestOf([]byte("abc"))},
		},
		Programs: map[string]events.Program{
			"install": {
				Command: events.Command{Argv: []string{"dpkg", "-i", "hello.deb"}}, Run: events.RunAdministrative, Logon: "any", OnTimeout: "kill",
				MaxRunTime: events.Duration(20 * time.Minute), AppliesIf: `agent.os == "linux" && 1 < 2`, Environment: []string{"A=b"}, WorkingDirectory: "data",
				References: []events.Reference{{URL: "smb://files.example/licences", Optional: true}, {URL: "https://files.example/hello.key", SHA256: events.DigestOf([]byte("key"))}},
				Detect:     []events.Detect{{Dpkg: "hello", Version: ">= 2.10"}, {File: "/usr/bin/hello"}}, ReturnCodes: map[int]string{3010: "soft-reboot"},
			},
			"remove": {Command: events.Command{Line: "dpkg -r hello"}, Run: events.RunAdministrative, Undoes: "install"},
		},
	}
}

func TestAManifestIsReadBackAsItWasWritten(t *testing.T) {
	data, err := Encode(valid())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(valid(), got); diff != "" {
		t.Error(diff)
	}
	if !bytes.Contains(data, []byte(`&& 1 < 2`)) {
		t.Error("the expression is not readable in the manifest")
	}
}

func TestOnlyTheOneEncodingIsRead(t *testing.T) {
	data, err := Encode(valid())
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for name, altered := range map[string]string{
		"no newline":        strings.TrimSpace(text),
		"a space more":      strings.Replace(text, ":", ": ", 1),
		"an unknown field":  strings.Replace(text, `{"api"`, `{"x":1,"api"`, 1),
		"a doubled key":     strings.Replace(text, `{"api"`, `{"package":"other","api"`, 1),
		"another case":      strings.Replace(text, `"package"`, `"Package"`, 1),
		"a second value":    text + "{}",
		"an escaped letter": strings.Replace(text, "hello.deb", `hell\u006f.deb`, 1),
		"half":              text[:len(text)/2],
		"nothing":           "",
		"null":              "null\n",
		"too much":          text + strings.Repeat(" ", MaxBytes),
	} {
		if m, err := Decode([]byte(altered)); err == nil {
			t.Errorf("%s was read as %+v", name, m)
		}
	}
}

func TestSameIgnoresTheTimeOnly(t *testing.T) {
	a, b := valid(), valid()
	b.Published = b.Published.Add(time.Hour)
	if !Same(a, b) {
		t.Error("the time made a difference")
	}
	b.Files[0].Mode = 0o755
	if Same(a, b) {
		t.Error("another mode made no difference")
	}
}

func TestEachMistakeIsSaidWhereItIs(t *testing.T) {
	change := func(name string, f func(*events.Program)) func(*events.Manifest) {
		return func(m *events.Manifest) { p := m.Programs[name]; f(&p); m.Programs[name] = p }
	}
	install := func(f func(*events.Program)) func(*events.Manifest) { return change("install", f) }
	path := func(s string) func(*events.Manifest) {
		return func(m *events.Manifest) { m.Files = m.Files[:1]; m.Files[0].Path = s }
	}
	for _, c := range []struct {
		name        string
		change      func(*events.Manifest)
		where, text string
	}{
		{"another api", func(m *events.Manifest) { m.API = "chandler/v2" }, "$.api", `knows "chandler/v1"`},
		{"a name with a space", func(m *events.Manifest) { m.Package = "a b" }, "$.package", "package name"},
		{"no version", func(m *events.Manifest) { m.Version = "" }, "$.version", "version"},
		{"no programs", func(m *events.Manifest) { m.Programs = nil }, "$.programs", "no programs"},
		{"a program named with a dot", func(m *events.Manifest) { m.Programs["a.b"] = m.Programs["install"] }, "$.programs", `"a.b"`},
		{"no command", install(func(p *events.Program) { p.Command = events.Command{} }), "$.programs.'install'", "no command"},
		{"an empty command", install(func(p *events.Program) { p.Command = events.Command{Line: "  "} }), "$.programs.'install'.command", "names no program"},
		{"a list for a shell", install(func(p *events.Program) { p.Shell = "sh" }), "$.programs.'install'.shell", "one line"},
		{"no run", install(func(p *events.Program) { p.Run = "" }), "$.programs.'install'", `"run: administrative"`},
		{"no run names user too", install(func(p *events.Program) { p.Run = "" }), "$.programs.'install'", `"run: user"`},
		{"another run", install(func(p *events.Program) { p.Run = "root" }), "$.programs.'install'.run", "run: root"},
		{"a user's program without a user", install(func(p *events.Program) { p.Run, p.Logon = events.RunUser, "none" }), "$.programs.'install'.logon", "logged on"},
		{"an account for a user's program", install(func(p *events.Program) { p.Run, p.InstallationAccount = events.RunUser, "corp" }), "$.programs.'install'.installation-account", "administrative only"},
		{"an account for a program that needs its user", install(func(p *events.Program) { p.Logon, p.InstallationAccount = "user", "corp" }), "$.programs.'install'.installation-account", "logon: none"},
		{"an account for a program that is shown", install(func(p *events.Program) { p.Interactive, p.InstallationAccount = true, "corp" }), "$.programs.'install'.installation-account", "interactive"},
		{"an account that is no name", install(func(p *events.Program) { p.InstallationAccount = `EXAMPLE\corp` }), "$.programs.'install'.installation-account", "installation-account"},
		{"every user, whoever is logged on", install(func(p *events.Program) { p.EveryUser = true }), "$.programs.'install'.every-user", "logon: user"},
		{"every user of an administrator's program that does not say when", install(func(p *events.Program) { p.EveryUser, p.Logon = true, "" }), "$.programs.'install'.every-user", "logon: user"},
		{"every user when none is there", install(func(p *events.Program) { p.EveryUser, p.Logon = true, "none" }), "$.programs.'install'.every-user", "logon: user"},
		{"every user of a user's program with logon any", install(func(p *events.Program) { p.Run, p.EveryUser = events.RunUser, true }), "$.programs.'install'.every-user", "logon: user"},
		{"shown when nobody is there", install(func(p *events.Program) { p.Interactive, p.Logon = true, "none" }), "$.programs.'install'.interactive", "logon: none"},
		{"an unknown msi-scope", install(func(p *events.Program) { p.MSIScope = "user" }), "$.programs.'install'.msi-scope", "machine, as-authored"},
		{"a product without braces", install(func(p *events.Program) { p.Product = "12345678-1234-1234-1234-123456789012" }), "$.programs.'install'", "GUID in braces"},
		{"a product with more", install(func(p *events.Program) { p.Product = "{12345678-1234-1234-1234-123456789012} /qb" }), "$.programs.'install'", "GUID in braces"},
		{"an unknown logon", install(func(p *events.Program) { p.Logon = "sometimes" }), "$.programs.'install'.logon", "user, none, any"},
		{"an unknown on-timeout", install(func(p *events.Program) { p.OnTimeout = "wait" }), "$.programs.'install'.on-timeout", "kill, stop-monitoring"},
		{"an unknown shell", install(func(p *events.Program) { p.Shell = "fish" }), "$.programs.'install'.shell", "sh, cmd, powershell"},
		{"an unknown after", install(func(p *events.Program) { p.After = "dance" }), "$.programs.'install'.after", "restart"},
		{"a working directory outside", install(func(p *events.Program) { p.WorkingDirectory = "../.." }), "$.programs.'install'.working-directory", "leaves"},
		{"a negative run time", install(func(p *events.Program) { p.MaxRunTime = -1 }), "$.programs.'install'.max-run-time", "negative"},
		{"an endless run time", install(func(p *events.Program) { p.MaxRunTime = events.Duration(1e6 * time.Hour) }), "$.programs.'install'.max-run-time", "more than"},
		{"an unknown return word", install(func(p *events.Program) { p.ReturnCodes[1] = "ok" }), "$.programs.'install'.return-codes.1", "soft-reboot"},
		{"a variable without =", install(func(p *events.Program) { p.Environment = []string{"A"} }), "$.programs.'install'.environment[0]", "NAME=value"},
		{"a variable twice", install(func(p *events.Program) { p.Environment = []string{"A=1", "A=2"} }), "$.programs.'install'.environment[1]", "twice"},
		{"undoing nothing", install(func(p *events.Program) { p.Undoes = "setup" }), "$.programs.'install'.undoes", "setup"},
		{"two kinds in a rule", install(func(p *events.Program) { p.Detect[0].Rpm = "x" }), "$.programs.'install'.detect[0]", "exactly one"},
		{"a relative file in a rule", install(func(p *events.Program) { p.Detect[1].File = "x" }), "$.programs.'install'.detect[1].file", "absolute"},
		{"a version for a file", install(func(p *events.Program) { p.Detect[1].Version = "1" }), "$.programs.'install'.detect[1].version", "version goes with"},
		{"a version nobody can compare", install(func(p *events.Program) { p.Detect[0].Version = "~> 2" }), "$.programs.'install'.detect[0].version", ">= 2.10"},
		{"an absolute path", path("/etc/passwd"), "$.files[0]", "absolute"},
		{"a path outside", path("a/../../b"), "$.files[0]", "leaves"},
		{"a path of Windows", path(`a\b`), "$.files[0]", "backslashes"},
		{"a stream of Windows", path(`a:b`), "$.files[0]", "colons"},
		{"a dot at the end", path(`a./b`), "$.files[0]", "Windows drops"},
		{"a path with an empty part", path(`a//b`), "$.files[0]", "empty"},
		{"a file twice", func(m *events.Manifest) { m.Files[1].Path = m.Files[0].Path }, "$.files[1]", "twice"},
		{"a file twice but for case", func(m *events.Manifest) { m.Files[0].Path = "Hello.deb" }, "$.files[1]", "differ only in case"},
		{"a file in a file", func(m *events.Manifest) { m.Files[0].Path = "HELLO.deb/x"; m.Files[1].Path = "hello.deb" }, "$.files[0]", "which is a file itself"},
		{"unsorted files", func(m *events.Manifest) { m.Files[0], m.Files[1] = m.Files[1], m.Files[0] }, "$.files", "sorted"},
		{"a mode with setuid", func(m *events.Manifest) { m.Files[0].Mode = 0o4755 }, "$.files[0]", "permission bits"},
		{"a negative size", func(m *events.Manifest) { m.Files[0].Size = -1 }, "$.files[0]", "negative"},
		{"a wrong digest", func(m *events.Manifest) { m.Files[0].SHA256 = "abc" }, "$.files[0]", "digest"},
		{"two sizes for one digest", func(m *events.Manifest) { m.Files[0].Size = 4 }, "$.files[1]", "two sizes"},
		{"missing blocks", func(m *events.Manifest) { m.Files = m.Files[:1]; m.Files[0].Size = events.BlockSize + 1 }, "$.files[0]", "2 expected"},
		{"needless blocks", func(m *events.Manifest) { m.Files[0].Blocks = []string{m.Files[0].SHA256} }, "$.files[0]", "0 expected"},
		{"too many files", func(m *events.Manifest) {
			m.Files = make([]events.File, MaxFiles+1)
			for i := range m.Files {
				m.Files[i].Path = fmt.Sprintf("%05d", i)
			}
		}, "$.files", "at most"},
		{"too many programs", func(m *events.Manifest) {
			for i := range MaxPrograms + 1 {
				m.Programs[fmt.Sprint("p", i)] = m.Programs["remove"]
			}
		}, "$.programs", "at most"},
		{"a source that is no address", func(m *events.Manifest) { m.Source = "files/software" }, "$.source", "must begin with"},
		{"a source in another form", func(m *events.Manifest) { m.Source = "smb://FILES/software/" }, "$.source", "its one form, smb://files/software"},
		{"a source of a later version", func(m *events.Manifest) { m.Source = "s3://bucket/software" }, "$.source", "do not read s3://"},
		{"a source that is a pattern", func(m *events.Manifest) { m.Source = "smb://files/software/*" }, "$.source", "has a *"},
		{"a source of no files", func(m *events.Manifest) { m.Source, m.Files = "smb://files/software", nil }, "$.source", "no file is read from there"},
		{"a source so long that a file has no address", func(m *events.Manifest) { m.Source = "smb://files/" + strings.Repeat("x", 1005) }, "$.files[0]", "at most 1024 bytes"},
		{"a file with an address in another form", func(m *events.Manifest) { m.Files[1].Source = `\\files\apps\setup.exe` }, "$.files[1]", "its one form"},
		{"a file that is a share", func(m *events.Manifest) { m.Files[1].Source = "smb://files/apps" }, "$.files[1]", "is the share apps, not a file"},
		{"a file whose address says what the source does", func(m *events.Manifest) {
			m.Source, m.Files[1].Source = "smb://files/apps", "smb://files/apps/hello.deb"
		}, "$.files[1]", "no source of its own"},
		{"a reference to nothing", install(func(p *events.Program) { p.References[0].URL = "" }), "$.programs.'install'.references[0]", "has no url"},
		{"a reference in another form", install(func(p *events.Program) { p.References[0].URL = "SMB://files/a" }), "$.programs.'install'.references[0].url", "its one form"},
		{"a reference to the machine itself", install(func(p *events.Program) { p.References[0].URL = "file:///etc" }), "$.programs.'install'.references[0].url", "leave it out"},
		{"a reference that is a pattern", install(func(p *events.Program) { p.References[0].URL = "smb://files/a/*" }), "$.programs.'install'.references[0].url", "has a *"},
		{"a reference twice", install(func(p *events.Program) {
			p.References = []events.Reference{{URL: "smb://files/a/b"}, {URL: "smb://files/a"}, {URL: "smb://files/A"}}
		}), "$.programs.'install'.references[2].url", "twice"},
		{"a reference with a wrong digest", install(func(p *events.Program) { p.References[0].SHA256 = "optional" }), "$.programs.'install'.references[0].sha256", "digest"},
		{"too many references", install(func(p *events.Program) { p.References = make([]events.Reference, MaxReferences+1) }), "$.programs.'install'.references", "at most 64"},
		{"too many addresses", func(m *events.Manifest) {
			m.Files = make([]events.File, MaxResources)
			for i := range m.Files {
				name := fmt.Sprintf("%05d", i)
				m.Files[i] = events.File{Path: name, SHA256: events.DigestOf(nil), Source: "smb://files/apps/" + name}
			}
		}, "$.programs.'install'", "at most 256"},
		{"an endless command", install(func(p *events.Program) { p.Command.Argv = []string{strings.Repeat("x", MaxText+1)} }), "$.programs.'install'.command", "at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := valid()
			c.change(&m)
			problems := Check(m)
			if len(problems) == 0 {
				t.Fatal("nothing was found")
			}
			for _, p := range problems {
				if p.Where == c.where && strings.Contains(p.Text, c.text) {
					return
				}
			}
			t.Errorf("found %+v, not %s at %s", problems, c.text, c.where)
		})
	}
}

// Whatever is combined, what was let through can be meant.
func TestContextsThatAreLetThroughMakeSense(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := events.Program{
			Command:             events.Command{Argv: []string{"setup"}},
			Run:                 rapid.SampledFrom([]events.RunMode{events.RunUser, events.RunAdministrative}).Draw(t, "run"),
			Logon:               rapid.SampledFrom(logons).Draw(t, "logon"),
			EveryUser:           rapid.Bool().Draw(t, "every user"),
			Interactive:         rapid.Bool().Draw(t, "interactive"),
			InstallationAccount: rapid.SampledFrom([]string{"", "corp"}).Draw(t, "account"),
		}
		m := valid()
		m.Programs = map[string]events.Program{"install": p}
		problems := Check(m)
		user, account := p.Run == events.RunUser, p.InstallationAccount != ""
		senseless := user && p.Logon == events.LogonNone ||
			account && (user || p.LogonNeeded() == events.LogonUser || p.Interactive) ||
			p.EveryUser && (p.LogonNeeded() != events.LogonUser || p.Logon == events.LogonAny) ||
			p.Interactive && p.LogonNeeded() == events.LogonNone
		if senseless != (len(problems) > 0) {
			t.Fatalf("%+v: %+v", p, problems)
		}
	})
}

func TestOnlyWhatDistributionPointsHoldIsAmongTheBlobs(t *testing.T) {
	shared, own := events.DigestOf([]byte("abc")), events.DigestOf([]byte("own"))
	for name, c := range map[string]struct {
		change func(*events.Manifest)
		want   []string
		at     []string // addresses of the files
	}{
		"no source":           {func(*events.Manifest) {}, []string{shared}, []string{"", ""}},
		"a source of all":     {func(m *events.Manifest) { m.Source = "smb://files/a%20b" }, nil, []string{"smb://files/a%20b/data/a.txt", "smb://files/a%20b/hello.deb"}},
		"one file's own":      {func(m *events.Manifest) { m.Files[1].Source, m.Files[1].SHA256 = "smb://files/a/b", own }, []string{shared}, []string{"", "smb://files/a/b"}},
		"the same bytes here": {func(m *events.Manifest) { m.Files[0].Source = "smb://files/a/b" }, []string{shared}, []string{"smb://files/a/b", ""}},
		"one file's own, and a source": {func(m *events.Manifest) { m.Source, m.Files[0].Source = "smb://files/c", "https://files/a/b" }, nil,
			[]string{"https://files/a/b", "smb://files/c/hello.deb"}},
	} {
		m := valid()
		c.change(&m)
		if problems := Check(m); len(problems) > 0 {
			t.Errorf("%s: %+v", name, problems)
		}
		var got, at []string
		for _, b := range Blobs(m) {
			got = append(got, b.SHA256)
		}
		for _, f := range m.Files {
			at = append(at, Address(m, f))
			if (Address(m, f) != "") != Outside(m, f) {
				t.Errorf("%s: %s", name, f.Path)
			}
		}
		if diff := cmp.Diff(c.want, got) + cmp.Diff(c.at, at); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func FuzzDecode(f *testing.F) {
	data, err := Encode(valid())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"api":"chandler/v1","files":[{"path":"../x"}]}`))
	outside := valid()
	outside.Source, outside.Files[0].Source = "smb://files/software", "https://files.example/a.txt"
	if data, err = Encode(outside); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			return
		}
		if again, err := Encode(m); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q has a second form %q (%v)", data, again, err)
		}
		for _, file := range m.Files {
			if strings.Contains("/"+file.Path+"/", "/../") || strings.HasPrefix(file.Path, "/") {
				t.Errorf("path %q was let through", file.Path)
			}
			at := Address(m, file)
			r, err := resource.Parse(at)
			if at != "" && (err != nil || r.String() != at || file.Source == "" && !resource.Covers(m.Source, at)) {
				t.Errorf("address %q was let through (%v)", at, err)
			}
		}
		for name := range m.Programs {
			for _, at := range Resources(m, name) {
				if r, err := resource.Parse(at); err != nil || r.String() != at {
					t.Errorf("resource %q was let through (%v)", at, err)
				}
			}
		}
	})
}
