package publish

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

// sample copies a test file of another package under the given name.
func sample(t *testing.T, from, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(from))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func script(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, name, text)
	return filepath.Join(dir, name)
}

func TestAPackageFileTellsItsPrograms(t *testing.T) {
	type outcome struct {
		Install, Remove []string
		Detect          []events.Detect
		AppliesIf       string
	}
	for _, c := range []struct {
		name, path string
		run        events.RunMode
		want       outcome
		note       string
	}{
		{"deb", sample(t, "../debfile/testdata/sample.deb", "x.deb"), events.RunAdministrative, outcome{
			Install: []string{"dpkg", "-i", "x.deb"}, Remove: []string{"dpkg", "-r", "NAME"}, Detect: []events.Detect{{Dpkg: "NAME", Version: ">= VERSION"}}, AppliesIf: "linux"}, ""},
		{"rpm", sample(t, "../rpmfile/testdata/sample.rpm", "x.rpm"), events.RunAdministrative, outcome{
			Install: []string{"rpm", "-U", "x.rpm"}, Remove: []string{"rpm", "-e", "NAME"}, Detect: []events.Detect{{Rpm: "NAME", Version: ">= VERSION"}}, AppliesIf: "linux"}, ""},
		{"msi for an administrator", sample(t, "../../../events/msi/testdata/sample.msi", "x.msi"), events.RunAdministrative, outcome{
			Install: []string{"msiexec", "/i", "x.msi", "/l*v", "%CHANDLER_LOG%", "/qn", "/norestart", "ALLUSERS=1"}, Remove: []string{"msiexec", "/x", "CODE", "/l*v", "%CHANDLER_LOG%", "/qn", "/norestart"},
			Detect: []events.Detect{{MSI: "CODE", Version: ">= VERSION"}}, AppliesIf: "windows"}, "ALLUSERS=1 was added"},
		{"msi for a user", sample(t, "../../../events/msi/testdata/sample.msi", "x.msi"), events.RunUser, outcome{
			Install: []string{"msiexec", "/i", "x.msi", "/l*v", "%CHANDLER_LOG%", "/qn", "/norestart"}, Remove: []string{"msiexec", "/x", "CODE", "/l*v", "%CHANDLER_LOG%", "/qn", "/norestart"},
			AppliesIf: "windows"}, "has no detection"},
		{"shell script", script(t, "fix.sh", "echo hello"), events.RunUser, outcome{Install: []string{"sh", "fix.sh"}, AppliesIf: "windows"}, "no version"},
		{"python script", script(t, "fix", "#!/usr/bin/env python3\nprint()"), events.RunUser, outcome{Install: []string{"/usr/bin/env", "python3", "fix"}, AppliesIf: "windows"}, "no version"},
		{"PowerShell script", script(t, "fix.ps1", "exit"), events.RunUser, outcome{
			Install: []string{"powershell", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File", "fix.ps1"}, AppliesIf: "windows"}, "no detection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options()
			o.Run = c.run
			p := read(t, c.path, o)
			install, remove := p.Manifest.Programs["install"], p.Manifest.Programs["remove"]
			if install.Run != c.run || c.want.Remove != nil && (remove.Run != c.run || remove.Undoes != "install") {
				t.Errorf("run %q and %q", install.Run, remove.Run)
			}
			got := outcome{install.Command.Argv, remove.Command.Argv, install.Detect, install.AppliesIf}
			if !strings.Contains(got.AppliesIf, c.want.AppliesIf) {
				t.Errorf("applies-if %s", got.AppliesIf)
			}
			got.AppliesIf = c.want.AppliesIf
			// What the samples say of themselves is for the tests of their readers; here it only has to be the same everywhere.
			name, version := p.Manifest.Package, p.Manifest.Version
			for _, list := range [][]string{got.Install, got.Remove} {
				for i := range list {
					if list[i] == name && c.want.Detect != nil {
						list[i] = "NAME"
					}
					if strings.HasPrefix(list[i], "{") {
						list[i] = "CODE"
					}
				}
			}
			for i, d := range got.Detect {
				d.Dpkg, d.Rpm = strings.Replace(d.Dpkg, name, "NAME", 1), strings.Replace(d.Rpm, name, "NAME", 1)
				d.Version = strings.Replace(d.Version, version, "VERSION", 1)
				if d.MSI != "" {
					d.MSI = "CODE"
				}
				got.Detect[i] = d
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if !strings.Contains(strings.Join(p.Notes, "\n"), c.note) || c.note == "" && len(p.Notes) > 0 {
				t.Errorf("notes: %q", p.Notes)
			}
		})
	}
}

func TestAPackageFileForUsersIsToldOfWhereItNeedsMoreRights(t *testing.T) {
	for name, c := range map[string]struct{ from, want string }{
		"x.deb": {"../debfile/testdata/sample.deb", "program install: to install a .deb needs more rights than users have; use run: administrative"},
		"x.rpm": {"../rpmfile/testdata/sample.rpm", "program install: to install an .rpm needs more rights than users have; use run: administrative"},
		"x.msi": {"../../../events/msi/testdata/sample.msi", ""}, // made for whoever installs it
	} {
		for _, run := range []events.RunMode{events.RunUser, events.RunAdministrative} {
			o := options()
			o.Run = run
			notes := strings.Join(read(t, sample(t, c.from, name), o).Notes, "\n")
			if told := strings.Contains(notes, "more rights"); told != (run == events.RunUser && c.want != "") || told && !strings.Contains(notes, c.want) {
				t.Errorf("%s, run %s: notes %q", name, run, notes)
			}
		}
	}
}

func TestAPackageFileNeedsARunMode(t *testing.T) {
	_, err := Read(t.Context(), script(t, "fix.sh", "true"), options())
	if !errors.Is(err, ErrNoRun) || !strings.Contains(err.Error(), `"user"`) || !strings.Contains(err.Error(), `"administrative"`) {
		t.Errorf("error: %v", err)
	}
}

func TestNameAndVersionMayBeGiven(t *testing.T) {
	o := options()
	o.Run, o.Name, o.Version = events.RunUser, "fix-printers", "2"
	p := read(t, script(t, "fix.sh", "true"), o)
	if p.Manifest.Package != "fix-printers" || p.Manifest.Version != "2" {
		t.Errorf("published as %s %s", p.Manifest.Package, p.Manifest.Version)
	}
}

func TestAGivenVersionLeavesNothingToSayAboutTheInferredOne(t *testing.T) {
	p, err := Read(t.Context(), script(t, "fix.sh", "echo hello"), Options{Run: events.RunUser, Version: "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "no detection") {
		t.Errorf("notes: %q", p.Notes)
	}
}

func TestADirectoryTakesNoneOfAFilesOptions(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, SpecName, "api: chandler/v1\npackage: hello\nversion: \"1\"\nprograms:\n  install: {command: [echo, hello], run: user}\n")
	if _, err := Read(t.Context(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{"run": {Run: events.RunUser}, "name": {Name: "other"}, "version": {Version: "2"}} {
		if _, err := Read(t.Context(), dir, o); err == nil || !strings.Contains(err.Error(), SpecName+" says them") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestWhatIsNoPackageFileIsRefused(t *testing.T) {
	for name, path := range map[string]string{
		"unknown":          script(t, "x.dat", "data"),
		"empty":            script(t, "x.sh", ""),
		"a broken deb":     script(t, "x.deb", "!<arch>\nno"),
		"a broken rpm":     script(t, "x.rpm", "rpm?"),
		"a broken msi":     script(t, "x.msi", "msi?"),
		"nothing":          filepath.Join(t.TempDir(), "nothing"),
		"a name with a \\": script(t, `a\b.sh`, "true"),
	} {
		o := options()
		o.Run = events.RunUser
		if p, err := Read(t.Context(), path, o); err == nil {
			t.Errorf("%s was read as %+v", name, p.Manifest)
		}
	}
}
