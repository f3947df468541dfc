package supervise_test

import (
	"os"
	"path/filepath"
	"testing"

	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
)

// FuzzRecords reads run directories whose files hold anything: nothing panics, and nothing that cannot be
// read permits a second start.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"job":"j","attempt":1,"argv":["/bin/true"],"dir":"/"}`), []byte(`{}`), []byte(`{"started":true,"exit_code":0}`))
	f.Add([]byte("{"), []byte("x"), []byte{0xff})
	f.Fuzz(func(t *testing.T, spec, started, outcome []byte) {
		dir := supervisetest.TempDir(t)
		for name, data := range map[string][]byte{"spec.json": spec, "started": started, "outcome.json": outcome, "accesses.jsonl": outcome} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		run, err := supervise.Attach(dir)
		if err != nil {
			return
		}
		if run.State() == supervise.NotStarted {
			t.Fatal("a run that has a start record counts as not started")
		}
		run.InUse()
		_, _ = run.Spec()
		_, _ = run.Supervisor()
		if found, next, _ := run.Accesses(0); next != len(found) {
			t.Fatalf("%d accesses, then %d", len(found), next)
		}
	})
}
