package publish

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"chandler/events"
	"chandler/events/msi"
)

// completeMSI completes the commands of administrative programs that install an .msi of the package: under LocalSystem such
// a package may otherwise install itself into a profile that nobody ever sees (package msi). The notes say what was added.
func (s source) completeMSI(m *events.Manifest) ([]string, error) {
	var notes []string
	for _, name := range sortedPrograms(*m) {
		p := m.Programs[name]
		if p.Run != events.RunAdministrative || p.Shell != "" {
			continue
		}
		file := msiOf(p, m.Files)
		if file == nil {
			continue
		}
		info, err := s.readMSI(*file)
		if err != nil {
			return nil, s.problem("$.programs.'"+name+"'.command", fmt.Errorf("program %s installs %s: %w", name, file.Path, err))
		}
		if note := completeCommand(name, &p, info); note != "" {
			m.Programs[name] = p
			notes = append(notes, note)
		}
	}
	return notes, nil
}

func (s source) readMSI(file events.File) (msi.Info, error) {
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

// completeCommand changes the program of an administrator only, and says how in one sentence; "" where nothing was to be done.
func completeCommand(name string, p *events.Program, info msi.Info) string {
	if p.Run != events.RunAdministrative {
		return ""
	}
	argv := words(p.Command)
	completed := msi.MachineScope(argv, info)
	added := completed[min(len(argv), len(completed)):]
	if len(added) == 0 {
		return ""
	}
	if p.Command.Line != "" {
		p.Command.Line += " " + strings.Join(added, " ")
	} else {
		p.Command.Argv = completed
	}
	return fmt.Sprintf("program %s: %s was added to the command, so that it installs for the whole machine and not for the system account alone", name, strings.Join(added, " "))
}

func words(c events.Command) []string {
	if c.Line != "" {
		return splitLine(c.Line)
	}
	return c.Argv
}

// splitLine splits a line at spaces outside double quotes, which is enough to recognise words in it.
func splitLine(line string) []string {
	var words []string
	var word strings.Builder
	quoted, begun := false, false
	for _, r := range line {
		switch {
		case r == '"':
			quoted, begun = !quoted, true
		case (r == ' ' || r == '\t') && !quoted:
			if begun {
				words = append(words, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}
