package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"chandler/agent/fleet"
	"chandler/agent/journal"
)

// evidence is what a process of agents saw, as far as nobody keeps it anyway.
type evidence struct {
	mu    sync.Mutex
	acked []fleet.Observation
}

// observe remembers what the broker acknowledged.
func (e *evidence) observe(o fleet.Observation) {
	if o.What != fleet.StatusStored {
		return
	}
	e.mu.Lock()
	e.acked = append(e.acked, o)
	e.mu.Unlock()
}

// evidenceLine is one line of a file of evidence; one of its fields is set.
type evidenceLine struct {
	Run   *fleet.Run         `json:"run,omitempty"`
	Acked *fleet.Observation `json:"acked,omitempty"`
	Agent string             `json:"agent,omitempty"`
	Job   *journal.Job       `json:"job,omitempty"` // of Agent
}

func (e *evidence) write(out *json.Encoder, f *fleet.Fleet, store *journal.Store) error {
	for _, r := range f.Runs() {
		if err := out.Encode(evidenceLine{Run: &r}); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.acked {
		if err := out.Encode(evidenceLine{Acked: &e.acked[i]}); err != nil {
			return err
		}
	}
	return fleet.Journals(store, func(agent string, job journal.Job) error {
		return out.Encode(evidenceLine{Agent: agent, Job: &job})
	})
}

// readEvidence gives each line of a file of evidence.
func readEvidence(name string, each func(evidenceLine)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for in := json.NewDecoder(f); ; {
		var l evidenceLine
		switch err := in.Decode(&l); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", name, err)
		}
		each(l)
	}
}
