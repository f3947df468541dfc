package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/resource"
)

// Outside reads external sources as the administrator who publishes. Addresses are those of package resource. Errors say who
// tried and what was answered; they wrap [fs.ErrNotExist] where nothing lies at the address, and are otherwise taken for ones
// that would be the same for every file, so that nothing more is tried.
type Outside interface {
	// Open opens a file; ctx bounds all reading of it.
	Open(ctx context.Context, address string) (OutsideFile, error)
	// List lists a folder, without what is below its folders.
	List(ctx context.Context, address string) ([]OutsideEntry, error)
}

// OutsideFile is a file on an external source. A reading that finds another file than was opened is an error.
type OutsideFile interface {
	io.ReaderAt
	io.Closer
	Size() int64       // bytes; -1: the source does not say
	Mode() fs.FileMode // permission bits, where the source has them; 0 where not
}

// OutsideEntry is one entry of a folder.
type OutsideEntry struct {
	Name   string
	Folder bool
}

// final is an error that would be the same for every other file.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// outside reads files by their addresses: where they are mounted here, or as the administrator.
type outside struct {
	via     Outside
	mounts  []mount
	reading func(path string, done, size int64)
}

// mount is where what lies below base is found on this machine.
type mount struct {
	base resource.Resource
	source
}

// newOutside opens the directories where sources are mounted; base is the package's source.
func newOutside(o Options, base string) (outside, error) {
	out := outside{via: o.Outside, reading: o.Reading}
	for _, address := range slices.Sorted(maps.Keys(o.Mounted)) {
		dir := o.Mounted[address]
		if address == "" {
			if address = base; base == "" {
				return out, errors.Join(fmt.Errorf("%s is to stand for the package's source, but %s names none: say which address is mounted there", dir, SpecName), out.close())
			}
		}
		r, err := resource.Parse(address)
		if err != nil {
			return out, errors.Join(fmt.Errorf("what is mounted at %s %w", dir, err), out.close())
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return out, errors.Join(err, out.close())
		}
		out.mounts = append(out.mounts, mount{r, source{root: root, dir: dir, reading: o.Reading}})
	}
	return out, nil
}

func (o outside) close() error {
	var errs []error
	for _, m := range o.mounts {
		errs = append(errs, m.root.Close())
	}
	return errors.Join(errs...)
}

// mounted is the directory where an address is found on this machine, and the path in it, "." of itself.
func (o outside) mounted(at resource.Resource) (m mount, name string, ok bool) {
	for _, each := range o.mounts {
		if at.Within(each.base) && (!ok || len(each.base.Path) > len(m.base.Path)) {
			m, ok = each, true
		}
	}
	if !ok {
		return m, "", false
	}
	if name = strings.TrimPrefix(at.Path[len(m.base.Path):], "/"); name == "" {
		name = "."
	}
	return m, name, true
}

// open opens what lies at an address.
func (o outside) open(ctx context.Context, address string) (OutsideFile, error) {
	at, err := resource.Parse(address)
	if err != nil {
		return nil, err
	}
	if m, name, ok := o.mounted(at); ok {
		f, err := m.root.Open(filepath.FromSlash(name))
		if err != nil {
			return nil, m.absent(name, err)
		}
		return mountedFile{f}, nil
	}
	if o.via == nil {
		return nil, final{fmt.Errorf("%s is on an external source, and there is nothing here to read it with", at.Shown())}
	}
	f, err := o.via.Open(ctx, address)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, final{err}
	}
	return f, err
}

// mountedFile is one whose size and mode were looked at before.
type mountedFile struct{ *os.File }

func (f mountedFile) Size() int64 {
	info, err := f.Stat()
	if err != nil {
		return -1
	}
	return info.Size()
}

func (f mountedFile) Mode() fs.FileMode { return 0 }

