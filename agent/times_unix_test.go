//go:build unix

package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTheSystemsZoneIsTheOneItIsSetToNow(t *testing.T) {
	t.Setenv("TZ", "")
	file := filepath.Join(t.TempDir(), "localtime")
	s := newSystemZone()
	s.path = file
	if s.location() != time.Local {
		t.Error("without a file it is not the one it began with")
	}
	for _, name := range []string{"Europe/Oslo", "America/New_York"} {
		os.Remove(file)
		if err := os.Symlink("/usr/share/zoneinfo/"+name, file); err != nil {
			t.Fatal(err)
		}
		if got := s.location().String(); got != name {
			t.Errorf("set to %s it is %s", name, got)
		}
	}
}
