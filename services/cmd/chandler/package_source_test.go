package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/manifest"
	"chandler/services/content/publish"
	"chandler/services/declared"
)

// shelf is a source with files by their address, below folders.
type shelf struct {
	files  map[string]string
	fail   error // of every opening
	cut    error // of every reading
	logins []string
}

func (s *shelf) Open(_ context.Context, address string, login source.Login) (source.Object, error) {
	s.logins = append(s.logins, fmt.Sprintf("%s %s %s", address, login.User, login.Secret))
	if s.fail != nil {
		return nil, s.fail
	}
	text, ok := s.files[address]
	if !ok && strings.HasSuffix(address, "missing") {
		return nil, &source.Error{Reason: events.SourceNotFound, Answer: source.Answer("no such file", source.FileNotFound)}
	}
	return &shelved{Reader: strings.NewReader(text), shelf: s, info: source.Info{Folder: !ok, Size: int64(len(text)), Mode: 0o640}}, nil
}

type shelved struct {
	*strings.Reader
	shelf *shelf
	info  source.Info
}

func (o *shelved) Info() source.Info { return o.info }
func (o *shelved) Close() error      { return nil }

func (o *shelved) List(context.Context) ([]source.Info, error) {
	return []source.Info{{Name: "a"}, {Name: "b", Folder: true}}, o.shelf.cut
}

func (o *shelved) ReadAt(_ context.Context, p []byte, offset int64) (int, error) {
	if o.shelf.cut != nil {
		return 0, o.shelf.cut
	}
	return o.Reader.ReadAt(p, offset)
}

func reads(s *shelf, login source.Login) *outside {
	return &outside{sources: map[string]source.Source{"smb": s, "https": s, "file": s}, login: login}
}

func TestAnExternalSourceIsReadByItsLogin(t *testing.T) {
	s := &shelf{files: map[string]string{"smb://files/apps/a": "hello"}}
	o := reads(s, source.Login{User: `EXAMPLE\ada`, Secret: []byte("hunter2")})
	f, err := o.Open(t.Context(), "smb://files/apps/a")
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
	if err != nil || string(data) != "hello" || f.Size() != 5 || f.Mode() != 0o640 {
		t.Errorf("%q, %d bytes, mode %v, %v", data, f.Size(), f.Mode(), err)
	}
	entries, err := o.List(t.Context(), "smb://files/apps")
	if diff := cmp.Diff([]publish.OutsideEntry{{Name: "a"}, {Name: "b", Folder: true}}, entries); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if diff := cmp.Diff([]string{`smb://files/apps/a EXAMPLE\ada hunter2`, `smb://files/apps EXAMPLE\ada hunter2`}, s.logins); diff != "" {
		t.Error(diff)
	}
	secret := o.login.Secret
	if o.close(); string(secret) != strings.Repeat("\x00", 7) {
		t.Errorf("the secret is there still: %q", secret)
	}
}

func TestALoginIsShownToOneHostAlone(t *testing.T) {
	s := &shelf{files: map[string]string{"smb://files/a": "", "https://evil/a": "", "file:///a": ""}}
	o := reads(s, source.Login{User: "ada", Secret: []byte("hunter2")})
	if _, err := o.Open(t.Context(), "smb://files/a"); err != nil {
		t.Error(err)
	}
	if _, err := o.Open(t.Context(), "https://evil/a"); err == nil || !strings.Contains(err.Error(), "the login is for files alone") {
		t.Errorf("error: %v", err)
	}
	if _, err := o.Open(t.Context(), "file:///a"); err != nil {
		t.Errorf("a local file: %v", err)
	}
	if diff := cmp.Diff([]string{"smb://files/a ada hunter2", "file:///a  "}, s.logins); diff != "" {
		t.Error(diff)
	}
}