// describe reads and pins the file at an address, which has the given path in the package.
func (o outside) describe(ctx context.Context, at resource.Resource, path string) (events.File, error) {
	if m, name, ok := o.mounted(at); ok {
		file, err := m.describe(ctx, name)
		file.Path, file.Mode = path, modeOutside(at, fs.FileMode(file.Mode))
		return file, err
	}
	f, err := o.open(ctx, at.String())
	if err != nil {
		return events.File{}, err
	}
	defer f.Close()
	out := events.File{Path: path, Size: f.Size(), Mode: modeOutside(at, f.Mode())}
	if out.Size < 0 {
		return events.File{}, fmt.Errorf("%s: its server does not say how long it is, so that it cannot be pinned", at.Shown())
	}
	err = digest(ctx, io.NewSectionReader(f, 0, math.MaxInt64), &out, func(done int64) { o.reading(path, done, out.Size) })
	switch {
	case errors.Is(err, errChanged):
		return events.File{}, fmt.Errorf("%s changed while it was read", at.Shown())
	case err != nil:
		return events.File{}, final{naming(at, "read", err)}
	}
	return out, nil
}

// naming says what was tried at which address, unless an error does.
func naming(at resource.Resource, tried string, err error) error {
	if strings.Contains(err.Error(), at.Shown()) {
		return err
	}
	return fmt.Errorf("%s %s: %w", tried, at.Shown(), err)
}

// modeOutside is the same however a source is read: only local files are known to have modes that mean something.
func modeOutside(at resource.Resource, m fs.FileMode) uint32 {
	if at.Scheme != resource.File || at.Host != "" || m == 0 {
		return 0o755
	}
	return mode(m)
}

// below is the folder at an address that [resource.Parse] has read.
func (o outside) below(address string) folder {
	base, _ := resource.Parse(address)
	return outsideFolder{o, base}
}

type outsideFolder struct {
	outside
	base resource.Resource
}

func (f outsideFolder) name() string { return f.base.Shown() }

func (f outsideFolder) describe(ctx context.Context, name string) (events.File, error) {
	file, err := f.outside.describe(ctx, f.base.Join(name), name)
	if _, ok := errors.AsType[final](err); !ok && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("file %s is not there: %w", name, err)
	}
	return file, err
}

// walk looks into every folder once; what names a source gives its files is not trusted to stay below.
func (f outsideFolder) walk(ctx context.Context) ([]string, error) {
	if m, name, ok := f.mounted(f.base); ok {
		return m.below(ctx, name)
	}
	if f.via == nil {
		return nil, fmt.Errorf("source %s: there is nothing here to read it with", f.base.Shown())
	}
	var names []string
	folders := []string{""}
	for i := 0; i < len(folders) && len(names) <= manifest.MaxFiles; i++ {
		at := f.base
		if folders[i] != "" {
			at = at.Join(folders[i])
		}
		entries, err := f.via.List(ctx, at.String())
		if err != nil {
			return nil, naming(at, "list", err)
		}
		for _, e := range entries {
			name := path.Join(folders[i], e.Name)
			if e.Name == "" || strings.ContainsAny(e.Name, `/\`) || e.Name == "." || e.Name == ".." {
				return nil, fmt.Errorf("list %s: it names an entry %.80q, which cannot be one", at.Shown(), e.Name)
			}
			if !e.Folder {
				names = append(names, name)
			} else if folders = append(folders, name); len(folders) > manifest.MaxFiles || len(name) > manifest.MaxPath {
				return nil, fmt.Errorf("list %s: its folders are too many or too deep: list the files in %s", f.base.Shown(), SpecName)
			}
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == SpecName }), nil
}

// below lists the files below a folder of the directory, relative to it.
func (s source) below(ctx context.Context, name string) ([]string, error) {
	if name == "." {
		return s.walk(ctx)
	}
	root, err := s.root.OpenRoot(filepath.FromSlash(name))
	if err != nil {
		return nil, s.absent(name, err)
	}
	defer root.Close()
	return source{root: root, dir: filepath.Join(s.dir, name)}.walk(ctx)
}
