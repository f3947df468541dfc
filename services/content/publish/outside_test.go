package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

// shelf is external sources: files by their address, where letter case matters.
type shelf struct {
	files  map[string]string
	fail   error // of every opening
	opened []string
	open   int // files not closed yet
}

type shelved struct {
	*bytes.Reader
	shelf *shelf
	size  int64
}

func (f shelved) Size() int64       { return f.size }
func (f shelved) Mode() fs.FileMode { return 0 }
func (f shelved) Close() error      { f.shelf.open--; return nil }

func (s *shelf) Open(_ context.Context, address string) (OutsideFile, error) {
	s.opened = append(s.opened, address)
	if s.fail != nil {
		return nil, s.fail
	}
	text, ok := s.files[address]
	if !ok {
		return nil, fmt.Errorf("ada was answered: %w", fs.ErrNotExist)
	}
	s.open++
	f := shelved{bytes.NewReader([]byte(text)), s, int64(len(text))}
	switch {
	case strings.HasPrefix(text, "endless"):
		f.size = -1
	case strings.HasPrefix(text, "growing"):
		f.size--
	}
	return f, nil
}

func (s *shelf) List(_ context.Context, address string) ([]OutsideEntry, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	var entries []OutsideEntry
	for name := range s.files {
		rest, ok := strings.CutPrefix(name, address+"/")
		if !ok {
			continue
		}
		head, _, folder := strings.Cut(rest, "/")
		if e := (OutsideEntry{Name: head, Folder: folder}); !slices.Contains(entries, e) {
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("ada was answered: %w", fs.ErrNotExist)
	}
	return entries, nil
}

func outsideOptions(s *shelf) Options {
	o := options()
	o.Outside = s
	return o
}

// outer is a package directory with these lines in package.yaml below its title.
func outer(t *testing.T, lines string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, SpecName, "api: chandler/v1\npackage: hello\nversion: \"1\"\n"+lines)
	return dir
}

const runsIt = "programs:\n  install: {command: [sh, setup.sh], run: administrative, installation-account: corp}\n"

func pinned(path, text, source string) events.File {
	return events.File{Path: path, Size: int64(len(text)), Mode: 0o755, SHA256: events.DigestOf([]byte(text)), Source: source}
}

func TestFilesBelowASourceArePinnedAndStayThere(t *testing.T) {
	want := []events.File{pinned("data/a.txt", "some", ""), pinned("setup.sh", "echo", "")}
	all := map[string]string{
		"smb://files.example/software/hello/setup.sh":     "echo",
		"smb://files.example/software/hello/data/a.txt":   "some",
		"smb://files.example/software/hello/package.yaml": "its own description",
		"smb://files.example/software/other":              "x",
		"https://files.example/hello/setup.sh":            "echo",
		"https://files.example/hello/data/a.txt":          "some",
	}
	for name, c := range map[string]struct{ lines, source string }{
		"all of them":             {"source: smb://files.example/software/hello\n", "smb://files.example/software/hello"},
		"named as Windows does":   {"source: '\\\\FILES.example\\software\\hello'\n", "smb://files.example/software/hello"},
		"named without quotes":    {"source: \\\\files.example\\software\\hello\\\n", "smb://files.example/software/hello"},
		"named in double quotes":  {"source: \"\\\\\\\\files.example\\\\software\\\\hello\"\n", "smb://files.example/software/hello"},
		"those listed":            {"source: smb://files.example/software/hello\nfiles: [setup.sh, data/a.txt]\n", "smb://files.example/software/hello"},
		"those listed, over http": {"source: https://files.example/hello\nfiles: [setup.sh, data/a.txt]\n", "https://files.example/hello"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{files: all}
			p := read(t, outer(t, c.lines+runsIt), outsideOptions(s))
			if p.Manifest.Source != c.source {
				t.Errorf("source %s", p.Manifest.Source)
			}
			if diff := cmp.Diff(want, p.Manifest.Files); diff != "" {
				t.Error(diff)
			}
			if len(p.Blobs) != 1 || p.Blobs[0].SHA256 != p.Digest {
				t.Errorf("to be uploaded: %+v", p.Blobs)
			}
			if s.open != 0 {
				t.Errorf("%d files were left open", s.open)
			}
			if len(p.Notes) != 0 {
				t.Errorf("notes %q", p.Notes)
			}
		})
	}
}

func TestAPackageIsTheSameReadThereOrWhereItIsMounted(t *testing.T) {
	const lines = "source: smb://files.example/software/hello\n" + runsIt
	there := read(t, outer(t, lines), outsideOptions(&shelf{files: map[string]string{
		"smb://files.example/software/hello/setup.sh": "echo", "smb://files.example/software/hello/data/a.txt": "some"}}))
	mounted := t.TempDir()
	write(t, mounted, "hello/setup.sh", "echo")
	write(t, mounted, "hello/data/a.txt", "some")
	write(t, mounted, "hello/"+SpecName, "its own description")
	for name, mounts := range map[string]map[string]string{
		"the source":          {"": mounted + "/hello"},
		"its address":         {`\\files.example\software\hello`: mounted + "/hello"},
		"a folder above it":   {"smb://files.example/software": mounted},
		"the closest of many": {"smb://files.example/software": t.TempDir(), "smb://files.example/software/hello": mounted + "/hello"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Mounted = mounts
			here := read(t, outer(t, lines), o)
			if diff := cmp.Diff(there.Manifest, here.Manifest); diff != "" {
				t.Error(diff)
			}
			if len(here.Blobs) != 1 {
				t.Errorf("to be uploaded: %+v", here.Blobs)
			}
		})
	}
}

