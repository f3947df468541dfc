package manifest

import (
	"fmt"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/resource"
)

// MaxReferences bounds the references of one program.
const MaxReferences = 64

// readable are the schemes that agents read.
var readable = []string{resource.SMB, resource.HTTPS, resource.File}

// ValidAddress says whether a package may name an address: agents read such ones, and it is no pattern.
func ValidAddress(r resource.Resource) error {
	switch {
	case !slices.Contains(readable, r.Scheme):
		return fmt.Errorf("%s: agents of this version do not read %s://, they read %s", r, r.Scheme, strings.Join(readable, ", "))
	case strings.Contains(r.Path, "*"):
		return fmt.Errorf("%s has a *: an address stands for all below it already", r.Shown())
	}
	return nil
}

// address checks one address as a manifest has it; ok: it may be looked at further.
func (c *checker) address(where, what, text string) (r resource.Resource, ok bool) {
	r, err := resource.Parse(text)
	if err == nil {
		err = ValidAddress(r)
	}
	if err == nil && r.String() != text {
		err = fmt.Errorf("%s is not written in its one form, %s", text, r)
	}
	if err != nil {
		c.add(where, "%s %s", what, err)
		return resource.Resource{}, false
	}
	return r, true
}

// sources checks where files lie on external sources.
func (c *checker) sources(m events.Manifest) {
	var base resource.Resource
	if m.Source != "" {
		var ok bool
		if base, ok = c.address("$.source", "source", m.Source); !ok {
			return
		}
		if len(m.Files) == 0 {
			c.add("$.source", "source %s: no file is read from there: list some under files, or leave source out", base.Shown())
		}
	}
	if len(m.Files) > MaxFiles {
		return
	}
	for i, f := range m.Files {
		where := fmt.Sprintf("$.files[%d]", i)
		if f.Source != "" {
			c.ownSource(where, f, base)
		} else if m.Source != "" && ValidPath(f.Path) == nil {
			c.address(where, "file "+f.Path, base.Join(f.Path).String())
		}
	}
}

// ownSource checks the address of one file, in a package whose other files lie below base, if anywhere outside.
func (c *checker) ownSource(where string, f events.File, base resource.Resource) {
	r, ok := c.address(where, "file "+f.Path, f.Source)
	if !ok {
		return
	}
	if share, rest := r.Share(); onShare(r) && rest == "" {
		c.add(where, "file %s: %s is the share %s, not a file on it", f.Path, r.Shown(), share)
	}
	if base != (resource.Resource{}) && r == base.Join(f.Path) {
		c.add(where, "file %s: it lies below the package's source anyway: it has no source of its own", f.Path)
	}
}

func onShare(r resource.Resource) bool {
	return r.Scheme == resource.SMB || r.Scheme == resource.File && r.Host != ""
}

// references checks what a program reads while it runs.
func (c *checker) references(where, name string, p events.Program) {
	where += ".references"
	if len(p.References) > MaxReferences {
		c.add(where, "program %s: %d references, at most %d are allowed: refer to the folder around them", name, len(p.References), MaxReferences)
		return
	}
	var seen []resource.Resource
	for i, ref := range p.References {
		here, what := fmt.Sprintf("%s[%d]", where, i), fmt.Sprintf("program %s: reference %d", name, i+1)
		if ref.SHA256 != "" {
			if err := events.ValidDigest(ref.SHA256); err != nil {
				c.add(here+".sha256", "%s %s", what, err)
			}
		}
		if ref.URL == "" {
			c.add(here, "%s has no url", what)
			continue
		}
		r, ok := c.address(here+".url", what, ref.URL)
		switch {
		case !ok:
			continue
		case r.Scheme == resource.File && r.Host == "":
			c.add(here+".url", "%s: %s lies on the machine itself, where the program reads it by its own rights: leave it out", what, r)
		case slices.ContainsFunc(seen, func(other resource.Resource) bool { return r.Within(other) && other.Within(r) }):
			c.add(here+".url", "%s: %s is listed twice", what, r.Shown())
		}
		seen = append(seen, r)
	}
}

// resources bounds what an order for the program names.
func (c *checker) resources(where, name string, m events.Manifest) {
	if n := len(Resources(m, name)); n > MaxResources {
		c.add(where, "program %s needs %d addresses on external sources (the package's files and its own references), at most %d are allowed: put the files below one source", name, n, MaxResources)
	}
}
