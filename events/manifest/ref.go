package manifest

import (
	"fmt"
	"strings"

	"chandler/events"
	"chandler/events/versions"
)

// Ref is a program of a package.
type Ref struct{ Package, Version, Program string }

// ParseRef reads "package@version/program", or the name of a program of the package m itself.
func ParseRef(text string, m events.Manifest) (Ref, error) {
	name, rest, ok := strings.Cut(text, "@")
	if !ok {
		if err := events.ValidToken(text); err != nil {
			return Ref{}, fmt.Errorf("%.200q is neither package@version/program nor a program of this package", text)
		}
		return Ref{m.Package, m.Version, text}, nil
	}
	version, program, _ := strings.Cut(rest, "/")
	if events.ValidPackage(name) != nil || events.ValidVersion(version) != nil || events.ValidToken(program) != nil {
		return Ref{}, fmt.Errorf("%.200q: write package@version/program, for instance runtime@4.2/install", text)
	}
	return Ref{name, version, program}, nil
}

func (r Ref) String() string { return r.Package + "@" + r.Version + "/" + r.Program }

// Supersedes says whether a package takes the place of a version of one: never of its own.
func Supersedes(m events.Manifest, name, version string) bool {
	if m.Package == name && m.Version == version {
		return false
	}
	for _, s := range m.Supersedes {
		if s.Package != name {
			continue
		}
		if ok, err := versions.Satisfies(version, s.Version); ok && err == nil {
			return true
		}
	}
	return false
}
