package elevate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"chandler/events"
)

const (
	namePrefix   = "chandler-" // of records and rules
	recordSuffix = ".json"
	maxRecord    = 1 << 20 // bytes
)

// record is NAME.json: what may have been given, and what is to be told about it.
type record struct {
	Name string `json:"name"` // chandler-JOB-ATTEMPT
	Grant
	// Standing: the account had the rights before, and keeps them.
	Standing bool      `json:"standing,omitempty"`
	Since    time.Time `json:"since"`
	// Taken: nothing is given any more; the record stays until all is told.
	Taken bool     `json:"taken,omitempty"`
	Notes []untold `json:"notes,omitempty"` // oldest first
}

// saying is one of the events that tell of an account.
type saying string

const (
	elevated saying = "elevated"
	returned saying = "returned"
	restored saying = "restored"
)

func (s saying) event() (events.Type[events.AccountNote], bool) {
	switch s {
	case elevated:
		return events.AgentAccountElevated, true
	case returned:
		return events.AgentAccountReturned, true
	case restored:
		return events.AgentAccountRestored, true
	}
	return events.Type[events.AccountNote]{}, false
}

// untold is a note that nobody has taken yet.
type untold struct {
	Saying saying             `json:"saying"`
	Note   events.AccountNote `json:"note"`
}

func (r *record) add(as saying, note events.AccountNote) {
	r.Notes = append(r.Notes[:len(r.Notes):len(r.Notes)], untold{as, note})
}

func (r record) valid() error {
	token, found := strings.CutPrefix(r.Name, namePrefix)
	if !found || strings.ContainsAny(token, "./\\") || !filepath.IsAbs(r.Dir) || r.Account.Name == "" {
		return fmt.Errorf("record %q of account %q is not one", r.Name, r.Account.Name)
	}
	for _, note := range r.Notes {
		if _, known := note.Saying.event(); !known {
			return fmt.Errorf("record %q: nothing is told as %q", r.Name, note.Saying)
		}
	}
	return nil
}

// store is the directory of records, which survives the agent.
type store struct {
	dir string
	log *slog.Logger
}

func openStore(dir string, log *slog.Logger) (store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return store{}, err
	}
	return store{dir, log}, nil
}

// read gives the records that can be read, and the names of those that are none, with why. An error says that a record
// could not be read: it may be the next time.
func (s store) read() (records []record, damaged map[string]error, failed error) {
	entries, failed := os.ReadDir(s.dir)
	damaged = map[string]error{}
	for _, entry := range entries {
		name, found := strings.CutSuffix(entry.Name(), recordSuffix)
		if !found || !strings.HasPrefix(name, namePrefix) {
			continue
		}
		data, err := readFile(filepath.Join(s.dir, entry.Name()), maxRecord)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		r, err := parseRecord(data)
		if err == nil && r.Name != name {
			err = fmt.Errorf("it calls itself %q", r.Name)
		}
		if err != nil {
			damaged[entry.Name()] = err
			continue
		}
		records = append(records, r)
	}
	return records, damaged, failed
}

func parseRecord(data []byte) (record, error) {
	var r record
	if len(data) > maxRecord {
		return r, fmt.Errorf("over %d bytes", maxRecord)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, err
	}
	return r, r.valid()
}

// setAside makes the rules of damaged records strays, which say themselves whose they are.
func (s store) setAside(damaged map[string]error) (failed error) {
	for name, why := range damaged {
		s.log.Error("a record of given rights is unreadable", "component", "elevate", "file", name, "error", why)
		path := filepath.Join(s.dir, name)
		failed = errors.Join(failed, os.Rename(path, strings.TrimSuffix(path, recordSuffix)+".unreadable"))
	}
	return failed
}

// save is atomic and on the disk when it returns.
func (s store) save(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", r.Name, err)
	}
	path := filepath.Join(s.dir, r.Name+recordSuffix)
	if err := writeSynced(path+".tmp", data, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDirectory(s.dir)
}

// keep saves a record that has something left to say, and removes any other.
func (s store) keep(r record) error {
	if !r.Taken || len(r.Notes) > 0 {
		return s.save(r)
	}
	return removeSynced(filepath.Join(s.dir, r.Name+recordSuffix))
}

// writeSynced replaces the file, which nobody else can have opened before.
func writeSynced(path string, data []byte, mode os.FileMode) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	// The umask may have taken bits away.
	if err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// removeSynced returns nil when the file is certainly gone, also after a crash.
func removeSynced(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncDirectory(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func readFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit+1))
}
