package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/resource"
	"chandler/events/sign"
	"chandler/events/trust"
)

var published = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

func options() Options { return Options{Now: func() time.Time { return published }} }

const hello = `api: chandler/v1
package: hello
version: "2.10-3"
publisher: Debian
files: [hello.deb, data/notes.txt]
programs:
  install:
    command: [dpkg, -i, hello.deb]
    run: administrative
    max-run-time: 20m
    applies-if: agent.os == "linux"
    detect: [{dpkg: hello, version: ">= 2.10"}]
    return-codes: {3010: soft-reboot, 1618: retry}
  remove: {command: dpkg -r hello, run: administrative, undoes: install}
`

// directory makes a package directory: hello's with some lines of package.yaml replaced.
func directory(t *testing.T, replace ...string) string {
	t.Helper()
	dir := t.TempDir()
	spec := hello
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(spec, replace[i]) {
			t.Fatalf("%q is not in the example", replace[i])
		}
		spec = strings.Replace(spec, replace[i], replace[i+1], 1)
	}
	write(t, dir, SpecName, spec)
	write(t, dir, "hello.deb", "a package")
	write(t, dir, "data/notes.txt", "some notes")
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string, o Options) *Plan {
	t.Helper()
	p, err := Read(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestADirectoryBecomesAManifestAndItsBlobs(t *testing.T) {
	dir := directory(t)
	p := read(t, dir, options())
	want := events.Manifest{
		API: manifest.API, Package: "hello", Version: "2.10-3", Publisher: "Debian", Published: published,
		Files: []events.File{
			{Path: "data/notes.txt", Size: 10, Mode: 0o644, SHA256: events.DigestOf([]byte("some notes"))},
			{Path: "hello.deb", Size: 9, Mode: 0o644, SHA256: events.DigestOf([]byte("a package"))},
		},
		Programs: map[string]events.Program{
			"install": {Command: events.Command{Argv: []string{"dpkg", "-i", "hello.deb"}}, Run: events.RunAdministrative, MaxRunTime: events.Duration(20 * time.Minute),
				AppliesIf: `agent.os == "linux"`, Detect: []events.Detect{{Dpkg: "hello", Version: ">= 2.10"}}, ReturnCodes: map[int]string{3010: "soft-reboot", 1618: "retry"}},
			"remove": {Command: events.Command{Line: "dpkg -r hello"}, Run: events.RunAdministrative, Undoes: "install"},
		},
	}
	if runtime.GOOS == "windows" {
		want.Files[0].Mode, want.Files[1].Mode = 0o755, 0o755
	}
	if diff := cmp.Diff(want, p.Manifest); diff != "" {
		t.Error(diff)
	}
	if len(p.Notes) != 0 {
		t.Errorf("notes: %q", p.Notes)
	}
	if p.Digest != events.DigestOf(p.Envelope) || len(p.Blobs) != 3 || p.Blobs[2].SHA256 != p.Digest || p.Size() != 19+int64(len(p.Envelope)) {
		t.Errorf("digest %s, blobs %+v", p.Digest, p.Blobs)
	}
	for _, b := range p.Blobs {
		r, err := p.open(b)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil || events.DigestOf(data) != b.SHA256 || int64(len(data)) != b.Size {
			t.Errorf("blob %+v: %v", b, err)
		}
	}
	if again := read(t, filepath.Join(dir, SpecName), options()); !bytes.Equal(again.Envelope, p.Envelope) {
		t.Error("the same files make another manifest")
	}
}

func TestWithoutAListEveryFileIsTaken(t *testing.T) {
	dir := directory(t, "files: [hello.deb, data/notes.txt]\n", "")
	write(t, dir, ".hidden", "x")
	write(t, dir, "data/"+SpecName, "not the package's own")
	p := read(t, dir, options())
	var paths []string
	for _, f := range p.Manifest.Files {
		paths = append(paths, f.Path)
	}
	if diff := cmp.Diff([]string{".hidden", "data/notes.txt", "data/package.yaml", "hello.deb"}, paths); diff != "" {
		t.Error(diff)
	}
	if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], ".hidden") {
		t.Errorf("notes: %q", p.Notes)
	}
}

