package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/msi"
)

// completeMSI completes the programs that install an .msi of the package: with its product code and detection by it, with a
// log, and those of administrators with what makes them install for the whole machine. Under LocalSystem such a package may
// otherwise install itself into a profile that nobody ever sees (package msi). The notes say what was added.
func (s source) completeMSI(ctx context.Context, m *events.Manifest) ([]string, error) {
	var notes []string
	for _, name := range sortedPrograms(*m) {
		p := m.Programs[name]
		more, err := s.completeProgram(ctx, &p, *m)
		if err != nil {
			return nil, s.problem("$.programs.'"+name+"'.command", fmt.Errorf("program %s: %w", name, err))
		}
		m.Programs[name] = p
		for _, note := range more {
			notes = append(notes, "program "+name+": "+note)
		}
	}
	return notes, nil
}

func (s source) completeProgram(ctx context.Context, p *events.Program, m events.Manifest) ([]string, error) {
	if p.Shell != "" {
		return s.completeShell(ctx, p, m)
	}
	if !msi.Installs(words(p.Command)) {
		return nil, nil
	}
	if file := msiOf(*p, m.Files); file != nil {
		info, err := s.readMSI(ctx, m, *file)
		if err != nil {
			return nil, fmt.Errorf("it installs %s: %w", file.Path, err)
		}
		return completeInstall(p, info)
	}
	switch { // what it installs is not here to be looked at
	case p.Run == events.RunAdministrative && p.MSIScope == events.MSIScopeMachine:
		note, err := completeScope(p, msi.Info{})
		if err != nil {
			return nil, err
		}
		return said(note, completeLog(p)), nil
	case p.Run == events.RunAdministrative && p.MSIScope == "" && msi.Lands(words(p.Command), msi.Info{}) != msi.ForMachine:
		return []string{"the .msi that it installs is not in the package, so that its command is not completed: say msi-scope: machine, or it may install for the system account alone"}, nil
	}
	return nil, nil
}

