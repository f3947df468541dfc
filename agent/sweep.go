package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"chandler/agent/identity"
	"chandler/agent/supervise"
)

// sweep forgets what is old, and removes what ended runs left on the disk.
func (a *Agent) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		now := a.Clock()
		if err := a.journal.Forget(a.reporter.ForgetBefore(), now.Add(-a.KeepJobs)); err != nil {
			a.log.WarnContext(ctx, "journal not swept", "error", err)
		}
		a.sweepRuns(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// runRoots are the directories of runs: one that is closed to everybody, and one that users can pass through to
// what is theirs, for programs that run as them.
func (a *Agent) runRoots() [2]string { return [2]string{filepath.Join(a.StateDir, "runs"), a.UserRuns} }

// runDir is where an attempt's supervisor and content are.
func (t *task) runDir() string {
	root := t.a.runRoots()[0]
	if t.who.Executor == identity.User && privileged() {
		root = t.a.runRoots()[1]
	}
	name := fmt.Sprintf("%s-%d", t.job.Offer.Job, t.job.Offer.Attempt)
	if t.step != nil {
		name += fmt.Sprintf("-%d", t.job.Passed+1)
	}
	return filepath.Join(root, name)
}

// openRuns makes the directory around a run's: the one for users' runs may be passed through, not listed. One that
// somebody else made is refused.
func (a *Agent) openRuns(dir string) error {
	root := filepath.Dir(dir)
	if err := makeRuns(root, root == a.UserRuns); err != nil {
		return fmt.Errorf("make directory of runs: %w", err)
	}
	return nil
}

// cleanUp removes what the attempts of an ended job left on the disk. A program that is watched no longer
// but still runs keeps its directory; the sweep comes back for it.
func (a *Agent) cleanUp(job string) {
	var dirs []string
	for _, root := range a.runRoots() {
		found, err := filepath.Glob(filepath.Join(root, job+"-*"))
		if err != nil {
			return
		}
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		if r, err := supervise.Attach(dir); err == nil && r.InUse() {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			a.log.Warn("run directory not removed, it is tried again later", "dir", dir, "error", err)
		}
	}
}

// sweepRuns removes run directories whose jobs have ended (their removal failed then, or the agent died
// before it) or are forgotten.
func (a *Agent) sweepRuns(ctx context.Context) {
	var dirs []os.DirEntry
	for _, root := range a.runRoots() {
		found, err := os.ReadDir(root)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.log.WarnContext(ctx, "directory of runs not read", "error", err)
		}
		dirs = append(dirs, found...)
	}
	for _, d := range dirs {
		id, _, _ := strings.Cut(d.Name(), "-")
		job, ok, err := a.journal.Job(id)
		if err == nil && (!ok || job.Ended()) && a.Clock().Sub(job.Last.At) > time.Minute {
			a.cleanUp(id)
		}
		if ctx.Err() != nil {
			return
		}
	}
}