func TestEachMistakeNamesFileAndLine(t *testing.T) {
	for _, c := range []struct {
		name, from, to, want, line string
	}{
		{"an unknown key", "    run: administrative\n    max", "    ran: administrative\n    max", `unknown key "ran"`, "9:5: 9 |     ran: administrative"},
		{"an unknown key at the top", "publisher:", "Publisher:", `unknown key "Publisher"`, "4:1:"},
		{"nearly a known key", "max-run-time: 20m", "installation_account: corp", "unknown key \"installation_account\": did you mean installation-account?", "10:5:"},
		{"a part of a known key", "max-run-time: 20m", "account: corp", "did you mean installation-account?", "10:5:"},
		{"nothing like a known key", "max-run-time: 20m", "flavour: sweet", "unknown key \"flavour\"\n", "10:5:"},
		{"nearly a key of detection", "dpkg: hello, version", "dpgk: hello, version", "did you mean dpkg?", "12:"},
		{"nearly a key of a program, at the top", "publisher:", "interactiv:", "unknown key \"interactiv\"\n", "4:1:"},
		{"neither true nor false", "max-run-time: 20m", "interactive: maybe", "interactive: write true or false", "10:18:"},
		{"a list that is a text", "[hello.deb, data/notes.txt]", "hello.deb", "files: write a list of texts", "5:8:"},
		{"a text that is a list", "max-run-time: 20m", "logon: [user]", "logon: write text", "10:"},
		{"detection that is a text", `[{dpkg: hello, version: ">= 2.10"}]`, "dpkg", "detect: write a list", "12:13:"},
		{"an installation account of nothing", "max-run-time: 20m", "installation-account: ''", "installation-account is empty", "10:27:"},
		{"an installation account left out", "max-run-time: 20m", "installation-account:", "installation-account is empty", "10:"},
		{"a version that is a number", `"2.10-3"`, "2.10", `write  version: "2.10"`, "3:10: 3 | version: 2.10"},
		{"a version that is a whole number", `"2.10-3"`, "7", `write  version: "7"`, "3:10:"},
		{"an argument that is a number", "[dpkg, -i, hello.deb]", "[sleep, 1.50]", `1.50 is a number to YAML, which may change it: write "1.50"`, "8:22:"},
		{"an argument in hexadecimal", "[dpkg, -i, hello.deb]", "[sleep, 0x10]", `write "0x10"`, "8:22:"},
		{"an empty argument", "[dpkg, -i, hello.deb]", "[dpkg, ~]", "empty entry", "8:"},
		{"a doubled key", "publisher: Debian", "package: hello", "already defined", "4:1:"},
		{"an anchor", "publisher: Debian", "publisher: &x Debian", "not allowed", "4:12:"},
		{"no run", "    run: administrative\n    max", "    max", `write "run: user" (with the rights of whoever is logged on) or "run: administrative"`, "7:"},
		{"another run", "run: administrative\n    max", "run: root\n    max", "run: root", "9:10:"},
		{"no command", "    command: [dpkg, -i, hello.deb]\n", "", "program install has no command", "7:"},
		{"a command that is a mapping", "[dpkg, -i, hello.deb]", "{dpkg: i}", "", "8:14:"},
		{"a run time without a unit", "20m", "20", `duration "20": write it as 90s, 20m or 24h`, "10:19:"},
		{"a return code word", "soft-reboot", "reboot", `return code 3010 means "reboot"`, "13:26:"},
		{"a return code that is a word", "3010:", "many:", "", "13:20:"},
		{"a missing file", "data/notes.txt", "data/note.txt", "file data/note.txt is not in", "5:20:"},
		{"a file twice", "data/notes.txt", "hello.deb", "listed twice", "5:20:"},
		{"a file twice but for case", "data/notes.txt", "Hello.deb", "differ only in case", "5:9:"},
		{"a file outside", "data/notes.txt", "../secrets", "leaves the package's directory", "5:20:"},
		{"an absolute file", "data/notes.txt", "/etc/passwd", "absolute", "5:20:"},
		{"a directory", "data/notes.txt", "data", "is a directory", "5:20:"},
		{"a working directory outside", "max-run-time: 20m", "working-directory: ../x", "leaves", "10:24:"},
		{"an unknown logon", "max-run-time: 20m", "logon: sometimes", "user, none, any", "10:12:"},
		{"two kinds of detection", "{dpkg: hello,", "{dpkg: hello, rpm: hello,", "exactly one", "12:"},
		{"an expression", `agent.os == "linux"`, `agent.os ==`, "syntax error at 1:11", "11:17:"},
		{"no YAML", "files: [", "files: [[", "", ""},
		{"a bottomless list", "[dpkg, -i, hello.deb]", strings.Repeat("[", 200_000), "too many lists", ""},
		{"an endless file", "publisher: Debian", "publisher: " + strings.Repeat("x", maxSpec), "more than", ""},
		{"a second document", "programs:", "---\nprograms:", "2 documents", ""},
		{"an empty document", "programs:", "---\n---\nprograms:", "the document before this is empty", "7:1:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options()
			o.Expression = func(e string) error {
				if strings.HasSuffix(e, "==") {
					return fmt.Errorf("syntax error at 1:%d", len(e))
				}
				return nil
			}
			_, err := Read(t.Context(), directory(t, c.from, c.to), o)
			if err == nil {
				t.Fatal("nothing was found")
			}
			at, quoted, _ := strings.Cut(c.line, " ")
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), SpecName) || !strings.Contains(err.Error(), SpecName+":"+at) && at != "" || !strings.Contains(err.Error(), quoted) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestEveryMistakeIsToldAtOnce(t *testing.T) {
	_, err := Read(t.Context(), directory(t, "run: administrative\n    max", "run: root\n    max", "chandler/v1", "chandler/v9", "dpkg -r hello", `""`), options())
	if err == nil || strings.Count(err.Error(), SpecName+":") != 3 {
		t.Errorf("error: %v", err)
	}
}

func TestFilesThatAreNotPlainlyInTheDirectoryAreRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege on Windows")
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ target, want string }{
		"a link out":              {"../../outside", "leaves the package's directory"},
		"an absolute link out":    {outside, "leaves the package's directory"},
		"a link to nothing":       {"nothing", "symbolic link to nothing, which is not there"},
		"a link to itself":        {"link", "symbolic link"},
		"a link to a directory":   {"data", "is a directory"},
		"a link to a link inside": {"inside", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := directory(t, "files: [hello.deb, data/notes.txt]\n", "")
			for from, to := range map[string]string{"inside": "data/notes.txt", "link": c.target} {
				if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
					t.Fatal(err)
				}
			}
			p, err := Read(t.Context(), dir, options())
			if c.want == "" {
				if err != nil || p.Manifest.Files[3].Path != "link" || p.Manifest.Files[3].Size != 10 {
					t.Fatalf("links inside are followed: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: %v", err)
			}
		})
	}
	t.Run("a pipe", func(t *testing.T) {
		dir := directory(t, "files: [hello.deb, data/notes.txt]\n", "")
		if out, err := exec.Command("mkfifo", filepath.Join(dir, "pipe")).CombinedOutput(); err != nil {
			t.Skipf("install mkfifo: %v %s", err, out)
		}
		if _, err := Read(t.Context(), dir, options()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("error: %v", err)
		}
	})
}

func TestAFileThatChangesWhileItIsReadIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(path string) error
		want   string
	}{
		"grows": {func(path string) error { return os.WriteFile(path, make([]byte, 10<<20), 0o644) }, "changed while it was read"},
		"shrinks": {func(path string) error {
			return os.Truncate(path, 5<<20)
		}, "changed while it was read"},
		"is written again": {func(path string) error { return os.Chtimes(path, published, published) }, "changed while it was read"},
		"vanishes":         {os.Remove, "vanished while it was read"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := directory(t)
			path := filepath.Join(dir, "hello.deb")
			if err := os.WriteFile(path, make([]byte, 9<<20), 0o644); err != nil {
				t.Fatal(err)
			}
			o := options()
			o.Reading = func(name string, done, _ int64) {
				if name == "hello.deb" && done == events.BlockSize {
					if err := c.change(path); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := Read(t.Context(), dir, o); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), ":5:") {
				t.Errorf("error: %v", err)
			}
		})
	}
	t.Run("vanishes after the directory was listed", func(t *testing.T) {
		dir := directory(t, "files: [hello.deb, data/notes.txt]\n", "")
		o := options()
		o.Reading = func(name string, _, _ int64) { os.Remove(filepath.Join(dir, "hello.deb")) }
		if _, err := Read(t.Context(), dir, o); err == nil || !strings.Contains(err.Error(), "hello.deb is not in") {
			t.Errorf("error: %v", err)
		}
	})
}

