//go:build unix

package local

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestUsersCanPassToTheSocketAlsoUnderAStrictUmask(t *testing.T) {
	root, err := os.MkdirTemp("", "local") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	defer syscall.Umask(syscall.Umask(0o077))
	dir := filepath.Join(root, "run")
	l, err := listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for path, want := range map[string]os.FileMode{dir: 0o755, filepath.Join(dir, "s"): 0o666} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v", path, st.Mode(), err)
		}
	}
}

func TestTheDirectoryOfAnAgentsStateStaysItsOwn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := makeDirectory(dir); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestASocketIsNotPutWhereALinkLeads(t *testing.T) {
	dir := t.TempDir()
	theirs, link := filepath.Join(dir, "theirs"), filepath.Join(dir, "link")
	if err := os.Mkdir(theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(theirs, link); err != nil {
		t.Fatal(err)
	}
	if err := makeDirectory(link); err == nil {
		t.Error("a link is taken for the directory")
	}
}