// completeShell looks at a command that is a shell's to understand, and changes nothing in it.
func (s source) completeShell(ctx context.Context, p *events.Program, m events.Manifest) ([]string, error) {
	files := m.Files
	line := strings.ToLower(strings.ReplaceAll(p.Command.Line, `\`, "/"))
	at := slices.IndexFunc(files, func(f events.File) bool {
		return strings.EqualFold(filepath.Ext(f.Path), ".msi") && strings.Contains(line, strings.ToLower(f.Path))
	})
	if at < 0 || !strings.Contains(line, "msiexec") {
		return nil, nil
	}
	info, err := s.readMSI(ctx, m, files[at])
	if err != nil {
		return nil, fmt.Errorf("its command names %s: %w", files[at].Path, err)
	}
	p.Product = info.ProductCode // if that ends in the wrong profile the agent can tell
	if p.Run != events.RunAdministrative || p.MSIScope == events.MSIScopeAsAuthored {
		return nil, nil
	}
	return []string{fmt.Sprintf("a command for a shell is not completed: if it installs %s, say ALLUSERS=1 in it, or it may install for the system account alone; its log belongs where the variable CHANDLER_LOG says", files[at].Path)}, nil
}

// completeInstall completes the command that installs the package info. An error is a contradiction in what the program says.
func completeInstall(p *events.Program, info msi.Info) (notes []string, err error) {
	p.Product = info.ProductCode
	note, err := completeScope(p, info)
	if err != nil {
		return nil, err
	}
	return said(note, completeLog(p), completeDetection(p, info)), nil
}

// said are the notes that say something.
func said(notes ...string) []string {
	return slices.DeleteFunc(notes, func(n string) bool { return n == "" })
}

// completeScope makes an administrator's command install for the whole machine, unless msi-scope or the command itself says
// otherwise, and says in MSIScope how it was left.
func completeScope(p *events.Program, info msi.Info) (note string, err error) {
	argv := words(p.Command)
	switch {
	case p.Run != events.RunAdministrative && p.MSIScope == events.MSIScopeMachine:
		return "", errors.New("msi-scope: machine needs more rights than users have: use run: administrative")
	case p.Run != events.RunAdministrative:
		return "", nil
	case p.MSIScope == events.MSIScopeAsAuthored:
		return "its command is left as it is and installs " + landing(msi.Lands(argv, info)), nil
	}
	completed := msi.MachineScope(argv, info)
	if lands := msi.Lands(completed, info); lands != msi.ForMachine {
		if p.MSIScope == events.MSIScopeMachine {
			return "", errors.New("msi-scope: machine, but its command says ALLUSERS or MSIINSTALLPERUSER otherwise: take one of them away")
		}
		p.MSIScope = events.MSIScopeAsAuthored
		return "its command says itself for whom it installs, which is " + landing(lands), nil
	}
	p.MSIScope = events.MSIScopeMachine
	added := completed[len(argv):]
	if len(added) == 0 {
		return "", nil
	}
	if p.Command.Line == "" {
		p.Command.Argv = completed
	} else {
		for _, property := range added {
			if strings.HasSuffix(property, "=") {
				property += `""` // as msiexec wants an empty value in a line
			}
			p.Command.Line += " " + property
		}
	}
	return sayAdded(added) + ", so that it installs for the whole machine and not for the system account alone", nil
}

func landing(l msi.Landing) string {
	switch l {
	case msi.ForMachine:
		return "for the whole machine"
	case msi.ForCaller:
		return "for the account that runs it alone, where no user sees it (it ends as installed_for_wrong_user)"
	}
	return "for whom its transform, patch or properties say, which cannot be told here"
}

// completeLog gives the command a log, unless it has one or is to be left alone.
func completeLog(p *events.Program) (note string) {
	at, ok := msi.LogPosition(words(p.Command))
	if !ok || p.MSIScope == events.MSIScopeAsAuthored {
		return ""
	}
	option := msi.LogOption()
	if p.Command.Line == "" {
		p.Command.Argv = slices.Insert(slices.Clone(p.Command.Argv), at, option...)
	} else {
		end := splitWords(p.Command.Line)[at-1].end
		p.Command.Line = p.Command.Line[:end] + " " + strings.Join(option, " ") + p.Command.Line[end:]
	}
	return sayAdded(option) + ": the agent puts the path of the run's own log there, to say what failed first"
}

func sayAdded(words []string) string { return strings.Join(words, " ") + " was added to its command" }

// completeDetection gives a program that says nothing of it detection by the product code.
func completeDetection(p *events.Program, info msi.Info) (note string) {
	switch {
	case len(p.Detect) > 0 || p.Undoes != "" || p.Repairs != "": // a repair would find nothing to do
		return ""
	case p.Run == events.RunUser && msi.Lands(words(p.Command), info) != msi.ForMachine:
		return "it has no detection: whether a product is there for one user cannot be found out by its product code"
	}
	p.Detect = []events.Detect{detectMSI(info)}
	return "it is detected by the product code " + info.ProductCode
}

// plainNumbers are versions of products as Windows Installer compares them.
var plainNumbers = regexp.MustCompile(`^[0-9]+(\.[0-9]+){0,3}$`)

// detectMSI asks for the version too: a small update keeps the product code.
func detectMSI(info msi.Info) events.Detect {
	d := events.Detect{MSI: info.ProductCode}
	if plainNumbers.MatchString(info.ProductVersion) {
		d.Version = ">= " + info.ProductVersion
	}
	return d
}

// readMSI reads what an .msi says of itself, where the file lies.
func (s source) readMSI(ctx context.Context, m events.Manifest, file events.File) (msi.Info, error) {
	if manifest.Outside(m, file) {
		f, err := s.outside.open(ctx, manifest.Address(m, file))
		if err != nil {
			return msi.Info{}, err
		}
		defer f.Close()
		return msi.Read(f, file.Size)
	}
	f, err := s.root.Open(filepath.FromSlash(file.Path))
	if err != nil {
		return msi.Info{}, err
	}
	defer f.Close()
	return msi.Read(io.ReaderAt(f), file.Size)
}

// msiOf is the .msi of the package that the program's command names.
func msiOf(p events.Program, files []events.File) *events.File {
	for _, word := range words(p.Command) {
		path := strings.TrimPrefix(strings.ReplaceAll(word, `\`, "/"), "./")
		for i, f := range files {
			if strings.EqualFold(filepath.Ext(path), ".msi") && strings.EqualFold(f.Path, path) {
				return &files[i]
			}
		}
	}
	return nil
}

func words(c events.Command) []string {
	if c.Line != "" {
		return splitLine(c.Line)
	}
	return c.Argv
}

// splitLine splits a line at spaces outside double quotes, which is enough to recognise words in it.
func splitLine(line string) []string {
	var texts []string
	for _, w := range splitWords(line) {
		texts = append(texts, w.text)
	}
	return texts
}

// word is one of a line, without its quotes.
type word struct {
	text       string
	start, end int // offsets in the line, with its quotes
}

func splitWords(line string) []word {
	var words []word
	var text strings.Builder
	quoted, start := false, -1
	for i, r := range line {
		if (r == ' ' || r == '\t') && !quoted {
			if start >= 0 {
				words = append(words, word{text.String(), start, i})
				text.Reset()
				start = -1
			}
			continue
		}
		if start < 0 {
			start = i
		}
		if r == '"' {
			quoted = !quoted
		} else {
			text.WriteRune(r)
		}
	}
	if start >= 0 {
		words = append(words, word{text.String(), start, len(line)})
	}
	return words
}