func TestAMountNeverLeadsOutsideOfItself(t *testing.T) {
	mounted, secret := t.TempDir(), t.TempDir()
	write(t, secret, "setup.sh", "secret")
	if err := os.Symlink(secret+"/setup.sh", mounted+"/setup.sh"); err != nil {
		t.Skip("symbolic links need a privilege here:", err)
	}
	for _, lines := range []string{"source: smb://h/s\n" + runsIt, "programs: {p: {command: ['\\\\h\\s\\setup.sh'], run: user}}\n"} {
		o := options()
		o.Mounted = map[string]string{"smb://h/s": mounted}
		if _, err := Read(t.Context(), outer(t, lines), o); err == nil || !strings.Contains(err.Error(), "leaves the package's directory") {
			t.Errorf("error: %v", err)
		}
	}
}

// A wrong secret must not be tried for each of a thousand files.
func TestWhatWouldFailForEveryFileIsTriedOnce(t *testing.T) {
	for name, lines := range map[string]string{
		"files":    "source: smb://files/apps\nfiles: [a, b, c]\n" + runsIt,
		"commands": "programs: {p: {command: ['\\\\files\\apps\\a'], run: user}, q: {command: ['\\\\files\\apps\\b'], run: user}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{fail: errors.New("ada was refused: wrong password")}
			_, err := Read(t.Context(), outer(t, lines), outsideOptions(s))
			if err == nil || !strings.Contains(err.Error(), "wrong password") || len(s.opened) != 1 {
				t.Errorf("%q was opened, error %v", s.opened, err)
			}
		})
	}
}

func TestNothingIsReadOutsideWithoutAReader(t *testing.T) {
	for _, lines := range []string{"source: smb://files/apps\n" + runsIt, "source: smb://files/apps\nfiles: [a]\n" + runsIt, "programs: {p: {command: ['\\\\files\\apps\\a'], run: user}}\n"} {
		if _, err := Read(t.Context(), outer(t, lines), options()); err == nil || !strings.Contains(err.Error(), "nothing here to read it with") {
			t.Errorf("error: %v", err)
		}
	}
	o := options()
	o.Mounted = map[string]string{"": t.TempDir()}
	if _, err := Read(t.Context(), outer(t, runsIt), o); err == nil || !strings.Contains(err.Error(), "names none") {
		t.Errorf("a directory stands for no source: %v", err)
	}
	o.Mounted, o.Run = map[string]string{"smb://h/s": t.TempDir()}, events.RunUser
	if _, err := Read(t.Context(), script(t, "a.sh", "echo"), o); err == nil || !strings.Contains(err.Error(), "write a "+SpecName) {
		t.Errorf("a directory for one file: %v", err)
	}
}

func TestASourceMayNotNameWhatLeadsElsewhere(t *testing.T) {
	for _, name := range []string{"..", ".", "", `a\b`, "a/b", "a\x01", "c:"} {
		_, err := Read(t.Context(), outer(t, "source: smb://files/apps\n"+runsIt), Options{Outside: evil(name)})
		if err == nil {
			t.Errorf("%q was let through", name)
		}
	}
	_, err := Read(t.Context(), outer(t, "source: smb://files/apps\n"+runsIt), Options{Outside: bottomless{}})
	if err == nil || !strings.Contains(err.Error(), "too many or too deep") {
		t.Errorf("error: %v", err)
	}
}

// evil lists one file of this name.
type evil string

func (e evil) List(context.Context, string) ([]OutsideEntry, error) {
	return []OutsideEntry{{Name: string(e)}}, nil
}

func (e evil) Open(context.Context, string) (OutsideFile, error) {
	return shelved{bytes.NewReader(nil), &shelf{}, 0}, nil
}

// bottomless is a folder that contains itself.
type bottomless struct{ evil }

func (bottomless) List(context.Context, string) ([]OutsideEntry, error) {
	return []OutsideEntry{{Name: "again", Folder: true}}, nil
}

func TestLargeFilesOutsideArePinnedBlockByBlock(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", events.BlockSize/16) + "and more"
	p := read(t, outer(t, "source: smb://files/apps\n"+runsIt), outsideOptions(&shelf{files: map[string]string{"smb://files/apps/setup.sh": text}}))
	want := []string{events.DigestOf([]byte(text[:events.BlockSize])), events.DigestOf([]byte("and more"))}
	if diff := cmp.Diff(want, p.Manifest.Files[0].Blocks); diff != "" {
		t.Error(diff)
	}
}
