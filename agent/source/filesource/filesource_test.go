//go:build unix

package filesource

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chandler/agent/source"
	"chandler/agent/source/sourcetest"
	"chandler/events"
	"chandler/events/resource"
)

func addressOf(path string) string {
	return resource.Resource{Scheme: resource.File, Path: path}.String()
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err == nil {
		err = os.Chmod(path, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreASource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Server{Source: New(Options{Patience: time.Second}), Folders: true, Serve: serve})
}

func serve(t *testing.T, files map[string][]byte, fault sourcetest.Fault) (sourcetest.Served, bool) {
	dir := t.TempDir()
	for name, data := range files {
		write(t, filepath.Join(dir, filepath.FromSlash(name)), data)
	}
	served := sourcetest.Served{Root: addressOf(dir)}
	const large = "software/setup.bin"
	path := filepath.Join(dir, large)
	switch fault {
	case sourcetest.None:
	case sourcetest.NoShare:
		served.Root = addressOf(filepath.Join(dir, "nothing"))
	case sourcetest.Denied, sourcetest.DeniedRoot:
		if os.Geteuid() == 0 {
			return served, false // may read everything; package asuser tests it as another user
		}
		if fault == sourcetest.DeniedRoot {
			path = dir
			t.Cleanup(func() { os.Chmod(path, 0o700) })
		}
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
	case sourcetest.Changed:
		served.Change = func() { change(t, path, bytes.Repeat([]byte{7}, len(files[large]))) }
	case sourcetest.Shortened:
		served.Change = func() { change(t, path, files[large][:len(files[large])/4]) }
	case sourcetest.Replaced:
		served.Change = func() {
			write(t, path+".new", []byte("new"))
			if err := os.Rename(path+".new", path); err != nil {
				t.Error(err)
			}
		}
	default:
		return served, false
	}
	return served, true
}

// change writes over a file at a later time: the clocks of file systems are coarse.
func change(t *testing.T, path string, data []byte) {
	write(t, path, data)
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
}

func TestWhatAFileSourceDoesNotOpenIsRefusedInWords(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	write(t, filepath.Join(dir, "file"), nil)
	login := source.Login{User: `EXAMPLE\reader`, Secret: []byte("hunter2")}
	for name, c := range map[string]struct {
		address string
		login   source.Login
		reason  events.Reason
		words   string
	}{
		"a local path as somebody":       {addressOf(filepath.Join(dir, "file")), login, events.SourceUnsupported, "a local path has no network account"},
		"another scheme":                 {"smb://files/x", source.Login{}, events.SourceUnsupported, "not a file address"},
		"no address":                     {"/etc/passwd", source.Login{}, events.SourceUnsupported, "not a file address"},
		"a way out":                      {"file:///srv/../etc/passwd", source.Login{}, events.SourceUnsupported, "not a file address"},
		"a host":                         {"file://files/x", login, events.SourceUnsupported, "file://host is for Windows"},
		"a socket":                       {addressOf(filepath.Join(dir, "socket")), source.Login{}, events.SourceUnsupported, "neither a file nor a folder"},
		"a file as if it were a folder":  {addressOf(filepath.Join(dir, "file", "x")), source.Login{}, events.SourceNotFound, "(3/"},
		"a name longer than any can be":  {addressOf(filepath.Join(dir, strings.Repeat("x", 300))), source.Login{}, events.SourceNotFound, "(2/"},
		"a device that would never end":  {"file:///dev/zero", source.Login{}, events.SourceUnsupported, "neither"},
		"a pipe that waits for a writer": {pipe(t, dir), source.Login{}, events.SourceUnsupported, "neither"},
		"a link to itself":               {link(t, dir, "round", "round"), source.Login{}, events.SourceUnsupported, "(50/"},
	} {
		t.Run(name, func(t *testing.T) {
			if o, err := New(Options{}).Open(t.Context(), c.address, c.login); err == nil {
				o.Close()
				t.Error("is opened")
			} else {
				wantReason(t, err, c.reason, c.words)
			}
		})
	}
}

func link(t *testing.T, dir, name, target string) string {
	if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	return addressOf(filepath.Join(dir, name))
}

func TestLinksAreFollowedAndWalkingATreeEnds(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "v2", "setup.bin"), []byte("new"))
	write(t, filepath.Join(dir, "plain"), []byte("1234567"))
	write(t, filepath.Join(dir, `back\slash`), nil)
	write(t, filepath.Join(dir, "bad\xff"), nil)
	link(t, dir, "current", "v2")
	link(t, dir, "round", ".")
	link(t, dir, "file", "v2/setup.bin")
	link(t, dir, "dangling", "nothing")
	link(t, dir, "null", "/dev/null")
	pipe(t, dir)
	s := New(Options{})
	o, err := s.Open(t.Context(), addressOf(filepath.Join(dir, "current", "setup.bin")), source.Login{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	p := make([]byte, 3)
	if _, err := o.ReadAt(t.Context(), p, 0); err != nil || string(p) != "new" {
		t.Errorf("%q, %v", p, err)
	}
	folder, err := s.Open(t.Context(), addressOf(dir), source.Login{})
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	for range 2 { // the same again
		entries, err := folder.List(t.Context())
		var got []string
		for _, e := range entries {
			if e.Folder {
				e.Mode = 0 // whatever the umask is
			}
			got = append(got, fmt.Sprint(e.Name, " ", e.Size, " ", e.Folder, " ", e.Mode))
		}
		want := []string{"file 3 false -rw-r--r--", "plain 7 false -rw-r--r--", "v2 0 true ----------"}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, want %q: %v", got, want, err)
		}
	}
}

func TestAFolderOfTooManyFilesIsNotListed(t *testing.T) {
	dir := t.TempDir()
	const most = 2*batch + 3
	for i := range most {
		write(t, filepath.Join(dir, fmt.Sprint(i)), nil)
	}
	opened, err := New(Options{}).Open(t.Context(), addressOf(dir), source.Login{})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	o := opened.(*object)
	if o.most != source.MaxEntries {
		t.Errorf("at most %d entries", o.most)
	}
	o.most = most
	if all, err := o.List(t.Context()); err != nil || len(all) != most {
		t.Errorf("%d entries: %v", len(all), err)
	}
	write(t, filepath.Join(dir, "one more"), nil)
	_, err = o.List(t.Context())
	wantReason(t, err, events.SourceUnsupported, fmt.Sprintf("more than %d entries", most))
}