func TestAFailureSaysWhoTriedWhatAndWhatWasAnswered(t *testing.T) {
	ada := source.Login{User: "ada", Secret: []byte("hunter2")}
	rejected := &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("logon refused", source.LogonRefused)}
	denied := &source.Error{Reason: events.NetworkAccessDenied, Answer: source.Answer("access denied", source.AccessDenied)}
	for name, c := range map[string]struct {
		login  source.Login
		fail   error
		cut    error
		says   string
		absent bool
		tried  int // of two
	}{
		"a wrong secret":     {ada, rejected, nil, `reading \\files\apps\a as ada: credential_rejected: logon refused (1326/0x8007052E)`, false, 1},
		"no rights":          {ada, denied, nil, `reading \\files\apps\a as ada: network_access_denied: access denied (5/0x80070005)`, false, 2},
		"no login":           {source.Login{}, denied, nil, `as nobody (without a login): network_access_denied: access denied (5/0x80070005); say --source-user, or --source-dir`, false, 2},
		"a token":            {source.Login{Method: events.ByBearer, Secret: []byte("x")}, denied, nil, `as the holder of a bearer: network_access_denied`, false, 2},
		"something else":     {ada, errors.New("odd"), nil, `reading \\files\apps\a as ada: odd`, false, 2},
		"gone while reading": {ada, nil, &source.Error{Reason: events.ContentChanged, Answer: "another file"}, `reading \\files\apps\a as ada: content_changed: another file`, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{files: map[string]string{"smb://files/apps/a": "hello"}, fail: c.fail, cut: c.cut}
			o := reads(s, c.login)
			for range 2 {
				f, err := o.Open(t.Context(), "smb://files/apps/a")
				if err == nil {
					_, err = f.ReadAt(make([]byte, 2), 0)
				}
				if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2") || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("error: %v", err)
				}
			}
			if len(s.logins) != c.tried {
				t.Errorf("tried %d times", len(s.logins))
			}
		})
	}
	o := reads(&shelf{files: map[string]string{"smb://files/apps/a": ""}}, ada)
	if _, err := o.Open(t.Context(), "smb://files/missing"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "source_not_found: no such file (2/0x80070002)") {
		t.Errorf("error: %v", err)
	}
	if _, err := o.Open(t.Context(), "smb://files/apps"); err == nil || !strings.Contains(err.Error(), "is a folder, not a file") {
		t.Errorf("error: %v", err)
	}
	if _, err := o.List(t.Context(), "smb://files/apps/a"); err == nil || !strings.Contains(err.Error(), "is a file") {
		t.Errorf("error: %v", err)
	}
	if _, err := o.Open(t.Context(), "oci://files/apps"); err == nil || !strings.Contains(err.Error(), "nothing here reads oci://") {
		t.Errorf("error: %v", err)
	}
}

