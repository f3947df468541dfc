package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/closure"
	"chandler/events/manifest"
)

// SpecName is the file that describes the package of its directory.
const SpecName = "package.yaml"

// ErrNoRun says that a package file was given without saying as whom it is installed.
var ErrNoRun = errors.New(`as whom is it installed? Choose run "user" (with the rights of whoever is logged on) or run "administrative"`)

// Options of Read.
type Options struct {
	// Run, Name and Version are for a package read from one file. Run is required there; Name and Version
	// replace what the file says of itself. With a directory they are an error: package.yaml says them.
	Run           events.RunMode
	Name, Version string
	// Expression checks an applies-if (CEL); nil: unchecked.
	Expression func(expression string) error
	// Published finds a package that is published, to check what this one depends on and removes; ok is false where there is
	// none. nil: the content service finds out when all is uploaded.
	Published func(ctx context.Context, name, version string) (m events.Manifest, ok bool, err error)
	// Outside reads external sources as the administrator; nil: nobody does, and packages that need it are refused.
	Outside Outside
	// Mounted says where external sources are mounted on this machine, by address: what lies below one is read from the
	// directory instead. "" is the package's source.
	Mounted map[string]string
	// Seal signs the manifest as a publisher and gives its envelope; it may ask for a passphrase. It is called
	// last, when nothing else can fail. nil: an envelope that nobody signed, to look at what would be published.
	Seal func(events.Manifest) ([]byte, error)
	// Reading is told of the bytes read so far of each file; may be nil.
	Reading func(path string, done, size int64)
	// Now is the time of publication; nil: the clock.
	Now func() time.Time
}

// Plan is a package, read and checked.
type Plan struct {
	Manifest events.Manifest
	Envelope []byte   // of the manifest, as it was signed
	Digest   string   // of Envelope: the package's name in signed orders
	Notes    []string // what the administrator should know and need not mend
	Blobs    []Blob   // the bytes of every file for distribution points, once, and the envelope as the last
}

// Blob is something to upload.
type Blob struct {
	events.BlobRef
	Path string // on this machine; empty: the envelope
}

// Size of all blobs in bytes.
func (p *Plan) Size() (n int64) {
	for _, b := range p.Blobs {
		n += b.Size
	}
	return n
}

// Read reads the package at path: a directory, its package.yaml, or one package file or script.
func Read(ctx context.Context, path string, o Options) (*Plan, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Reading == nil {
		o.Reading = func(string, int64, int64) {}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is not there: give a directory with a %s, or a .deb, .rpm, .msi or script file", path, SpecName)
	case err != nil:
		return nil, err
	case info.IsDir():
		return readDirectory(ctx, path, o)
	case filepath.Base(path) == SpecName:
		return readDirectory(ctx, filepath.Dir(path), o)
	}
	return readFile(ctx, path, o)
}

func readDirectory(ctx context.Context, dir string, o Options) (*Plan, error) {
	if o.Run != "" || o.Name != "" || o.Version != "" {
		return nil, fmt.Errorf("%s: run, name and version can be given for a single file only; here %s says them: change them there", dir, SpecName)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	doc, spec, err := readSpec(root, filepath.Join(dir, SpecName))
	if err != nil {
		return nil, err
	}
	m := spec.manifest(o.Now())
	out, err := newOutside(o, m.Source)
	if err != nil {
		return nil, err
	}
	defer out.close()
	src := source{root: root, dir: dir, doc: doc, reading: o.Reading, outside: out}
	files, notes, err := src.allFiles(ctx, &m, spec.Files)
	if err != nil {
		return nil, err
	}
	more, err := src.completeMSI(ctx, &m)
	if err != nil {
		return nil, err
	}
	problems := doc.errors(manifest.Check(m), files)
	problems = append(problems, doc.expressions(m, o.Expression)...)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if err := checkDependencies(ctx, m, o.Published); err != nil {
		return nil, fmt.Errorf("%s: %w", doc.name, err)
	}
	unread, err := src.checkReferences(ctx, m)
	if err != nil {
		return nil, err
	}
	return newPlan(m, dir, slices.Concat(notes, more, commandNotes(m), src.contextNotes(ctx, m), outsideNotes(m), unread), o.Seal)
}

// checkDependencies refuses a package that the content service would refuse, before anything is signed and sent. Two packages
// that supersede each other are left to the service, which knows them all.
func checkDependencies(ctx context.Context, m events.Manifest, published func(context.Context, string, string) (events.Manifest, bool, error)) error {
	if published == nil {
		return nil
	}
	var failed error
	err := closure.Check(m, func(name, version string) (events.Manifest, string, bool) {
		found, ok, err := published(ctx, name, version)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("find package %s %s: %w", name, version, err))
		}
		return found, "", ok && err == nil
	}, nil)
	if failed != nil {
		return failed
	}
	return err
}

