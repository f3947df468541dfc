// Package faultfs is a file system for tests: a directory mounted by FUSE that can be slow, full or broken, and that
// knows at every moment what a power cut would leave of it.
//
// Reads, writes and names pass through to a directory. Beside it the file system keeps a second state, the durable
// one, which is what the disk holds and the page cache and the journal do not. [FS.Cut] copies that state elsewhere;
// whoever is to live through the cut is killed and started again on the copy. What is durable follows ext4 with its
// defaults (data=ordered, no fast_commit), and where ext4 promises nothing, the least:
//
//   - What is written to a file is durable once fsync or fdatasync of that file came back, or a write through O_SYNC
//     or O_DSYNC. Without that it is durable after [WrittenBack], when the kernel has written it by itself.
//   - Names (made, renamed, removed) and truncations go, in their order, into one log for the whole file system; what
//     is durable is always a beginning of it. So a rename is not lost alone, but with everything after it; and a
//     truncation can outlive the loss of what was written after it, which leaves an empty file.
//   - An fsync of a file or a directory makes the log durable up to the last change of that very file or directory,
//     with all that came before it, also of others. So the fsync of a new file keeps its name without one of the
//     directory, which ext4 and XFS do and POSIX does not promise; a rename without an fsync afterwards, of the file
//     or of the directory, can be lost. Without any fsync the log is durable after [Committed].
//   - A file that is renamed over another one, or was truncated to nothing and closed, has its data written before
//     that is logged (auto_da_alloc). Options.NoAutoAlloc leaves this out, as XFS does.
//   - After an fsync that failed, what was to be written is given up, and the next fsync succeeds without it.
//
// [FS.Cut] keeps nothing but that; [FS.CutKeeping] keeps a seeded choice of what else a disk may hold: more of the
// log, and of each file none of its unsynced pages, the first of them or any of them. Modes, owners and times are
// durable at once, as nobody here lives by them. There are no hard or symbolic links, no fallocate, no extended
// attributes; what is written through a shared mapping counts when the kernel hands it over.
//
// Under failure: nothing here survives its own process but the directory itself; a test that dies leaves a dead mount.
// Only Linux has it, with /dev/fuse and as root; elsewhere [Mount] says [ErrImpossible].
package faultfs

import (
	"errors"
	"os"
	"time"
)

// ErrImpossible says that this machine cannot mount such a file system.
var ErrImpossible = errors.New("a FUSE file system cannot be mounted here: Linux, root and /dev/fuse are needed")

// What the kernel does by itself, with its defaults.
const (
	Committed   = 5 * time.Second  // the log is written so often (mount option commit)
	WrittenBack = 35 * time.Second // and data that is as old (dirty_expire_centisecs, and the flusher's own interval)
)

// pageSize is the unit in which the kernel writes data back.
const pageSize = 4096

// Op is a kind of operation that can be made to fail.
type Op int

// The kinds, to be joined with |.
const (
	Reads Op = 1 << iota
	Writes
	Syncs
	Names // made, renamed, removed, truncated
)

// Options of Mount.
type Options struct {
	// Dir is where the files really are (in "live") beside what is durable. What it holds in "live" when it is
	// mounted is durable.
	Dir string
	// At is the directory to mount at. Both are made where they are missing.
	At          string
	NoAutoAlloc bool
	Clock       func() time.Time // nil: time.Now
}

// skipper is the part of testing.TB that Need needs.
type skipper interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Need skips a test where [Mount] is impossible; with CHANDLER_TEST_REQUIRE=1 it fails it.
func Need(t skipper) {
	t.Helper()
	err := possible()
	switch {
	case err == nil:
	case os.Getenv("CHANDLER_TEST_REQUIRE") == "1":
		t.Fatalf("%v", err)
	default:
		t.Skipf("%v", err)
	}
}