// outerPackage is a package directory whose files lie at smb://files.example/software/hello, and the directory where they are.
func outerPackage(t *testing.T, lines string) (dir, mounted string) {
	t.Helper()
	dir, mounted = t.TempDir(), t.TempDir()
	spec := "api: chandler/v1\npackage: outer\nversion: \"1\"\nsource: \\\\files.example\\software\\hello\n" + lines
	for path, text := range map[string]string{filepath.Join(dir, "package.yaml"): spec, filepath.Join(mounted, "setup.sh"): "echo"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, mounted
}

func TestPackageWithASourceIsShownWithWhereItsFilesLie(t *testing.T) {
	f := helloFleet(t)
	dir, mounted := outerPackage(t, "programs: {install: {command: [sh, setup.sh], run: administrative, references: [{url: smb://files.example/licences, optional: true}]}}\n")
	for _, at := range []string{mounted, "smb://files.example/software/hello=" + mounted, `\\FILES.example\software\hello=` + mounted, "smb://files.example/software=" + filepath.Dir(mounted)} {
		if strings.HasSuffix(at, filepath.Dir(mounted)) {
			if err := os.Symlink(filepath.Base(mounted), filepath.Join(filepath.Dir(mounted), "hello")); err != nil {
				t.Skip("symbolic links need a privilege here:", err)
			}
		}
		code, stdout, stderr := command(t, f.app, "", "package", "publish", dir, "--dry-run", "--source-dir", at)
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		for _, says := range []string{`\\files.example\software\hello`, `  at \\files.example\software\hello\setup.sh`, events.DigestOf([]byte("echo")), `\\files.example\licences, unverified, optional`} {
			if !strings.Contains(stdout, says) {
				t.Errorf("it does not say %q: %s", says, stdout)
			}
		}
		for _, says := range []string{"no_network_identity", `read unverified while it runs, whatever lies there then: \\files.example\licences`} {
			if !strings.Contains(stderr, says) {
				t.Errorf("it does not note %q: %s", says, stderr)
			}
		}
	}
}

func TestPackageWithALocalSourceIsReadThere(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("its paths are others")
	}
	f := helloFleet(t)
	dir, mounted := t.TempDir(), t.TempDir()
	for path, c := range map[string]struct {
		text string
		mode fs.FileMode
	}{
		filepath.Join(dir, "package.yaml"): {"api: chandler/v1\npackage: local\nversion: \"1\"\nsource: file://" + mounted + "\nprograms: {install: {command: [./setup.sh], run: administrative}}\n", 0o600},
		filepath.Join(mounted, "setup.sh"): {"echo", 0o700},
		filepath.Join(mounted, "notes"):    {"some", 0o600},
	} {
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := command(t, f.app, "", "package", "publish", dir, "--dry-run", "-o", "json")
	if code != 0 || !strings.Contains(stderr, "is on each machine's own disk") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var m events.Manifest
	if err := json.Unmarshal([]byte(stdout), &m); err != nil {
		t.Fatal(err)
	}
	want := []events.File{{Path: "notes", Size: 4, Mode: 0o644, SHA256: events.DigestOf([]byte("some"))}, {Path: "setup.sh", Size: 4, Mode: 0o755, SHA256: events.DigestOf([]byte("echo"))}}
	if diff := cmp.Diff(want, m.Files); diff != "" {
		t.Error(diff)
	}
}

func TestPackagePublishRefusesFlagsOfSourcesThatMakeNoSense(t *testing.T) {
	f := helloFleet(t)
	dir, mounted := outerPackage(t, "programs: {install: {command: [sh, setup.sh], run: user}}\n")
	for says, args := range map[string][]string{
		`--source-method "basic": it must be`:       {dir, "--source-method", "basic"},
		"--source-secret-file is for a login":       {dir, "--source-secret-file", "-"},
		"write ADDRESS=DIR":                         {dir, "--source-dir", "smb://files/a"},
		"the address must not name a user":          {dir, "--source-dir", "smb://a:b@files/a=" + mounted},
		"there is another one for the same address": {dir, "--source-dir", mounted, "--source-dir", mounted},
		"are for packages with a package.yaml":      {filepath.Join(mounted, "setup.sh"), "--run", "user", "--source-user", "ada"},
		"the secret is empty":                       {dir, "--source-user", "ada"},
		"no file is read from there":                {dir, "--source-dir", t.TempDir()},
		"no such file or directory":                 {dir, "--source-dir", filepath.Join(mounted, "nothing")},
	} {
		code, _, stderr := command(t, f.app, "", append([]string{"package", "publish", "--dry-run"}, args...)...)
		if code == 0 || !strings.Contains(stderr, says) {
			t.Errorf("%q: exit code %d: %s", args, code, stderr)
		}
	}
}

func TestPackageWithLooseReferencesIsRefusedWhereTheFleetWantsThemPinned(t *testing.T) {
	m := events.Manifest{Programs: map[string]events.Program{"a": {}, "b": {References: []events.Reference{{URL: "smb://files/a", SHA256: events.DigestOf(nil)}, {URL: "smb://files/b"}}}}}
	if err := referencesPinned(m, false); err != nil {
		t.Error(err)
	}
	if err := referencesPinned(m, true); err == nil || !strings.Contains(err.Error(), "program b has smb://files/b") {
		t.Errorf("error: %v", err)
	}
}

func TestWhoeverSignsADeploymentOfAPackageIsShownWhatItMayRead(t *testing.T) {
	f := helloFleet(t)
	f.publish(t, events.Manifest{API: manifest.API, Package: "hello", Version: "2.10-3", Source: "smb://files.example/hello",
		Files: []events.File{{Path: "hello.sh", SHA256: events.DigestOf(nil), Mode: 0o644}},
		Programs: map[string]events.Program{"install": {Command: events.Command{Argv: []string{"sh", "hello.sh"}}, Run: events.RunAdministrative,
			References: []events.Reference{{URL: "https://files.example/licences"}}}}})
	_, stdout, stderr := command(t, f.app, "", "deployment", "create", "everywhere", "--package", "hello@2.10-3", "--program", "install", "--to", "office", "--dry-run")
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(where, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.bus.Conn().Close()
	s := f.signer(t)
	p, err := newLookups(c, s.trust).propose(t.Context(), declared.Deployment{Deployment: "everywhere", Program: "hello@2.10-3/install", Collection: "office"}, testNow)
	if err != nil {
		t.Fatal(err)
	}
	var described strings.Builder
	if err := f.app.describe(t.Context(), &described, c, s, p.order, nil, []string{"agent0002"}); err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{stdout + stderr, described.String()} {
		for _, says := range []string{"May be helped to read", `\\files.example\hello`, "https://files.example/licences"} {
			if !strings.Contains(shown, says) {
				t.Errorf("it does not say %q: %s", says, shown)
			}
		}
	}
}
