// Package journal is what an agent knows of its own past: the jobs it was given, how far each got, what
// it said about them and whether that was stored. It is one bbolt file; agents of one process may share
// one (their commits are then grouped), each in a bucket of its own.
//
// Under failure: every method that writes returns after the change is synced to the disk, so a killed
// agent or a power cut neither loses nor repeats a job. A file that cannot be opened is an error; a
// journal is never silently begun anew.
package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"chandler/events"
)

// Store is the file.
type Store struct {
	db      *bbolt.DB
	commits *commits
}

// ErrLocked says that another process has the file open.
var ErrLocked = errors.New("another agent runs on it")

// Open opens or makes the file. It fails with ErrLocked after a second when another process holds it: two
// agents must not run on one state directory.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open journal %s: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	return &Store{db, &commits{db: db}}, nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Journal is one agent's part of a store.
type Journal struct {
	db      *bbolt.DB
	commits *commits
	agent   []byte
}

// The buckets of one agent.
var (
	bucketJobs    = []byte("jobs")    // job id → Job
	bucketOutbox  = []byte("outbox")  // sequence → Entry
	bucketOrders  = []byte("orders")  // digest → events.OrderAnswer
	bucketSerials = []byte("serials") // deployment → Serial
	bucketHistory = []byte("history") // package \0 version \0 program [\0 user] → events.State
	bucketTaken   = []byte("taken")   // the same → Taken
	bucketNotices = []byte("notices") // sequence → Notice
	bucketMeta    = []byte("meta")    // "position" → Position, "freezes" → []events.Freeze
)

// Agent gives the part of one agent, made if it is not there.
func (s *Store) Agent(id string) (*Journal, error) {
	j := &Journal{s.db, s.commits, []byte(id)}
	complete := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		complete = j.complete(tx)
		return nil
	})
	if err == nil && !complete {
		err = s.commits.write(j.make)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare journal of agent %s: %w", id, err)
	}
	return j, nil
}

// Agents lists the agents that have a part, sorted.
func (s *Store) Agents() (ids []string, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			ids = append(ids, string(name))
			return nil
		})
	})
	return ids, err
}

func buckets() [][]byte {
	return [][]byte{bucketJobs, bucketOutbox, bucketOrders, bucketSerials, bucketHistory, bucketTaken, bucketNotices, bucketMeta}
}

func (j *Journal) complete(tx *bbolt.Tx) bool {
	root := tx.Bucket(j.agent)
	return root != nil && !slices.ContainsFunc(buckets(), func(name []byte) bool { return root.Bucket(name) == nil })
}

func (j *Journal) make(tx *bbolt.Tx) error {
	root, err := tx.CreateBucketIfNotExists(j.agent)
	if err != nil {
		return err
	}
	for _, name := range buckets() {
		if _, err := root.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return nil
}

// write runs f in a transaction that concurrent writers share; f may run more than once.
func (j *Journal) write(f func(root *bbolt.Bucket) error) error {
	return j.commits.write(func(tx *bbolt.Tx) error { return f(tx.Bucket(j.agent)) })
}

func (j *Journal) read(f func(root *bbolt.Bucket) error) error {
	return j.db.View(func(tx *bbolt.Tx) error { return f(tx.Bucket(j.agent)) })
}

func put(b *bbolt.Bucket, key []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, data)
}

// get decodes the value of key into v and says whether it was there.
func get(b *bbolt.Bucket, key []byte, v any) (bool, error) {
	data := b.Get(key)
	if data == nil {
		return false, nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("journal entry %q: %w", key, err)
	}
	return true, nil
}

func sequenceKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// Position is how far the agent has read and been heard.
type Position struct {
	JobsSequence     uint64            `json:"jobs_sequence"`   // newest offer seen
	StatusSequence   uint64            `json:"status_sequence"` // highest acknowledged
	JobsGeneration   events.Generation `json:"jobs_generation"`
	StatusGeneration events.Generation `json:"status_generation"`
	// StatusLost is kept until execution has been told (sync).
	StatusLost bool `json:"status_lost,omitempty"`
}

// Position of the agent; the zero value where nothing was ever kept.
func (j *Journal) Position() (p Position, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		_, err := get(root.Bucket(bucketMeta), []byte("position"), &p)
		return err
	})
	return p, err
}

// MovePosition changes the position; change sees the newest one and may run more than once.
func (j *Journal) MovePosition(change func(*Position)) error {
	return j.write(func(root *bbolt.Bucket) error { return movePosition(root, change) })
}

func movePosition(root *bbolt.Bucket, change func(*Position)) error {
	var p Position
	meta := root.Bucket(bucketMeta)
	if _, err := get(meta, []byte("position"), &p); err != nil {
		return err
	}
	before := p
	if change(&p); p == before {
		return nil
	}
	return put(meta, []byte("position"), p)
}

// Freezes that were in force when last heard.
func (j *Journal) Freezes() (f []events.Freeze, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		_, err := get(root.Bucket(bucketMeta), []byte("freezes"), &f)
		return err
	})
	return f, err
}

// SetFreezes replaces them.
func (j *Journal) SetFreezes(f []events.Freeze) error {
	return j.write(func(root *bbolt.Bucket) error { return put(root.Bucket(bucketMeta), []byte("freezes"), f) })
}

// Order is a cached order by its digest; ok is false where it was never fetched.
func (j *Journal) Order(digest string) (a events.OrderAnswer, ok bool, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		ok, err = get(root.Bucket(bucketOrders), []byte(digest), &a)
		return err
	})
	return a, ok, err
}

// KeepOrder caches an order that was verified.
func (j *Journal) KeepOrder(digest string, a events.OrderAnswer) error {
	return j.write(func(root *bbolt.Bucket) error { return put(root.Bucket(bucketOrders), []byte(digest), a) })
}

// Serial is what the agent remembers of a deployment for good.
type Serial struct {
	Revision uint64 `json:"revision"`          // highest verified
	Stopped  uint64 `json:"stopped,omitempty"` // this revision and all before it were stopped
}

// Serial of a deployment.
func (j *Journal) Serial(deployment string) (s Serial, err error) {
	err = j.read(func(root *bbolt.Bucket) error {
		_, err := get(root.Bucket(bucketSerials), []byte(deployment), &s)
		return err
	})
	return s, err
}

// RaiseSerial remembers a verified revision and a stop; neither ever goes back.
func (j *Journal) RaiseSerial(deployment string, revision, stopped uint64) error {
	// Most calls repeat what is known (every sync names all stops); they must not cost a commit.
	if s, err := j.Serial(deployment); err != nil || revision <= s.Revision && stopped <= s.Stopped {
		return err
	}
	return j.write(func(root *bbolt.Bucket) error {
		var s Serial
		b := root.Bucket(bucketSerials)
		if _, err := get(b, []byte(deployment), &s); err != nil {
			return err
		}
		return put(b, []byte(deployment), Serial{max(s.Revision, revision), max(s.Stopped, stopped)})
	})
}
