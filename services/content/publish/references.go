package publish

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/resource"
)

// addresses writes every address of package.yaml in its one form.
func (d *document) addresses(s *spec) (problems []error) {
	canonical := func(where, what string, text *string) {
		if *text == "" {
			return // Check says so where there must be one
		}
		r, err := parseAddress(*text)
		if err != nil {
			problems = append(problems, source{doc: d}.problem(where, fmt.Errorf("%s %w", what, err)))
			return
		}
		*text = r.String()
	}
	canonical("$.source", "source", &s.Source)
	if strings.HasPrefix(s.Source, resource.HTTPS+"://") && s.Files == nil {
		problems = append(problems, d.At("$.source", "source: what lies below an https address cannot be listed: list the files under files"))
	}
	for _, name := range sortedPrograms(events.Manifest{Programs: s.Programs}) {
		references := s.Programs[name].References
		for i := range references {
			canonical(fmt.Sprintf("$.programs.'%s'.references[%d].url", name, i), fmt.Sprintf("program %s: reference %d", name, i+1), &references[i].URL)
		}
	}
	return problems
}

// private is an error about what may hold a password, which is not quoted.
type private struct{ error }

func (p private) Unwrap() error { return p.error }

// parseAddress reads an address that a package may name.
func parseAddress(text string) (resource.Resource, error) {
	r, err := resource.Parse(text)
	if err == nil {
		err = manifest.ValidAddress(r)
	}
	switch {
	case err == nil:
		return r, nil
	case strings.Contains(text, "@"):
		return r, private{err}
	case strings.HasPrefix(text, `\`) && !strings.HasPrefix(text, `\\`):
		return r, fmt.Errorf(`%w; between double quotes YAML makes one \ of two: use single quotes`, err)
	}
	return r, err
}

// checkReferences holds the references that are pinned against what lies there now. One that cannot be read is told of: the
// machines may reach what the administrator does not.
func (s source) checkReferences(ctx context.Context, m events.Manifest) (notes []string, err error) {
	var problems []error
	known := map[string]string{} // digest by address
	for _, name := range sortedPrograms(m) {
		for i, ref := range m.Programs[name].References {
			if ref.SHA256 == "" {
				continue
			}
			digest, ok := known[ref.URL]
			if !ok {
				at, err := resource.Parse(ref.URL)
				if err != nil {
					return nil, err
				}
				f, err := s.outside.describe(ctx, at, at.Shown())
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				if err != nil {
					notes = append(notes, fmt.Sprintf("program %s: %s", name, uncheckedNote(at, err)))
				}
				digest = f.SHA256
				known[ref.URL] = digest
			}
			if digest != "" && digest != ref.SHA256 {
				where := fmt.Sprintf("$.programs.'%s'.references[%d].sha256", name, i)
				problems = append(problems, s.problem(where, fmt.Errorf("program %s: %s has the sha256 %s now, which is another", name, resource.Shown(ref.URL), digest)))
			}
		}
	}
	return notes, errors.Join(problems...)
}

// uncheckedNote says that a pin was not held against the file, and why: err mostly names the file and the way out itself.
func uncheckedNote(at resource.Resource, err error) string {
	text := naming(at, "read", err).Error()
	if !strings.Contains(text, "--source-user") {
		text += "; --source-user says who reads it"
	}
	return "a sha256 was not checked: " + text
}

// leftNotes tell of files beside package.yaml that are not the package's, whose files are read elsewhere.
func (s source) leftNotes(ctx context.Context, m events.Manifest) []string {
	names, err := s.walk(ctx)
	if err != nil {
		return nil
	}
	left := slices.DeleteFunc(names, func(n string) bool {
		return slices.ContainsFunc(m.Files, func(f events.File) bool { return f.Path == n })
	})
	if len(left) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s beside %s is not in the package, whose files are those at %s", left[0], SpecName, resource.Shown(m.Source))}
}

// outsideNotes tell what comes of content and references that are not on distribution points.
func outsideNotes(m events.Manifest) (notes []string) {
	if r, err := resource.Parse(m.Source); err == nil && r.Scheme == resource.File && r.Host == "" {
		notes = append(notes, fmt.Sprintf("source %s is on each machine's own disk: the files must be there, the same on all of them", r))
	}
	for _, name := range sortedPrograms(m) {
		for _, text := range programNotes(m, m.Programs[name]) {
			notes = append(notes, "program "+name+": "+text)
		}
	}
	return notes
}

func programNotes(m events.Manifest, p events.Program) (notes []string) {
	administrative, references, content := p.Run == events.RunAdministrative, len(p.References) > 0, manifest.External(m)
	if administrative && p.InstallationAccount == "" && (content || references) {
		what := "its content is on an external source"
		if !content {
			what = "its references are on external sources"
		}
		notes = append(notes, what+": on legacy clients it fails ("+string(events.NoNetworkIdentity)+") unless an installation-account is named")
	}
	if !administrative && references {
		notes = append(notes, "a program with run: user reads its references by its user's own means: the variable CHANDLER_NET is not there")
	}
	if !administrative && (content || references) && overHTTPS(m, p) {
		notes = append(notes, "users have no login for https: for a program with run: user it is read without one")
	}
	if unpinned := unverified(p); len(unpinned) > 0 {
		notes = append(notes, "read unverified while it runs, whatever lies there then: "+strings.Join(unpinned, ", ")+"; a file can be pinned by its sha256")
	}
	if administrative {
		notes = append(notes, unreferenced(p)...)
	}
	return notes
}

// overHTTPS says whether a program needs anything over https.
func overHTTPS(m events.Manifest, p events.Program) bool {
	is := func(address string) bool { return strings.HasPrefix(address, resource.HTTPS+"://") }
	return is(m.Source) || slices.ContainsFunc(m.Files, func(f events.File) bool { return is(f.Source) }) ||
		slices.ContainsFunc(p.References, func(r events.Reference) bool { return is(r.URL) })
}

func unverified(p events.Program) (shown []string) {
	for _, address := range manifest.Unpinned(p) {
		shown = append(shown, resource.Shown(address))
	}
	return shown
}

// onShares are the shares that a word of a command names.
var onShares = regexp.MustCompile(`(?:smb://|\\\\)[A-Za-z0-9][A-Za-z0-9._-]*[\\/][^"'<>|;\n]+`)

// unreferenced tells of what an administrator's command names on shares and does not list: nobody lends it an account.
func unreferenced(p events.Program) (notes []string) {
	for _, named := range onShares.FindAllString(strings.Join(words(p.Command), "\n"), -1) {
		at, err := resource.Parse(strings.TrimRight(named, `\/`))
		if err != nil || slices.ContainsFunc(p.References, func(r events.Reference) bool { return resource.Covers(r.URL, at.String()) }) {
			continue
		}
		notes = append(notes, fmt.Sprintf("its command names %s, which is none of its references: nobody reads it for the program", at.Shown()))
	}
	if len(p.References) == 0 && strings.Contains(p.Command.String(), "CHANDLER_NET") {
		notes = append(notes, "its command names CHANDLER_NET, which is there for programs with references only")
	}
	return notes
}
