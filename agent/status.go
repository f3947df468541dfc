package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"chandler/agent/enrol"
	"chandler/agent/journal"
	"chandler/events"
)

// Status is what an agent says about itself on its own machine, with or without a broker.
type Status struct {
	ID        string          `json:"id"`
	Version   string          `json:"version"`
	PID       int             `json:"pid,omitempty"` // 0: the agent does not run
	Written   time.Time       `json:"written"`
	Servers   []string        `json:"servers,omitempty"`
	Connected bool            `json:"connected"`
	Fleet     string          `json:"fleet,omitempty"`
	Identity  *enrol.State    `json:"identity,omitempty"` // nil: the broker asks for none
	Facts     events.Facts    `json:"facts"`
	Freezes   []events.Freeze `json:"freezes,omitempty"`
	// External are the schemes of the external sources that the agent reads; References why programs' references cannot be
	// mounted by it, "" where they can.
	External   []string           `json:"external,omitempty"`
	References string             `json:"references,omitempty"`
	Jobs       []events.JobStatus `json:"jobs"` // the last transition of the jobs under way, and of the last few that ended
}

const statusFile = "status.json"

// ReadStatus reads the status below a state directory: the journal's if no agent runs, else what the
// running agent last wrote, every few seconds.
func ReadStatus(dir string) (Status, error) {
	var s Status
	data, err := os.ReadFile(filepath.Join(dir, statusFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("no agent has run with state directory %s", dir)
	}
	if err != nil {
		return s, fmt.Errorf("read status: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read status: %w", err)
	}
	store, err := journal.Open(filepath.Join(dir, "journal.db"))
	if errors.Is(err, journal.ErrLocked) {
		return s, nil // by the running agent, whose word is a few seconds old at most
	}
	if err != nil {
		return s, err
	}
	defer store.Close()
	s.PID, s.Connected = 0, false
	j, err := store.Agent(s.ID)
	if err != nil {
		return s, err
	}
	s.Jobs, err = lastStatuses(j)
	return s, err
}

// recentJobs is how many ended jobs a status lists.
const recentJobs = 50

// lastStatuses lists the jobs under way and the last few that ended, newest last.
func lastStatuses(j *journal.Journal) ([]events.JobStatus, error) {
	var live, ended []events.JobStatus
	err := j.Statuses(func(s events.JobStatus) {
		if s.State.Terminal() {
			ended = append(ended, s)
		} else {
			live = append(live, s)
		}
	})
	byTime := func(a, b events.JobStatus) int { return a.At.Compare(b.At) }
	slices.SortFunc(ended, byTime)
	slices.SortFunc(live, byTime)
	return append(ended[max(0, len(ended)-recentJobs):], live...), err
}

const statusEvery = 2 * time.Second

// keepStatus writes the status file soon after something in it has changed.
func (a *Agent) keepStatus(ctx context.Context) error {
	a.changed.Store(true)
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		if a.changed.Swap(false) {
			if err := a.writeStatus(); err != nil {
				a.changed.Store(true)
				a.log.WarnContext(ctx, "status file not written", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *Agent) writeStatus() error {
	jobs, err := lastStatuses(a.journal)
	if err != nil {
		return err
	}
	var identity *enrol.State
	if a.Enrolment != nil {
		state := a.Enrolment.State()
		identity = &state
	}
	a.mu.Lock()
	s := Status{ID: a.id, Version: Version, PID: os.Getpid(), Written: a.Clock().UTC(), Servers: a.Servers, Connected: a.conn.IsConnected(),
		Fleet: a.trust().Fleet, Identity: identity, Facts: a.facts, Freezes: a.freezes, External: slices.Sorted(maps.Keys(a.External)), References: a.unmountable, Jobs: jobs}
	a.mu.Unlock()
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(a.StateDir, statusFile)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
