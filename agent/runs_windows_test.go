package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

func TestProgramsOfUsersRunInADirectoryThatTheyPassThrough(t *testing.T) {
	m := newMachine(t)
	m.UserRuns = filepath.Join(t.TempDir(), "runs")
	for range 2 { // it is made, and found
		if err := m.openRuns(filepath.Join(m.UserRuns, "job-1")); err != nil {
			t.Fatal(err)
		}
		sd, err := windows.GetNamedSecurityInfo(m.UserRuns, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
		if err != nil {
			t.Fatal(err)
		}
		// Wine keeps a mode instead of the list.
		if text := sd.String(); strings.Contains(text, ";FA;;;BU)") || strings.Contains(text, ";FA;;;WD)") {
			t.Errorf("it is open to all: %s", text)
		}
	}
	if err := os.WriteFile(filepath.Join(m.UserRuns, "file"), nil, 0o600); err != nil {
		t.Errorf("it is closed to the agent: %v", err)
	}
	m.UserRuns = filepath.Join(m.UserRuns, "file")
	if m.openRuns(filepath.Join(m.UserRuns, "job-1")) == nil {
		t.Error("a file is used as a directory")
	}
}
