package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"chandler/events"
	"chandler/events/manifest"
)

// source is a directory that files are read from; nothing outside it is ever opened but what the package names on
// external sources.
type source struct {
	root    *os.Root
	dir     string // for messages
	doc     *document
	outside outside
	reading func(path string, done, size int64)
}

// folder is where the files of a package are read from.
type folder interface {
	name() string // for messages
	// walk lists all files below, but package.yaml, and may stop at more than [manifest.MaxFiles].
	walk(ctx context.Context) ([]string, error)
	// describe reads one file. A [final] error will be the same for all files.
	describe(ctx context.Context, name string) (events.File, error)
}

// found is a file of the package and where package.yaml names it ("$.files[2]", or "$" where it does not).
type found struct {
	events.File
	where string
}

// files reads the files listed, or all of the folder where none are, sorted by path.
func (s source) files(ctx context.Context, from folder, listed []string) ([]found, []string, error) {
	var files []found
	var notes []string
	for i, name := range listed {
		files = append(files, found{File: events.File{Path: name}, where: fmt.Sprintf("$.files[%d]", i)})
	}
	if listed == nil {
		names, err := from.walk(ctx)
		if err != nil {
			return nil, nil, s.problem("$.source", err)
		}
		for _, name := range names {
			files = append(files, found{File: events.File{Path: name}, where: "$"})
			if strings.HasPrefix(path.Base(name), ".") || strings.HasPrefix(name, ".") {
				notes = append(notes, fmt.Sprintf("hidden file %s is taken too: list the files in %s where that is not meant", name, SpecName))
			}
		}
	}
	slices.SortStableFunc(files, func(a, b found) int { return strings.Compare(a.Path, b.Path) })
	// What is wrong with the paths themselves is better said before gigabytes are read.
	if problems := s.pathProblems(from, files); len(problems) > 0 {
		return nil, nil, errors.Join(problems...)
	}
	var problems []error
	for i := range files {
		f, err := from.describe(ctx, files[i].Path)
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		if err != nil {
			problems = append(problems, s.problem(files[i].where, err))
			if _, ok := errors.AsType[final](err); ok {
				break
			}
			continue
		}
		files[i].File = f
	}
	return files, notes, errors.Join(problems...)
}

func (s source) problem(where string, err error) error {
	if s.doc == nil {
		return err
	}
	if _, ok := errors.AsType[private](err); ok {
		return fmt.Errorf("%s: %w", s.doc.Place(where), err)
	}
	return s.doc.At(where, err.Error())
}

func (s source) pathProblems(from folder, files []found) []error {
	if len(files) > manifest.MaxFiles {
		return []error{fmt.Errorf("%s: more than %d files: put them into an archive", from.name(), manifest.MaxFiles)}
	}
	var problems []error
	seen := map[string]string{}
	for _, f := range files {
		key := strings.ToLower(f.Path)
		other, ok := seen[key]
		seen[key] = f.Path
		switch err := manifest.ValidPath(f.Path); {
		case err != nil:
			problems = append(problems, s.problem(f.where, err))
		case ok && other == f.Path:
			problems = append(problems, s.problem(f.where, fmt.Errorf("file %s is listed twice", f.Path)))
		case ok:
			problems = append(problems, s.problem(f.where, fmt.Errorf("files %s and %s differ only in case, which is one file on Windows", other, f.Path)))
		}
	}
	return problems
}

func (s source) name() string { return s.dir }

// walk lists what is no file too, which is left for describe to refuse.
func (s source) walk(ctx context.Context) ([]string, error) {
	var names []string
	err := fs.WalkDir(s.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case d.IsDir() || name == SpecName:
			return nil
		case len(names) > manifest.MaxFiles:
			return fs.SkipAll
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.dir, err)
	}
	return names, nil
}

