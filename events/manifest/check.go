package manifest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"chandler/events"
)

// Limits of one package.
const (
	MaxFiles    = 10_000
	MaxPrograms = 100
	MaxPath     = 512     // bytes of a file's path
	MaxText     = 8 << 10 // bytes of any command, expression, script or comment
	MaxList     = 256     // arguments, variables, detection rules or return codes of one program
)

// Problem is one thing wrong with a package.
type Problem struct {
	// Where is the path of the value as YAML has it, for instance "$.programs.install.run": the same key in
	// package.yaml and in the manifest. Programs' names in it are quoted.
	Where string
	Text  string // what is wrong and what would be right
}

func (p Problem) Error() string { return p.Text }

// Join makes one error of problems; nil of none.
func Join(problems []Problem) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// Check says everything that is wrong with a manifest, in the order of its parts. Expressions are checked
// by whoever can compile them.
func Check(m events.Manifest) []Problem {
	c := checker{}
	if m.API != API {
		c.add("$.api", "api %q: this version knows %q", m.API, API)
	}
	c.err("$.package", events.ValidPackage(m.Package))
	c.err("$.version", events.ValidVersion(m.Version))
	c.text("$.publisher", "publisher", m.Publisher)
	c.text("$.comment", "comment", m.Comment)
	c.category(m.Category)
	c.files(m.Files)
	c.sources(m)
	c.programs(m)
	c.cycles(m)
	c.supersedes(m)
	return c.problems
}

type checker struct{ problems []Problem }

func (c *checker) add(where, format string, args ...any) {
	c.problems = append(c.problems, Problem{Where: where, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) err(where string, err error) {
	if err != nil {
		c.add(where, "%s", err)
	}
}

func (c *checker) text(where, what, s string) {
	switch {
	case len(s) > MaxText:
		c.add(where, "%s has %d bytes, at most %d are allowed", what, len(s), MaxText)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		c.add(where, "%s is not text", what)
	}
}

func (c *checker) files(files []events.File) {
	if len(files) > MaxFiles {
		c.add("$.files", "%d files, at most %d are allowed: put them into an archive", len(files), MaxFiles)
		return
	}
	if !slices.IsSortedFunc(files, func(a, b events.File) int { return strings.Compare(a.Path, b.Path) }) {
		c.add("$.files", "files are not sorted by path")
	}
	seen := make(map[string]string, len(files)) // lower-case path or directory: as it is written
	sizes := make(map[string]int64, len(files))
	for i, f := range files {
		where := fmt.Sprintf("$.files[%d]", i)
		if err := ValidPath(f.Path); err != nil {
			c.err(where, err)
			continue
		}
		c.unique(where, f.Path, seen)
		c.content(where, f, sizes)
	}
	for i, f := range files {
		for dir := range parents(strings.ToLower(f.Path)) {
			if other, ok := seen[dir]; ok {
				c.add(fmt.Sprintf("$.files[%d]", i), "file %s lies in %s, which is a file itself", f.Path, other)
			}
		}
	}
}

func (c *checker) unique(where, path string, seen map[string]string) {
	switch other, ok := seen[strings.ToLower(path)]; {
	case ok && other == path:
		c.add(where, "file %s is listed twice", path)
	case ok:
		c.add(where, "files %s and %s differ only in case, which is one file on Windows", other, path)
	default:
		seen[strings.ToLower(path)] = path
	}
}

// content checks what a manifest says of a file's bytes.
func (c *checker) content(where string, f events.File, sizes map[string]int64) {
	if err := events.ValidDigest(f.SHA256); err != nil {
		c.add(where, "file %s: %s", f.Path, err)
	}
	if f.Size < 0 {
		c.add(where, "file %s: size %d is negative", f.Path, f.Size)
		return
	}
	if size, ok := sizes[f.SHA256]; ok && size != f.Size {
		c.add(where, "file %s: two sizes for the same digest", f.Path)
	}
	sizes[f.SHA256] = f.Size
	if f.Mode&^0o777 != 0 {
		c.add(where, "file %s: mode %#o has more than permission bits", f.Path, f.Mode)
	}
	blocks := int64(0)
	if f.Size > events.BlockSize {
		blocks = (f.Size-1)/events.BlockSize + 1
	}
	if int64(len(f.Blocks)) != blocks {
		c.add(where, "file %s: %d block digests for %d bytes, %d expected", f.Path, len(f.Blocks), f.Size, blocks)
	}
	for _, b := range f.Blocks {
		if err := events.ValidDigest(b); err != nil {
			c.add(where, "file %s: block %s", f.Path, err)
			return
		}
	}
}

// ValidPath checks a file's path: slash-separated, below the package's directory, and the same file on
// every operating system.
func ValidPath(path string) error {
	if path == "" || len(path) > MaxPath {
		return fmt.Errorf("file path %.80q must have 1 to %d bytes", path, MaxPath)
	}
	if !utf8.ValidString(path) || strings.ContainsFunc(path, func(r rune) bool { return unicode.IsControl(r) || r == '\\' || r == ':' }) {
		return fmt.Errorf(`file path %q: backslashes, colons and control characters are not allowed; directories are separated by "/"`, path)
	}
	if strings.HasPrefix(path, "/") {
		return fmt.Errorf("file path %q is absolute: it must be relative to the package's directory", path)
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "..":
			return fmt.Errorf("file path %q leaves the package's directory", path)
		case part == "" || part == ".":
			return fmt.Errorf(`file path %q has an empty or "." part: write it plainly`, path)
		case strings.HasSuffix(part, ".") || strings.HasSuffix(part, " "):
			return fmt.Errorf("file path %q: Windows drops the dot or space at the end of %q", path, part)
		}
	}
	return nil
}

// parents yields the directories of a path, innermost last.
func parents(path string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i, r := range path {
			if r == '/' && !yield(path[:i]) {
				return
			}
		}
	}
}

func (c *checker) programs(m events.Manifest) {
	switch {
	case len(m.Programs) == 0:
		c.add("$.programs", "package %s has no programs: name at least one under programs", m.Package)
	case len(m.Programs) > MaxPrograms:
		c.add("$.programs", "%d programs, at most %d are allowed", len(m.Programs), MaxPrograms)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m.Programs)) {
		where := "$.programs.'" + name + "'"
		if err := events.ValidToken(name); err != nil {
			c.add("$.programs", "program: %s", err)
			continue
		}
		c.program(where, name, m.Programs[name], m)
	}
}
