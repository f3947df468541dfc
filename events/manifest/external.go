package manifest

import (
	"slices"

	"chandler/events"
	"chandler/events/resource"
)

// MaxResources bounds the addresses on external sources that one program needs: its source, commands and references.
const MaxResources = 256

// Address is where a file lies on an external source; "": on distribution points.
func Address(m events.Manifest, f events.File) string {
	if f.Source != "" || m.Source == "" {
		return f.Source
	}
	base, err := resource.Parse(m.Source)
	if err != nil {
		return m.Source // Check refuses such a manifest
	}
	return base.Join(f.Path).String()
}

// Outside says whether a file lies on an external source.
func Outside(m events.Manifest, f events.File) bool { return f.Source != "" || m.Source != "" }

// External says whether any file lies on an external source.
func External(m events.Manifest) bool {
	return slices.ContainsFunc(m.Files, func(f events.File) bool { return Outside(m, f) })
}

// Resources lists, sorted, the addresses on external sources that a program may be helped to read: where the package's
// files lie, and what the program refers to. An order names exactly these.
func Resources(m events.Manifest, program string) []string {
	var all []string
	if m.Source != "" {
		all = append(all, m.Source)
	}
	for _, f := range m.Files {
		if f.Source != "" {
			all = append(all, f.Source)
		}
	}
	for _, r := range m.Programs[program].References {
		all = append(all, r.URL)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Unpinned lists the references of a program that may be anything when they are read: folders, and files without a digest.
func Unpinned(p events.Program) []string {
	var loose []string
	for _, r := range p.References {
		if r.SHA256 == "" {
			loose = append(loose, r.URL)
		}
	}
	return loose
}
