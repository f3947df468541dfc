package publish

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"chandler/events"
	"chandler/events/msi"
)

// contextNotes tell of programs that will hardly do in the context they ask for what they are meant to do.
func (s source) contextNotes(ctx context.Context, m events.Manifest) (notes []string) {
	for _, name := range sortedPrograms(m) {
		p := m.Programs[name]
		if what := s.needsRights(ctx, p, m); p.Run == events.RunUser && what != "" {
			notes = append(notes, fmt.Sprintf("program %s: to install %s needs more rights than users have; use run: administrative", name, what))
		}
		if p.After == events.AfterProgramRestarts && !detectable(p, m) {
			notes = append(notes, fmt.Sprintf("program %s: if it restarts the machine before it ends nobody can tell how it ended: give it detect", name))
		}
		if p.MSIScope != "" && p.Product == "" && !msi.Installs(words(p.Command)) {
			notes = append(notes, fmt.Sprintf("program %s: msi-scope has no effect: its command installs no .msi by msiexec", name))
		}
		if p.Run == events.RunAdministrative && p.Interactive {
			notes = append(notes, fmt.Sprintf("program %s: a program with the machine's rights shown to a user is an opening: whatever it lets users open has its rights", name))
		}
	}
	return notes
}

// detectable says whether detection can tell that the program has done its work; what undoes another has the other's rules.
func detectable(p events.Program, m events.Manifest) bool {
	return len(p.Detect) > 0 || len(m.Programs[p.Undoes].Detect) > 0
}

// needsRights names what the command installs that no typical user may install; "" where nothing like that is seen.
func (s source) needsRights(ctx context.Context, p events.Program, m events.Manifest) string {
	for _, word := range words(p.Command) {
		switch strings.ToLower(filepath.Ext(word)) {
		case ".deb":
			return "a .deb"
		case ".rpm":
			return "an .rpm"
		}
	}
	file, argv := msiOf(p, m.Files), words(p.Command)
	if file == nil || !msi.Installs(argv) {
		return ""
	}
	// One that cannot be read is refused by who takes more from it than a note.
	if info, err := s.readMSI(ctx, m, *file); err == nil && msi.Lands(argv, info) == msi.ForMachine {
		return "an .msi for the whole machine"
	}
	return ""
}
