package publish

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

func TestWhatAPackageNeedsIsReadFromItsFile(t *testing.T) {
	dir := directory(t, "    run: administrative\n", `    run: administrative
    run-first: [runtime@4.2/install, prepare]
    always-run-first: true
    disk-space: 500MB
    platforms:
      - {os: linux, name: debian, min-version: "12", max-version: "13.1"}
      - {os: windows, arch: amd64}
    interactive: true
    window: maximized
`, "  remove:", `  prepare: {command: 'true', run: administrative}
  repair: {command: dpkg-reconfigure hello, run: administrative, repairs: install}
  remove:`, "programs:\n", `category: Office
supersedes:
  - {package: greet}
  - package: hello
    version: < 2.10-3
    uninstall: hello@2.9/remove
programs:
`)
	p, err := Read(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := p.Manifest
	want := []events.Supersede{{Package: "greet"}, {Package: "hello", Version: "< 2.10-3", Uninstall: "hello@2.9/remove"}}
	if diff := cmp.Diff(want, m.Supersedes); diff != "" || m.Category != "Office" {
		t.Error(diff, m.Category)
	}
	got := m.Programs["install"]
	if diff := cmp.Diff([]string{"runtime@4.2/install", "prepare"}, got.RunFirst); diff != "" || !got.AlwaysRunFirst || got.DiskSpace != 500e6 || got.Window != events.WindowMaximized {
		t.Errorf("%s%+v", diff, got)
	}
	platforms := []events.Platform{{OS: "linux", Name: "debian", MinVersion: "12", MaxVersion: "13.1"}, {OS: "windows", Arch: "amd64"}}
	if diff := cmp.Diff(platforms, got.Platforms); diff != "" || m.Programs["repair"].Repairs != "install" {
		t.Error(diff)
	}
}

func TestMistakesInWhatAPackageNeedsAreShownAtTheirLine(t *testing.T) {
	program := func(line string) []string {
		return []string{"    run: administrative\n", "    run: administrative\n    " + line + "\n"}
	}
	spec := func(lines string) []string { return []string{"programs:\n", lines + "\nprograms:\n"} }
	for _, c := range []struct {
		name    string
		replace []string
		want    []string
	}{
		{"a size without a unit", program("disk-space: 500"), []string{`disk-space: size "500": write it as 500MB or 2GiB`, "| "}},
		{"a size of words", program("disk-space: much"), []string{`size "much"`}},
		{"a version of a system that YAML changes", program(`platforms: [{os: linux, min-version: 12.10}]`), []string{`min-version: 12.10 is a number to YAML`, `min-version: "12.10"`}},
		{"a whole number as version of a system", program(`platforms: [{os: linux, max-version: 12}]`), []string{`max-version: "12"`}},
		{"a key that platforms do not have", program(`platforms: [{os: linux, version: "12"}]`), []string{`unknown key "version"`}},
		{"a program to run first that is not there", program(`run-first: [setup]`), []string{"this package has no such program", "run-first: [setup]"}},
		{"one word in place of a list", program(`run-first: remove`), []string{"run-first: remove"}},
		{"a range upside down", program(`platforms: [{os: linux, min-version: "13", max-version: "12"}]`), []string{"max-version 12 is below min-version 13"}},
		{"a key that supersedes does not have", spec(`supersedes: [{package: greet, replace: true}]`), []string{`unknown key "replace"`}},
		{"names alone", spec(`supersedes: [greet]`), []string{"supersedes: [greet]"}},
		{"a condition that is none", spec(`supersedes: [{package: greet, version: ~> 2}]`), []string{`supersedes greet: version condition "~> 2"`, "| supersedes"}},
		{"a version that YAML changes", spec(`supersedes: [{package: greet, version: 2.10}]`), []string{`version: 2.10 is a number to YAML`}},
		{"a removal without a version", spec(`supersedes: [{package: greet, uninstall: greet/remove}]`), []string{"write package@version/program, for instance greet@1.0/remove"}},
		{"a category that is a list", spec(`category: [Office]`), []string{"category: [Office]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read(t.Context(), directory(t, c.replace...), Options{})
			if err == nil {
				t.Fatal("it is read")
			}
			for _, want := range append(c.want, SpecName+":") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nwant %s", err, want)
				}
			}
		})
	}
}

func TestWhatAPackageDependsOnIsLookedForBeforeItIsSigned(t *testing.T) {
	dir := directory(t, "    run: administrative\n", "    run: administrative\n    run-first: [runtime@4.2/install]\n")
	library := events.Manifest{Package: "runtime", Version: "4.2", Programs: map[string]events.Program{"install": {Run: events.RunAdministrative}}}
	late := library
	late.Programs = map[string]events.Program{"install": {Run: events.RunAdministrative, RunFirst: []string{"base@1/install"}}}
	broken := errors.New("the broker is away")
	for _, c := range []struct {
		name  string
		found map[string]events.Manifest
		err   error
		want  string
	}{
		{"it is there", map[string]events.Manifest{"runtime@4.2": library}, nil, ""},
		{"it is not", nil, nil, SpecName + ": hello@2.10-3/install → runtime@4.2 (not published)"},
		{"what that needs is not", map[string]events.Manifest{"runtime@4.2": late}, nil, "hello@2.10-3/install → runtime@4.2/install → base@1 (not published)"},
		{"nobody answers", nil, broken, "find package runtime 4.2: the broker is away"},
	} {
		t.Run(c.name, func(t *testing.T) {
			signed := false
			_, err := Read(t.Context(), dir, Options{
				Published: func(_ context.Context, name, version string) (events.Manifest, bool, error) {
					m, ok := c.found[name+"@"+version]
					return m, ok, c.err
				},
				Seal: func(events.Manifest) ([]byte, error) { signed = true; return nil, errors.New("no key here") },
			})
			if signed != (c.want == "") || !strings.Contains(err.Error(), c.want) || errors.Is(err, broken) != (c.err != nil) {
				t.Errorf("signed %v, %v", signed, err)
			}
		})
	}
	if _, err := Read(t.Context(), dir, Options{}); err != nil {
		t.Errorf("where nobody can be asked: %v", err)
	}
}