func TestBlocksAreHashedOneByOne(t *testing.T) {
	for _, size := range []int64{0, 1, events.BlockSize - 1, events.BlockSize, events.BlockSize + 1, 2 * events.BlockSize, 2*events.BlockSize + 17} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i * 7 / 3)
		}
		f := events.File{Size: size}
		if err := digest(t.Context(), bytes.NewReader(data), &f, func(int64) {}); err != nil {
			t.Fatal(err)
		}
		want := events.File{Size: size, SHA256: events.DigestOf(data)}
		for at := int64(0); size > events.BlockSize && at < size; at += events.BlockSize {
			want.Blocks = append(want.Blocks, events.DigestOf(data[at:min(at+events.BlockSize, size)]))
		}
		if diff := cmp.Diff(want, f); diff != "" {
			t.Error(size, diff)
		}
		for _, wrong := range []int64{size - 1, size + 1} {
			if err := digest(t.Context(), bytes.NewReader(data), &events.File{Size: wrong}, func(int64) {}); wrong >= 0 && !errors.Is(err, errChanged) {
				t.Errorf("%d bytes announced as %d: %v", size, wrong, err)
			}
		}
	}
}

func TestReadingStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, directory(t), options()); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}

func TestNotesTellOfCommandsWithoutTheirFiles(t *testing.T) {
	p := read(t, directory(t, "files: [hello.deb, data/notes.txt]", "files: []", "dpkg -r hello", `.\remove.exe /q`), options())
	if len(p.Notes) != 3 || !strings.Contains(p.Notes[0], "no files") || !strings.Contains(p.Notes[1], "hello.deb") || !strings.Contains(p.Notes[2], "remove.exe") {
		t.Errorf("notes: %q", p.Notes)
	}
}

// addressesOf are all that package.yaml names and that is not for Check to complain of.
func addressesOf(m events.Manifest) (all []string) {
	for name := range m.Programs {
		all = append(all, manifest.Resources(m, name)...)
	}
	return slices.DeleteFunc(append(all, m.Source), func(a string) bool { return a == "" })
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(hello))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("programs: {a: {command: [1.0], detect: [{}]}}"))
	f.Add([]byte("supersedes: [{package: a, version: < 1, uninstall: a@0/b}]\nprograms: {a: {run-first: [b, c@1/d], disk-space: 1MB, platforms: [{os: linux, min-version: '1'}]}}"))
	f.Add([]byte(strings.Repeat("[", 1000)))
	f.Add([]byte("source: '\\\\files\\a b'\nfiles: [x]\nprograms: {a: {command: [b], references: [{url: smb://F/x/, sha256: x}, {url: 'https://u@h/x'}]}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 8<<10 {
			return
		}
		doc, s, err := parseSpec(SpecName, data)
		if err != nil {
			return
		}
		m := s.manifest(published)
		for _, at := range addressesOf(m) {
			if r, err := resource.Parse(at); err != nil || r.String() != at {
				t.Errorf("address %q was let through: %v", at, err)
			}
		}
		if problems := doc.errors(manifest.Check(m), nil); len(problems) > 0 {
			return
		}
		encoded, err := manifest.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := manifest.Decode(encoded); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}

func TestAPlanHoldsWhatPublishersSigned(t *testing.T) {
	key, err := sign.NewKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	ada := key.Public().Named("ada")
	refuse := errors.New("no passphrase")
	for name, c := range map[string]struct {
		seal    func(events.Manifest) ([]byte, error)
		signers int
		says    string // "" read
	}{
		"by nobody, to look at it": {},
		"by a publisher":           {seal: func(m events.Manifest) ([]byte, error) { return manifest.Seal(m, key) }, signers: 1},
		"at another time": {seal: func(m events.Manifest) ([]byte, error) {
			m.Published = published.Add(-time.Hour)
			return manifest.Seal(m, key)
		}, signers: 1},
		"by a key that cannot be opened": {seal: func(events.Manifest) ([]byte, error) { return nil, refuse },
			says: "sign manifest of hello 2.10-3: no passphrase"},
		"with something else signed": {seal: func(m events.Manifest) ([]byte, error) { m.Version = "3"; return manifest.Seal(m, key) },
			says: "what was signed is not the manifest of hello 2.10-3"},
		"with something that is no envelope": {seal: func(m events.Manifest) ([]byte, error) { return manifest.Encode(m) }, says: "not a manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Seal = c.seal
			p, err := Read(t.Context(), directory(t), o)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			signed, err := manifest.Verify(p.Envelope, trust.Bundle{Publishers: []sign.PublicKey{ada}})
			if (err == nil) != (c.signers == 1) || err == nil && !cmp.Equal(signed, p.Manifest) || p.Digest != events.DigestOf(p.Envelope) {
				t.Errorf("%+v, %v", signed, err)
			}
		})
	}
}
