package supervise_test

import (
	"os"
	"path/filepath"
	"testing"

	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
)

func TestAccessesAreReadOnAlsoWhereALineIsTorn(t *testing.T) {
	dir := supervisetest.TempDir(t)
	run, err := supervise.Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, step := range []struct {
		content string
		found   int
	}{
		{"", 0},
		{`{"resource":"smb://f/a"}` + "\n", 1},
		{`{"resource":"smb://f/a"}` + "\n" + `{"resour`, 0},
		{`{"resource":"smb://f/a"}` + "\n" + `{"resource":"smb://f/b"}` + "\n" + `{"resource":"smb://f/c"}` + "\n", 2},
		{`{"resource":"smb://f/a"}` + "\n" + `{"resource":"smb://f/b"}` + "\n" + `{"resource":"smb://f/c"}` + "\n{\"res\n" + `{"resource":"smb://f/d"}` + "\n", 1},
		{`{"resource":"smb://f/a"}` + "\n", 0},
	} {
		if err := os.WriteFile(filepath.Join(dir, "accesses.jsonl"), []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		found, after, err := run.Accesses(next)
		if err != nil || len(found) != step.found || after != next+step.found {
			t.Errorf("%q: %+v, %d, %v", step.content, found, after, err)
		}
		next = after
	}
}
