package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"chandler/agent/report"
	"chandler/agent/supervise"
	"chandler/events"
)

// sweep forgets what is old, and removes what ended runs left on the disk.
func (a *Agent) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		now := a.Clock()
		if err := a.journal.Forget(now.Add(-report.KeepAcknowledged), now.Add(-a.KeepJobs)); err != nil {
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

// runDir is where an attempt's supervisor and content are.
func (a *Agent) runDir(o events.JobOffer) string {
	return filepath.Join(a.StateDir, "runs", fmt.Sprintf("%s-%d", o.Job, o.Attempt))
}

// cleanUp removes what the attempts of an ended job left on the disk. A program that is watched no longer
// but still runs keeps its directory; the sweep comes back for it.
func (a *Agent) cleanUp(job string) {
	dirs, err := filepath.Glob(filepath.Join(a.StateDir, "runs", job+"-*"))
	if err != nil {
		return
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
	dirs, err := os.ReadDir(filepath.Join(a.StateDir, "runs"))
	if err != nil {
		return
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
