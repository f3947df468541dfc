package credentials

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// testKeys begin the keys of tests, in the bucket of leases; a lease's key is its id.
const testKeys = "test."

// maxNonces bounds the requests for one lease that are remembered.
const maxNonces = 64

// leaseRecord is the value of a lease's key. It goes away when it has expired, and the nonces are of no use any more.
type leaseRecord struct {
	// A lease is told of before its secret is given, and nothing is given where that fails. What is owed is to tell
	// that it was withdrawn.
	outbox
	events.LeaseNotice             // as it was granted last
	Nonces             []used      `json:"nonces"`
	Withdrawn          *withdrawal `json:"withdrawn,omitempty"` // nil: it is lent
}

// used is a request that was granted.
type used struct {
	Nonce string    `json:"nonce"`
	Until time.Time `json:"until"` // by when it is too old anyway
}

// withdrawal is why a lease ended before its time.
type withdrawal struct {
	By  string    `json:"by,omitempty"` // who; "": the service itself
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

// unexpired says whether its time is not over.
func (r *leaseRecord) unexpired(now time.Time) bool {
	return r.Expires != nil && now.Before(*r.Expires)
}

// lent says whether the agent may use it.
func (r *leaseRecord) lent(now time.Time) bool { return r.Withdrawn == nil && r.unexpired(now) }

// forgettable says whether nothing of it is of use any more.
func (r *leaseRecord) forgettable(now time.Time) bool {
	return !r.unexpired(now) && !slices.ContainsFunc(r.Nonces, func(u used) bool { return now.Before(u.Until) })
}

// tell publishes that it was withdrawn.
func (r *leaseRecord) tell(ctx context.Context, b *bus.Bus) error {
	if r.Withdrawn == nil {
		return nil
	}
	n := r.LeaseNotice
	n.By, n.Why, n.At = r.Withdrawn.By, r.Withdrawn.Why, r.Withdrawn.At
	id := events.DeriveID(events.CredentialRevoked.Name, r.Lease, strconv.FormatInt(n.At.UnixNano(), 10))
	_, err := bus.Publish(ctx, b, events.CredentialRevoked, events.Event[events.LeaseNotice]{ID: id, Subject: r.Agent, Time: n.At, Data: n})
	return err
}

// leaseStore is this replica's copy of the leases. Forgotten ones leave the bucket without a trace, and this copy by
// the clock.
type leaseStore struct {
	*bucketReader
	mu      sync.Mutex
	records map[string]leaseRecord // by id
}

func newLeaseStore(b *bucket, log *slog.Logger) *leaseStore {
	l := &leaseStore{records: map[string]leaseRecord{}}
	l.bucketReader = newBucketReader(b, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		clear(l.records)
	}, func(key string, value []byte) {
		if strings.HasPrefix(key, testKeys) {
			return
		}
		if err := l.learn(key, value); err != nil {
			log.Error("a lease cannot be read and is left out", "lease", key, "error", err)
		}
	})
	return l
}

func (l *leaseStore) learn(id string, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.records, id)
	if value == nil {
		return nil
	}
	var r leaseRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	l.records[id] = r
	return nil
}

func (l *leaseStore) get(id string) (leaseRecord, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[id]
	return r, ok
}

// chosen lists the leases that are lent at now and agree with all that the query sets, by agent and time. It refreshes
// the copy before.
func (l *leaseStore) chosen(ctx context.Context, q events.LeaseQuery, now time.Time) ([]leaseRecord, error) {
	if err := l.refresh(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []leaseRecord
	for _, r := range l.records {
		if r.lent(now) && agrees(q.Lease, r.Lease) && agrees(q.Agent, r.Agent) && agrees(q.Job, r.Job) && agrees(q.Account, r.Account) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b leaseRecord) int {
		return cmp.Or(strings.Compare(a.Agent, b.Agent), a.At.Compare(b.At), strings.Compare(a.Lease, b.Lease))
	})
	return found, nil
}

func agrees(wanted, is string) bool { return wanted == "" || wanted == is }

// prune forgets what is forgettable.
func (l *leaseStore) prune(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, r := range l.records {
		if r.forgettable(now) {
			delete(l.records, id)
		}
	}
}
