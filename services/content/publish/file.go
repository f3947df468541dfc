package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/msi"
	"chandler/services/content/debfile"
	"chandler/services/content/rpmfile"
)

// readFile makes a package of one file, with the programs that its kind has.
func readFile(ctx context.Context, path string, o Options) (*Plan, error) {
	if o.Run == "" {
		return nil, fmt.Errorf("%s: %w", path, ErrNoRun)
	}
	if len(o.Mounted) > 0 {
		return nil, fmt.Errorf("%s: one file is published as it is: for external sources write a %s", path, SpecName)
	}
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	src := source{root: root, dir: dir, reading: o.Reading}
	if err := manifest.ValidPath(name); err != nil {
		return nil, err
	}
	file, err := src.describe(ctx, name)
	if err != nil {
		return nil, err
	}
	i, err := inferFrom(root, file, o.Run)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m := events.Manifest{API: manifest.API, Package: firstOf(o.Name, packageName(i.name)), Version: firstOf(o.Version, i.version),
		Publisher: i.publisher, Comment: i.comment, Files: []events.File{file}, Programs: i.programs, Published: o.Now()}
	if err := manifest.Join(manifest.Check(m)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if o.Expression != nil {
		for _, p := range m.Programs {
			if err := o.Expression(p.AppliesIf); p.AppliesIf != "" && err != nil {
				return nil, fmt.Errorf("%s: applies-if %q: %w", path, p.AppliesIf, err)
			}
		}
	}
	if o.Version == "" {
		i.notes = append(i.versionNotes, i.notes...)
	}
	return newPlan(m, dir, append(i.notes, src.contextNotes(ctx, m)...), o.Seal)
}

// inferred is what a file says of itself.
type inferred struct {
	name, version, publisher, comment string
	programs                          map[string]events.Program
	notes                             []string
	versionNotes                      []string // on the inferred version: of no interest where another is given
}

func inferFrom(root *os.Root, file events.File, run events.RunMode) (inferred, error) {
	f, err := root.Open(file.Path)
	if err != nil {
		return inferred{}, err
	}
	defer f.Close()
	switch strings.ToLower(filepath.Ext(file.Path)) {
	case ".deb":
		return inferDeb(f, file.Path, run)
	case ".rpm":
		return inferRpm(f, file.Path, run)
	case ".msi":
		return inferMSI(f, file, run)
	}
	return inferScript(f, file, run)
}

// programs are an installation and the removal that undoes it; only administrators' ones are for one OS's package tools.
func programs(run events.RunMode, install, remove []string, detect events.Detect, appliesIf string) map[string]events.Program {
	return map[string]events.Program{
		"install": {Command: events.Command{Argv: install}, Run: run, AppliesIf: appliesIf, Detect: []events.Detect{detect}},
		"remove":  {Command: events.Command{Argv: remove}, Run: run, AppliesIf: appliesIf, Undoes: "install"},
	}
}

// onLinux is the applies-if of a Linux package; an architecture that we have no word for is left to the package tool.
func onLinux(arch string, words map[string]string) string {
	if word := words[arch]; word != "" {
		return fmt.Sprintf(`agent.os == "linux" && agent.arch == %q`, word)
	}
	return `agent.os == "linux"`
}

func inferDeb(r io.Reader, name string, run events.RunMode) (inferred, error) {
	d, err := debfile.Read(r, debfile.DefaultLimit)
	if err != nil {
		return inferred{}, err
	}
	return inferred{name: d.Package, version: d.Version, publisher: d.Maintainer, comment: d.Description,
		programs: programs(run, []string{"dpkg", "-i", name}, []string{"dpkg", "-r", d.Package},
			events.Detect{Dpkg: d.Package, Version: ">= " + d.Version},
			onLinux(d.Architecture, map[string]string{"amd64": "amd64", "arm64": "arm64", "i386": "386", "armhf": "arm"})),
	}, nil
}

func inferRpm(r io.Reader, name string, run events.RunMode) (inferred, error) {
	p, err := rpmfile.Read(r)
	if err != nil {
		return inferred{}, err
	}
	version := p.Version + "-" + p.Release
	if p.Epoch != 0 {
		version = fmt.Sprintf("%d:%s", p.Epoch, version)
	}
	i := inferred{name: p.Name, version: version, publisher: p.Vendor, comment: p.Summary,
		programs: programs(run, []string{"rpm", "-U", name}, []string{"rpm", "-e", p.Name},
			events.Detect{Rpm: p.Name, Version: ">= " + version},
			onLinux(p.Arch, map[string]string{"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7hl": "arm"})),
	}
	i.plainVersion()
	return i, nil
}

func inferMSI(f io.ReaderAt, file events.File, run events.RunMode) (inferred, error) {
	info, err := msi.Read(f, file.Size)
	if err != nil {
		return inferred{}, err
	}
	const appliesIf = `agent.os == "windows"`
	install := events.Program{Command: events.Command{Argv: msi.InstallCommand(file.Path)}, Run: run, AppliesIf: appliesIf}
	notes, err := completeInstall(&install, info)
	if err != nil {
		return inferred{}, err
	}
	i := inferred{name: info.ProductName, version: info.ProductVersion, publisher: info.Manufacturer, programs: map[string]events.Program{
		"install": install,
		"remove": {Command: events.Command{Argv: msi.UninstallCommand(info.ProductCode)}, Run: run, AppliesIf: appliesIf, Undoes: "install",
			ReturnCodes: map[int]string{1605: "success", 1614: "success"}}, // it is not there
		// Without detection, which would find the product and nothing to do.
		"repair": {Command: events.Command{Argv: msi.RepairCommand(file.Path)}, Run: run, AppliesIf: appliesIf, Repairs: "install"},
	}}
	for _, note := range notes {
		i.notes = append(i.notes, "program install: "+note)
	}
	i.plainVersion()
	return i, nil
}

// maxScript bounds a script that is published by itself, in bytes.
const maxScript = 16 << 20

func inferScript(r io.Reader, file events.File, run events.RunMode) (inferred, error) {
	head := make([]byte, 256)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return inferred{}, fmt.Errorf("the file is empty or cannot be read: %w", err)
	}
	var argv []string
	appliesIf := `agent.os != "windows"`
	switch ext := strings.ToLower(filepath.Ext(file.Path)); {
	case file.Size > maxScript:
	case ext == ".ps1":
		argv, appliesIf = []string{"powershell", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File", file.Path}, `agent.os == "windows"`
	case ext == ".cmd" || ext == ".bat":
		argv, appliesIf = []string{"cmd", "/d", "/c", file.Path}, `agent.os == "windows"`
	case bytes.HasPrefix(head[:n], []byte("#!")) || ext == ".sh":
		argv = scriptCommand(head[:n], file.Path)
	}
	if argv == nil {
		return inferred{}, fmt.Errorf("cannot tell how to run it: known are .deb, .rpm, .msi, .ps1, .cmd, .bat, .sh and scripts that begin with #!; for anything else write a %s beside it", SpecName)
	}
	base := strings.TrimSuffix(file.Path, filepath.Ext(file.Path))
	i := inferred{name: base, version: "0-" + file.SHA256[:12],
		programs: map[string]events.Program{"install": {Command: events.Command{Argv: argv}, Run: run, AppliesIf: appliesIf}}}
	i.versionNotes = []string{"a script has no version: without one given it is named by the digest of its bytes, " + i.version}
	i.notes = []string{"a script has no detection and no removal: write a " + SpecName + " to give it both"}
	return i, nil
}

// scriptCommand runs a script by the interpreter of its first line, so that its mode does not matter; sh where it names none.
func scriptCommand(head []byte, path string) []string {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	if rest, ok := bytes.CutPrefix(line, []byte("#!")); ok {
		// The kernel passes everything after the interpreter as one argument.
		interpreter, argument, _ := strings.Cut(strings.TrimSpace(string(rest)), " ")
		if argument = strings.TrimSpace(argument); argument != "" {
			return []string{interpreter, argument, path}
		}
		if interpreter != "" && interpreter != "/bin/sh" {
			return []string{interpreter, path}
		}
	}
	return []string{"sh", path}
}

var notInVersion = regexp.MustCompile(`[^A-Za-z0-9._+:~-]`)

// plainVersion replaces what a package's version may not have, for instance rpm's ^.
func (i *inferred) plainVersion() {
	if plain := notInVersion.ReplaceAllString(i.version, "+"); plain != i.version {
		i.versionNotes = append(i.versionNotes, fmt.Sprintf("version %s is published as %s", i.version, plain))
		i.version = plain
	}
}

var notInName = regexp.MustCompile(`[^a-z0-9._+-]+`)

// packageName makes a package's name of a product's.
func packageName(s string) string {
	return strings.Trim(notInName.ReplaceAllString(strings.ToLower(s), "-"), "-._+")
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