// describe reads one file. Symbolic links are followed as long as they stay inside the directory.
func (s source) describe(ctx context.Context, name string) (events.File, error) {
	before, err := s.stat(name)
	if err != nil {
		return events.File{}, err
	}
	f, err := s.root.Open(filepath.FromSlash(name))
	if err != nil {
		return events.File{}, s.absent(name, err)
	}
	defer f.Close()
	out := events.File{Path: name, Size: before.Size(), Mode: mode(before.Mode())}
	err = digest(ctx, f, &out, func(done int64) { s.reading(name, done, out.Size) })
	if errors.Is(err, errChanged) {
		return events.File{}, fmt.Errorf("file %s changed while it was read", name)
	}
	if err != nil {
		return events.File{}, fmt.Errorf("read %s: %w", name, err)
	}
	switch after, err := s.root.Stat(filepath.FromSlash(name)); {
	case errors.Is(err, fs.ErrNotExist):
		return events.File{}, fmt.Errorf("file %s vanished while it was read", name)
	case err != nil:
		return events.File{}, err
	case !os.SameFile(before, after) || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()):
		return events.File{}, fmt.Errorf("file %s changed while it was read", name)
	}
	return out, nil
}

func (s source) stat(name string) (fs.FileInfo, error) {
	info, err := s.root.Stat(filepath.FromSlash(name))
	switch {
	case err != nil:
		return nil, s.absent(name, err)
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory: list its files, or leave files out to take everything", name)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file (%s)", name, info.Mode().Type())
	}
	return info, nil
}

// absent says why a name in the directory cannot be opened.
func (s source) absent(name string, err error) error {
	link, linkErr := s.root.Readlink(filepath.FromSlash(name))
	switch {
	case errors.Is(err, fs.ErrNotExist) && linkErr == nil:
		return fmt.Errorf("file %s is a symbolic link to %s, which is not there", name, link)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("file %s is not in %s", name, s.dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("file %s: no permission to read it", name)
	case linkErr == nil:
		return fmt.Errorf("file %s is a symbolic link to %s, which leaves the package's directory: only relative links that stay inside are followed", name, link)
	}
	return fmt.Errorf("file %s cannot be reached within the package's directory: %w", name, err)
}

// mode keeps of the permission bits only what a package means by them; Windows has none to keep.
func mode(m fs.FileMode) uint32 {
	if runtime.GOOS == "windows" || m&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

var errChanged = errors.New("changed")

// digest fills in the SHA-256 of the whole and of each block. The file must have exactly the size announced.
func digest(ctx context.Context, r io.Reader, f *events.File, done func(int64)) error {
	whole := sha256.New()
	block := make([]byte, min(f.Size, events.BlockSize)+1)
	for read := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		want := min(f.Size-read, events.BlockSize)
		last := read+want == f.Size
		if last {
			want++ // one byte more than announced tells a file that grew
		}
		n, err := io.ReadFull(r, block[:want])
		read += int64(n)
		switch {
		case last && (n < int(want)-1 && (err == io.EOF || err == io.ErrUnexpectedEOF) || n == int(want)):
			return errChanged
		case !last && (err == io.EOF || err == io.ErrUnexpectedEOF):
			return errChanged
		case err != nil && err != io.EOF && err != io.ErrUnexpectedEOF:
			return err
		}
		if f.Size <= events.BlockSize {
			whole.Write(block[:n])
		} else {
			f.Blocks = append(f.Blocks, both(whole, block[:n]))
		}
		done(read)
		if last {
			f.SHA256 = hex.EncodeToString(whole.Sum(nil))
			return nil
		}
	}
}

// both hashes a block into the whole and by itself, on two cores.
func both(whole hash.Hash, block []byte) string {
	var wait sync.WaitGroup
	wait.Go(func() { whole.Write(block) })
	sum := sha256.Sum256(block)
	wait.Wait()
	return hex.EncodeToString(sum[:])
}

// open reads a blob for upload; the envelope comes from the plan.
func (p *Plan) open(b Blob) (io.ReadCloser, error) {
	if b.Path == "" {
		return io.NopCloser(bytes.NewReader(p.Envelope)), nil
	}
	f, err := os.Open(b.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("file %s vanished after it was read: publish again", b.Path)
	}
	return f, err
}
