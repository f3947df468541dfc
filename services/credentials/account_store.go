package credentials

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
)

// accountStore is this replica's copy of the accounts, their secrets sealed.
type accountStore struct {
	*bucketReader
	mu      sync.Mutex
	records map[string]accountRecord // by name, also removed ones
}

func newAccountStore(b *bucket, log *slog.Logger) *accountStore {
	a := &accountStore{records: map[string]accountRecord{}}
	a.bucketReader = newBucketReader(b, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		clear(a.records)
	}, func(name string, value []byte) {
		if err := a.learn(name, value); err != nil {
			log.Error("an account cannot be read and is left out", "account", name, "error", err)
		}
	})
	return a
}

func (a *accountStore) learn(name string, value []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.records, name)
	if value == nil {
		return nil
	}
	var r accountRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	a.records[name] = r
	return nil
}

// all accounts that there are now, also removed ones, by name. None is missed that is changed meanwhile.
func (a *accountStore) all(ctx context.Context) ([]accountRecord, error) {
	if err := a.refresh(ctx); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.records), func(a, b accountRecord) int { return strings.Compare(a.Account, b.Account) }), nil
}
