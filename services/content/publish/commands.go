package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/resource"
)

// mention is a word of a program's command that names a file on an external source, which becomes one of the package's.
type mention struct {
	program string
	word    int // of the command
	at      resource.Resource
	path    string // in the package
}

// completeCommands reads the files that commands name by their address: the program itself, and what msiexec is given. They
// become files of the package, and the commands name those. The notes say what was completed.
func (s source) completeCommands(ctx context.Context, m *events.Manifest, files []found) ([]found, []string, error) {
	var mentions []mention
	var problems []error
	for _, name := range sortedPrograms(*m) {
		more, err := mentioned(name, m.Programs[name])
		if err != nil {
			problems = append(problems, s.commandProblem(name, err))
		}
		mentions = append(mentions, more...)
	}
	if len(problems) > 0 {
		return nil, nil, errors.Join(problems...)
	}
	if err := place(mentions, *m, files); err != nil {
		return nil, nil, s.commandProblem(err.program, err)
	}
	files, err := s.readMentioned(ctx, mentions, *m, files)
	if err != nil {
		return nil, nil, err
	}
	var notes []string
	for _, x := range slices.Backward(mentions) { // from behind, so that offsets in lines stay
		p := m.Programs[x.program]
		if err := rewrite(&p.Command, x); err != nil {
			return nil, nil, s.commandProblem(x.program, err)
		}
		m.Programs[x.program] = p
		notes = append(notes, fmt.Sprintf("program %s: its command names %s now, which is read from %s and pinned; what that needs beside itself belongs to the package's files (source), or to references",
			x.program, x.path, x.at.Shown()))
	}
	slices.Reverse(notes)
	return files, notes, nil
}

func (s source) commandProblem(program string, err error) error {
	return s.problem("$.programs.'"+program+"'.command", fmt.Errorf("program %s: %w", program, err))
}

// address is how a word begins that names something on an external source. \\?\ and \\.\ are the machine's own.
var address = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*://|\\\\[^?.\\])`)

// mentioned are the words of a command that name files to be read at publish. What a shell will read is left to it.
func mentioned(name string, p events.Program) (mentions []mention, err error) {
	if p.Shell != "" {
		return nil, nil
	}
	all := words(p.Command)
	for i, w := range all {
		if !address.MatchString(w) || i > 0 && !(isMSIExec(all[0]) && installs(w)) {
			continue
		}
		at, err := parseAddress(w)
		share, rest := at.Share()
		switch {
		case err != nil:
			return nil, fmt.Errorf("the file that its command names %w", err)
		case rest == "" && at.Scheme != resource.HTTPS && at.Host != "":
			return nil, fmt.Errorf("%s is the share %s, not a file on it", at.Shown(), share)
		case i == 0 && installs(w):
			return nil, fmt.Errorf("%s is no program: write msiexec /i before it", at.Shown())
		case i > 0 && p.WorkingDirectory != "":
			return nil, fmt.Errorf("%s becomes a file of the package, named from its directory: take working-directory away", at.Shown())
		}
		mentions = append(mentions, mention{program: name, word: i, at: at})
	}
	return mentions, nil
}

func isMSIExec(program string) bool {
	base := strings.ToLower(program[strings.LastIndexAny(program, `\/`)+1:])
	return base == "msiexec" || base == "msiexec.exe"
}

// installs says whether a word names what msiexec opens.
func installs(w string) bool {
	ext := strings.ToLower(path.Ext(w))
	return ext == ".msi" || ext == ".msp"
}

// clash is two files that would have one path.
type clash struct{ program, text string }

func (c *clash) Error() string { return c.text }

