package scheduling

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// agentRecord is the value of an agent's key, which is its id.
type agentRecord struct {
	Facts    events.Facts `json:"facts"`
	Reported time.Time    `json:"reported"` // by the agent's clock
	Stored   time.Time    `json:"stored"`   // by the broker's: orders reports, also of an agent whose clock was put right
	// Gone is when it was archived or revoked last, Approved when an administrator let it in last; both by the
	// broker's clock.
	Gone     time.Time `json:"gone,omitzero"`
	Approved time.Time `json:"approved,omitzero"`
}

// there says whether the agent is of the fleet: one that was put away is again when an administrator let it
// back and it has reported since it went.
func (r agentRecord) there() bool {
	return r.Stored.After(r.Gone) && (r.Gone.IsZero() || r.Approved.After(r.Gone))
}

// collectionRecord is the value of a collection's key, which is its name. A removed one stays until the
// removal was told.
type collectionRecord struct {
	events.Collection
	Removed bool   `json:"removed,omitempty"`
	Outbox  outbox `json:"outbox"`
}

// deploymentRecord is the value of deployment.<name>, and of draft.<name> while signatures are lacking. A removed
// deployment stays, without its order, so that its revisions are not used again: agents remember them.
type deploymentRecord struct {
	events.DeploymentNotice
	Envelope []byte   `json:"envelope,omitempty"`
	Include  []string `json:"include,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`
	Trace    string   `json:"trace,omitempty"` // of the request that brought the order; every event of the deployment carries it
	// Plan is how it reaches its agents; nil: everybody at once. Rollback is the order that was signed with it to take it
	// back (DSSE envelope).
	Plan     *events.Plan `json:"plan,omitempty"`
	Rollback []byte       `json:"rollback,omitempty"`

	Paused  bool   `json:"paused,omitempty"`
	Stopped bool   `json:"stopped,omitempty"`
	Lapsed  bool   `json:"lapsed,omitempty"` // its end was told
	Removed bool   `json:"removed,omitempty"`
	Because string `json:"because,omitempty"` // who paused or stopped it, and why
	Outbox  outbox `json:"outbox"`
}

// releaseRecord is the value of release.<name>.<revision>.<wave>.<batch>.
type releaseRecord struct {
	Order     string    `json:"order"`
	Agents    []string  `json:"agents"`
	Sites     []string  `json:"sites,omitempty"` // of the agents, in their order; absent where none has one
	Phase     int       `json:"phase,omitempty"` // that they belong to
	Phased    bool      `json:"phased,omitempty"`
	Joined    bool      `json:"joined,omitempty"` // they are beyond the phase's fixed number
	At        time.Time `json:"at"`
	Announced bool      `json:"announced,omitempty"` // DeploymentReleased is stored
}

// packageRecord is the value of package.<digest>. A removed one stays, so that a late event does not bring
// it back.
type packageRecord struct {
	events.PackageNotice
	// Undoes and Repairs say, of programs that do, which program of the package they take back or put right. Content alone
	// knows; Known says that it was asked.
	Undoes  map[string]string `json:"undoes,omitempty"`
	Repairs map[string]string `json:"repairs,omitempty"`
	Known   bool              `json:"known,omitempty"`
	Removed bool              `json:"removed,omitempty"`
	Stored  time.Time         `json:"stored"` // of the event, by the broker's clock
}

// Kinds of keys in the bucket of deployments.
const (
	kindDeployment = "deployment"
	kindDraft      = "draft"
	kindRelease    = "release"
	kindPackage    = "package"
	kindRollout    = "rollout"
)

// releaseKey names one batch of agents.
type releaseKey struct {
	deployment string
	revision   uint64
	wave       string
	batch      int
}

func (k releaseKey) String() string {
	return fmt.Sprintf("%s.%s.%d.%s.%d", kindRelease, k.deployment, k.revision, k.wave, k.batch)
}

func parseReleaseKey(rest string) (k releaseKey, err error) {
	parts := strings.Split(rest, ".")
	if len(parts) != 4 {
		return k, fmt.Errorf("release key %q has %d parts", rest, len(parts))
	}
	k.deployment, k.wave = parts[0], parts[2]
	if k.revision, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return k, fmt.Errorf("release key %q: %w", rest, err)
	}
	if k.batch, err = strconv.Atoi(parts[3]); err != nil || k.batch < 0 {
		return k, fmt.Errorf("release key %q has no batch number", rest)
	}
	return k, nil
}

// casAttempts is how often a change is tried when others change the same record.
const casAttempts = 16

// errKeep is returned by an edit that has nothing to change.
var errKeep = errors.New("nothing to change")

