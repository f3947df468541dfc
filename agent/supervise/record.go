package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Names in a run's directory.
const (
	lockFile    = "lock"
	specFile    = "spec.json"
	startedFile = "started"
	processFile = "process.json"
	killFile    = "kill"
	outputFile  = "output"
	outcomeFile = "outcome.json"
	logFile     = "supervisor.log"
)

const (
	maxRecord    = 16 << 20 // bytes of any record: a spec of the greatest size, escaped
	maxErrorText = 2 << 10  // so that an outcome fits the room reserved for it
	outcomeRoom  = 16 << 10
)

// plan is spec.json: the Spec and the group that the agent made for the run.
type plan struct {
	Spec
	Group string `json:"group,omitempty"` // cgroup directory; the supervisor is in it, the program in a child
}

// start is the file "started".
type start struct {
	SupervisorPID   int       `json:"supervisor_pid"`
	SupervisorStart string    `json:"supervisor_start,omitempty"` // as in process
	Group           string    `json:"group,omitempty"`            // cgroup directory of the program alone
	At              time.Time `json:"at"`
}

// process is process.json. Start tells a process from a later one with the same id, also across a reboot.
type process struct {
	PID   int    `json:"pid"`
	Start string `json:"start"`
}

func readRecord(dir, name string, into any) error {
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxRecord+1))
	if err != nil {
		return err
	}
	if len(data) > maxRecord {
		return fmt.Errorf("read %s: over %d bytes", file.Name(), maxRecord)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", file.Name(), err)
	}
	return nil
}

// writeRecord is atomic and on the disk when it returns.
func writeRecord(dir, name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return writeSynced(dir, name, data)
}

func writeSynced(dir, name string, data []byte) error {
	temporary := filepath.Join(dir, name+".tmp")
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	// Truncated after writing, not before: the blocks that reserveOutcome took stay ours.
	_, err = file.WriteAt(data, 0)
	err = errors.Join(err, file.Truncate(int64(len(data))), file.Sync(), file.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", temporary, err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDirectory(dir)
}

// reserveOutcome takes the disk space of the outcome in advance.
func reserveOutcome(dir string) error {
	file, err := os.OpenFile(filepath.Join(dir, outcomeFile+".tmp"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(bytes.Repeat([]byte{' '}, outcomeRoom))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("reserve room for the outcome: %w", err)
	}
	return nil
}

func writeOutcome(dir string, outcome Outcome) error {
	if len(outcome.Error) > maxErrorText {
		outcome.Error = outcome.Error[:maxErrorText]
	}
	return writeRecord(dir, outcomeFile, outcome)
}

func exists(dir, name string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