// allFiles reads the files of the package, wherever they lie, and puts them into the manifest.
func (s source) allFiles(ctx context.Context, m *events.Manifest, listed []string) ([]found, []string, error) {
	var from folder = s
	if m.Source != "" {
		from = s.outside.below(m.Source)
	}
	files, notes, err := s.files(ctx, from, listed)
	if err != nil {
		return nil, nil, err
	}
	files, more, err := s.completeCommands(ctx, m, files)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		m.Files = append(m.Files, f.File)
	}
	if m.Source != "" {
		more = append(more, s.leftNotes(ctx, *m)...)
	}
	return files, slices.Concat(notes, more), nil
}

// newPlan seals the manifest and lists the blobs; the files' paths are below dir.
func newPlan(m events.Manifest, dir string, notes []string, seal func(events.Manifest) ([]byte, error)) (*Plan, error) {
	if seal == nil {
		seal = func(m events.Manifest) ([]byte, error) { return manifest.Seal(m) }
	}
	envelope, err := seal(m)
	if err != nil {
		return nil, fmt.Errorf("sign manifest of %s %s: %w", m.Package, m.Version, err)
	}
	sealed, err := manifest.Open(envelope) // what the server will see, and that it will take it
	if err != nil {
		return nil, err
	}
	if !manifest.Same(m, sealed) {
		return nil, fmt.Errorf("what was signed is not the manifest of %s %s", m.Package, m.Version)
	}
	p := &Plan{Manifest: sealed, Envelope: envelope, Digest: events.DigestOf(envelope), Notes: notes}
	paths := map[string]string{}
	for _, f := range sealed.Files {
		if manifest.Outside(sealed, f) {
			continue
		}
		paths[f.SHA256] = filepath.Join(dir, filepath.FromSlash(f.Path))
	}
	for _, b := range manifest.Blobs(sealed) {
		p.Blobs = append(p.Blobs, Blob{BlobRef: b, Path: paths[b.SHA256]})
	}
	p.Blobs = append(p.Blobs, Blob{BlobRef: events.BlobRef{SHA256: p.Digest, Size: int64(len(envelope))}})
	return p, nil
}

// commandNotes tells of commands that look as if they named a file of the package, which is not in it.
func commandNotes(m events.Manifest) []string {
	var notes []string
	if len(m.Files) == 0 {
		notes = append(notes, "the package has no files: its programs run what is on the machines")
	}
	for _, name := range sortedPrograms(m) {
		p := m.Programs[name]
		words := p.Command.Argv
		if len(words) == 0 && p.Shell == "" {
			words = splitLine(p.Command.Line)
		}
		for _, word := range words {
			path := strings.TrimPrefix(filepath.ToSlash(strings.ReplaceAll(word, `\`, "/")), "./")
			named := slices.Contains(fileEndings, strings.ToLower(filepath.Ext(path)))
			relative := manifest.ValidPath(path) == nil
			there := slices.ContainsFunc(m.Files, func(f events.File) bool { return strings.EqualFold(f.Path, path) })
			if named && relative && !there {
				notes = append(notes, fmt.Sprintf("program %s: the command names %s, which is not in the package", name, word))
			}
		}
	}
	return notes
}

// fileEndings are those of files that a command hardly names without bringing them.
var fileEndings = []string{".deb", ".rpm", ".msi", ".msp", ".mst", ".exe", ".sh", ".ps1", ".cmd", ".bat", ".py", ".run", ".pkg", ".zip", ".tgz"}