// change edits one record: it reads it, and stores the edited one if nobody came between, else does both
// again. edit gets the zero value where there is none, must have no effect beside its result, and may
// return errKeep. The record as it is at the end is returned.
func change[T any](ctx context.Context, m *mirror, key string, edit func(old T, found bool) (T, error)) (T, error) {
	var none T
	for range casAttempts {
		old, revision, err := load[T](ctx, m, key)
		if err != nil {
			return none, err
		}
		edited, err := edit(old, revision > 0)
		if errors.Is(err, errKeep) {
			return old, nil
		}
		if err != nil {
			return none, err
		}
		err = save(ctx, m, key, edited, revision)
		if err == nil {
			return edited, nil
		}
		if !lostRace(err) {
			return none, err
		}
	}
	return none, bus.Conflict(fmt.Errorf("change %s: others changed it %d times meanwhile: try again", key, casAttempts))
}

// kept gives a record as the audit sees it: without what is still to be told of it, and nil where it says that
// there is nothing any more.
type kept interface{ kept() any }

func (r collectionRecord) kept() any {
	if r.Removed {
		return nil
	}
	return r.Collection
}

func (r deploymentRecord) kept() any {
	if r.Removed {
		return nil
	}
	r.Outbox = outbox{}
	return r
}

// changeNoted is change for a request: the audit says what the record was and what it is.
func changeNoted[T kept](ctx context.Context, m *mirror, key string, edit func(old T, found bool) (T, error)) (T, error) {
	var before any
	after, err := change(ctx, m, key, func(old T, found bool) (T, error) {
		if before = nil; found {
			before = old.kept()
		}
		return edit(old, found)
	})
	if err == nil {
		bus.NoteChange(ctx, before, after.kept())
	}
	return after, err
}

// lostRace says that somebody else stored a record first.
func lostRace(err error) bool {
	if errors.Is(err, jetstream.ErrKeyExists) {
		return true
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// load reads a record, and brings this replica's memory up to it; revision 0: there is none.
func load[T any](ctx context.Context, m *mirror, key string) (record T, revision uint64, err error) {
	value, revision, err := m.read(ctx, key)
	if err != nil || revision == 0 {
		return record, 0, err
	}
	if err := json.Unmarshal(value, &record); err != nil {
		return record, 0, fmt.Errorf("read %s: %w", key, err)
	}
	m.learn(key, value, revision)
	return record, revision, nil
}

// A value is read so often before the broker counts as behind.
const (
	readAttempts = 20
	readPause    = 50 * time.Millisecond
)

// read gets a key's value; revision 0: there is none. In a cluster any broker that keeps a copy of the bucket answers, also one that
// is behind: what this replica has stored or heard of itself is waited for, so that it never denies what it has just done.
func (m *mirror) read(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	kv, err := m.kv()
	if err != nil {
		return nil, 0, err
	}
	for range readAttempts {
		entry, err := kv.Get(ctx, key)
		known := m.seen(key)
		switch {
		case err == nil && entry.Revision() >= known.revision:
			return entry.Value(), entry.Revision(), nil
		case err != nil && !errors.Is(err, jetstream.ErrKeyNotFound):
			return nil, 0, fmt.Errorf("read %s: %w", key, err)
		case err != nil && (known.revision == 0 || known.gone):
			return nil, 0, nil
		case err != nil: // a copy that is behind, or it was purged: the leader knows
			if err := m.missed(ctx, key); err != nil {
				return nil, 0, fmt.Errorf("read %s: %w", key, err)
			}
			if m.seen(key).gone {
				return nil, 0, nil
			}
		}
		if !pause(ctx, readPause) {
			return nil, 0, fmt.Errorf("read %s: %w", key, ctx.Err())
		}
	}
	return nil, 0, bus.Unavailable(fmt.Errorf("read %s: the broker answers what is older than revision %d, which was there before: try again", key, m.seen(key).revision))
}

func (m *mirror) seen(key string) sighting {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[key]
}

// save stores a record over the given revision (0: there is none yet); the error is a [lostRace] when
// somebody else stored one.
func save[T any](ctx context.Context, m *mirror, key string, record T, over uint64) error {
	kv, err := m.kv()
	if err != nil {
		return err
	}
	value, err := encode(record)
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	var revision uint64
	if over == 0 {
		revision, err = kv.Create(ctx, key, value)
	} else {
		revision, err = kv.Update(ctx, key, value, over)
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	m.learn(key, value, revision)
	return nil
}

// encode writes JSON without escaping what needs none, as the events are written: sizes then compare.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}