// place gives every file that commands name a path in the package: where the package's source has it, or its own name. Where
// that is taken the folders around it are put before it, as many as tell it from all others. The same package always comes
// out the same.
func place(mentions []mention, m events.Manifest, files []found) *clash {
	base, _ := resource.Parse(m.Source)
	taken := map[string]string{} // by lower-case path
	for _, f := range files {
		taken[strings.ToLower(f.Path)] = f.Path
	}
	var own []resource.Resource // each once
	for i, x := range mentions {
		switch {
		case m.Source != "" && x.at.Within(base) && len(x.at.Path) > len(base.Path):
			name := x.at.Path[len(base.Path)+1:]
			mentions[i].path = cmp.Or(taken[strings.ToLower(name)], name)
			taken[strings.ToLower(name)] = mentions[i].path
		case sameAs(own, x.at) < 0:
			own = append(own, x.at)
		}
	}
	depth := make([]int, len(own))
	for i := range depth {
		depth[i] = 1
	}
	for {
		count := map[string]int{}
		for i := range own {
			count[strings.ToLower(tail(own[i], depth[i]))]++
		}
		again := false
		for i := range own {
			name := strings.ToLower(tail(own[i], depth[i]))
			if _, there := taken[name]; !there && count[name] == 1 {
				continue
			}
			if depth[i]++; depth[i] > strings.Count(own[i].Path, "/") {
				return clashOf(mentions, own[i])
			}
			again = true
		}
		if !again {
			break
		}
	}
	for i, x := range mentions {
		if x.path == "" {
			at := sameAs(own, x.at)
			mentions[i].at, mentions[i].path = own[at], tail(own[at], depth[at])
		}
	}
	return nil
}

func clashOf(mentions []mention, at resource.Resource) *clash {
	i := slices.IndexFunc(mentions, func(x mention) bool { return x.at == at })
	return &clash{mentions[i].program, fmt.Sprintf("%s would have the path of another file of the package, with all its folders before it too: put one of them into the package's own files", at.Shown())}
}

// sameAs is the index of an address among others, whatever its letter case where that does not matter; -1: it is none of them.
func sameAs(all []resource.Resource, at resource.Resource) int {
	return slices.IndexFunc(all, func(other resource.Resource) bool { return at.Within(other) && other.Within(at) })
}

// tail is the last parts of a path.
func tail(r resource.Resource, parts int) string {
	all := strings.Split(strings.TrimPrefix(r.Path, "/"), "/")
	return strings.Join(all[len(all)-parts:], "/")
}

// readMentioned adds the files that commands name to those of the package, each once.
func (s source) readMentioned(ctx context.Context, mentions []mention, m events.Manifest, files []found) ([]found, error) {
	there := map[string]bool{}
	for _, f := range files {
		there[f.Path] = true
	}
	for _, x := range mentions {
		if there[x.path] {
			continue
		}
		there[x.path] = true
		if err := manifest.ValidPath(x.path); err != nil {
			return nil, s.commandProblem(x.program, err)
		}
		f, err := s.outside.describe(ctx, x.at, x.path)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, s.commandProblem(x.program, err)
		}
		f.Source = x.at.String()
		if base, err := resource.Parse(m.Source); err == nil && base.Join(x.path) == x.at {
			f.Source = ""
		}
		files = append(files, found{File: f, where: "$.programs.'" + x.program + "'.command"})
	}
	slices.SortStableFunc(files, func(a, b found) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// plain are paths that are one word in a line on every operating system, in quotes where there are blanks.
var plain = regexp.MustCompile(`^[^"\\$` + "`" + `]*$`)

// rewrite puts the path in the package for the word that a command has.
func rewrite(c *events.Command, x mention) error {
	name := x.path
	if x.word > 0 {
		name = strings.ReplaceAll(name, "/", `\`) // it is msiexec's
	}
	if c.Line == "" {
		c.Argv = slices.Clone(c.Argv)
		c.Argv[x.word] = name
		return nil
	}
	if !plain.MatchString(x.path) {
		return fmt.Errorf("the name %q has characters that mean something in a line: write the command as a list", x.path)
	}
	w := splitWords(c.Line)[x.word]
	if strings.ContainsAny(name, " \t'") {
		name = `"` + name + `"`
	}
	c.Line = c.Line[:w.start] + name + c.Line[w.end:]
	return nil
}
