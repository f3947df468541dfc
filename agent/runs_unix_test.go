//go:build unix

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestProgramsOfUsersRunInADirectoryThatTheyPassThrough(t *testing.T) {
	m := newMachine(t)
	m.UserRuns = filepath.Join(t.TempDir(), "runs")
	if err := m.openRuns(filepath.Join(m.UserRuns, "job-1")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(m.UserRuns); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(m.UserRuns, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := m.openRuns(filepath.Join(m.UserRuns, "job-2")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(m.UserRuns); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("opened to all it stays %v, %v", info.Mode(), err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(m.UserRuns, link); err != nil {
		t.Fatal(err)
	}
	if m.UserRuns = link; m.openRuns(filepath.Join(link, "job-1")) == nil {
		t.Error("a link is followed")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can show that another's directory is refused")
	}
	m.UserRuns = filepath.Join(t.TempDir(), "planted")
	if err := errors.Join(os.Mkdir(m.UserRuns, 0o711), os.Chown(m.UserRuns, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	if m.openRuns(filepath.Join(m.UserRuns, "job-1")) == nil {
		t.Error("a directory that a user made first is used")
	}
}

func TestAProgramWithoutContentHasItsDirectoriesToo(t *testing.T) {
	m := newMachine(t)
	task := m.decided()
	if err := task.stageContent(t.Context()); err != nil || task.content != "" {
		t.Fatalf("content %q, %v", task.content, err)
	}
	if info, err := os.Stat(filepath.Dir(task.runDir())); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of runs: %v, %v", info, err)
	}
}
