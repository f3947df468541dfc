package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"chandler/events"
)

// TestContentIsGoneOrWrongOnTheDistributionPoint damages blobs before agents fetch them. The jobs are tried
// again and succeed once the same packages were published again, which repairs the blobs.
func TestContentIsGoneOrWrongOnTheDistributionPoint(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	gone, wrong := f.publish("1.0", []byte("will be gone\n"), ""), f.publish("2.0", []byte("will be wrong\n"), "")
	fine := f.publish("3.0", payload, "")
	f.everyone(1)
	must(t, os.Remove(f.blob(gone)))
	must(t, os.WriteFile(f.blob(wrong), bytes.Repeat([]byte{'x'}, len("will be wrong\n")), 0o600))

	f.deploy("gone", gone)
	f.deploy("wrong", wrong)
	f.retries("gone", m, events.ContentUnavailable)
	f.retries("wrong", m, events.ContentMismatch)
	f.worksAsBefore(fine, m)

	f.publishAgain(gone)
	f.publishAgain(wrong) // finds the decayed blob though it has its size
	for _, deployment := range []string{"gone", "wrong"} {
		f.want(deployment, m, events.Succeeded)
		f.check(deployment, m)
	}
	if ran := m.ran(); len(ran) != 3 {
		t.Errorf("ran %v", ran)
	}
}

// blob is where content keeps the payload of the probe.
func (f *fleet) blob(p events.PackageInfo) string {
	f.t.Helper()
	i := slices.IndexFunc(p.Manifest.Files, func(file events.File) bool { return file.Path == "payload" })
	digest := p.Manifest.Files[i].SHA256
	return filepath.Join(f.dir, "blobs", "blobs", digest[:2], digest)
}

// retries waits until a job is tried again for a reason.
func (f *fleet) retries(deployment string, m *machine, reason events.Reason) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("%s is tried again: %s", deployment, reason), func() bool {
		return slices.ContainsFunc(f.statuses(deployment, m), func(s events.JobStatus) bool {
			return s.State == events.Retrying && s.Reason == reason && s.Explanation != ""
		})
	})
	eventually(f.t, "the retry is counted", func() bool {
		return f.counted("execution", "chandler_execution_retries_total", fmt.Sprintf(`reason=%q`, string(reason))) >= 1
	})
}
