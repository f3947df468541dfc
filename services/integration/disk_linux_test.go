package integration

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"chandler/events"
)

// smallDisk puts a file system of a few MiB at dir, which it makes.
func smallDisk(t *testing.T, dir string, mib int) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mib)); err != nil {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatalf("mount a small file system: %v", err)
		}
		t.Skipf("a small file system must be mounted, run this test as root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// fill takes all room of the file system of dir, until the returned function is called.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	defer file.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = file.Write(block)
	}
	if !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		t.Fatalf("fill %s: %v", dir, err)
	}
	return func() { must(t, os.Remove(name)) }
}

func TestAnAgentWaitsForRoomInItsCache(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("full", func(a *agentFile) { smallDisk(t, filepath.Join(a.StateDir, "cache"), 4) })
	big := make([]byte, 2<<20)
	_, err := rand.Read(big)
	must(t, err)
	p := f.publish("1.0", big, "")
	f.everyone(1)
	free := fill(t, filepath.Join(m.file.StateDir, "cache"))
	f.deploy("tight", p)
	f.retries("tight", m, events.DiskFull)
	free()
	f.want("tight", m, events.Succeeded)
	f.check("tight", m)
	if ran := m.ran(); len(ran) != 1 {
		t.Errorf("ran %v", ran)
	}
	if got, err := os.ReadFile(filepath.Join(m.root(), "payload")); err != nil || !bytes.Equal(got, big) {
		t.Errorf("installed %d bytes, %v", len(got), err)
	}
}

// TestAnAgentStandsStillWhileItsJournalHasNoRoom fills the disk of the journal alone while programs run and
// new orders come.
func TestAnAgentStandsStillWhileItsJournalHasNoRoom(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var disk string
	m := f.machine("full", func(a *agentFile) {
		disk = filepath.Join(filepath.Dir(a.StateDir), "small")
		smallDisk(t, disk, 2)
		must(t, os.MkdirAll(a.StateDir, 0o700))
		must(t, os.Symlink(filepath.Join(disk, "journal.db"), filepath.Join(a.StateDir, "journal.db")))
	})
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	m.write("hold", "")
	f.deploy("d0", p)
	f.want("d0", m, events.Running)
	m.awaitFile("started")
	free := fill(t, disk)
	const deployments = 12
	for d := 1; d < deployments; d++ {
		f.deploy(fmt.Sprintf("d%d", d), p)
	}
	eventually(t, "the journal cannot be written", func() bool { return strings.Contains(m.log(), syscall.ENOSPC.Error()) })
	m.remove("hold")
	if _, err := os.Stat(filepath.Join(m.file.StateDir, "journal.db")); err != nil {
		t.Fatalf("the journal is gone: %v", err)
	}
	free()
	for d := range deployments {
		f.want(fmt.Sprintf("d%d", d), m, events.Succeeded)
		f.check(fmt.Sprintf("d%d", d), m)
	}
	if ran := m.ran(); len(ran) != deployments {
		t.Errorf("ran %d programs, want %d: %v", len(ran), deployments, ran)
	}
	m.stop()
	if n := m.counted("chandler_agent_journal_failures_total"); n == 0 {
		t.Error("no failure of the journal was counted")
	}
}
