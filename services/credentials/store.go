package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// record is the value of an account's key, which is its name. A removed one stays, without its secret, so
// that no version is used twice.
type record struct {
	events.AccountNotice
	Sealed  []byte `json:"sealed,omitempty"`
	Removed bool   `json:"removed,omitempty"`
	// Told is false until AccountSet or AccountRemoved is stored for this version.
	Told bool `json:"told"`
}

// casAttempts is how often a change is tried when others change the same account.
const casAttempts = 16

var errKeep = errors.New("nothing to change")

// change edits an account: it reads it, and stores the edited one if nobody came between, else does both
// again. edit may return errKeep. The record as it is at the end is returned.
func (s *Service) change(ctx context.Context, name string, edit func(old record, found bool) (record, error)) (record, error) {
	for range casAttempts {
		old, revision, err := s.load(ctx, name)
		if err != nil {
			return record{}, err
		}
		edited, err := edit(old, revision > 0)
		if errors.Is(err, errKeep) {
			return old, nil
		}
		if err != nil {
			return record{}, err
		}
		err = s.save(ctx, name, edited, revision)
		if err == nil {
			return edited, nil
		}
		if !lostRace(err) {
			return record{}, err
		}
	}
	return record{}, bus.Conflict(fmt.Errorf("account %s: others changed it %d times meanwhile: try again", name, casAttempts))
}

// load reads an account; revision 0: there is none.
func (s *Service) load(ctx context.Context, name string) (r record, revision uint64, err error) {
	kv, err := s.bucket(ctx)
	if err != nil {
		return r, 0, err
	}
	entry, err := kv.Get(ctx, name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return r, 0, nil
	}
	if err != nil {
		return r, 0, fmt.Errorf("read account %s: %w", name, err)
	}
	if err := json.Unmarshal(entry.Value(), &r); err != nil {
		return r, 0, fmt.Errorf("read account %s: %w", name, err)
	}
	return r, entry.Revision(), nil
}

// save stores an account over the given revision, in place of all earlier values.
func (s *Service) save(ctx context.Context, name string, r record, over uint64) error {
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store account %s: %w", name, err)
	}
	m := &nats.Msg{Subject: "$KV." + events.BucketAccounts + "." + name, Data: value, Header: nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}}}
	if _, err := s.bus.JetStream().PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(over)); err != nil {
		return fmt.Errorf("store account %s: %w", name, err)
	}
	return nil
}

func lostRace(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// all reads every account, also removed ones, by name.
func (s *Service) all(ctx context.Context) ([]record, error) {
	kv, err := s.bucket(ctx)
	if err != nil {
		return nil, err
	}
	watch, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	defer func() { _ = watch.Stop() }() // what it leaves behind ends by itself
	all, err := readAll(ctx, watch.Updates())
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return all, nil
}

// readAll reads the accounts up to the nil that ends the present ones. A listing that is cut before is an
// error: a short one would look whole.
func readAll(ctx context.Context, updates <-chan jetstream.KeyValueEntry) ([]record, error) {
	var all []record
	for {
		select {
		case entry, ok := <-updates:
			switch {
			case !ok:
				return nil, errors.Join(errors.New("the broker's answer was cut"), context.Cause(ctx))
			case entry == nil:
				slices.SortFunc(all, func(a, b record) int { return strings.Compare(a.Account, b.Account) })
				return all, nil
			}
			var r record
			if err := json.Unmarshal(entry.Value(), &r); err != nil {
				return nil, fmt.Errorf("read account %s: %w", entry.Key(), err)
			}
			all = append(all, r)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// bucket finds the bucket each time, so that one that was lost is noticed and made again.
func (s *Service) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	kv, err := s.bus.JetStream().KeyValue(ctx, events.BucketAccounts)
	if errors.Is(err, jetstream.ErrBucketNotFound) && s.provision != nil {
		s.log.Error("the bucket of accounts does not exist and is made", "bucket", events.BucketAccounts)
		if err := s.provision(ctx); err != nil {
			return nil, fmt.Errorf("make bucket %s: %w", events.BucketAccounts, err)
		}
		kv, err = s.bus.JetStream().KeyValue(ctx, events.BucketAccounts)
	}
	if err != nil {
		return nil, bus.Unavailable(fmt.Errorf("open bucket %s: %w", events.BucketAccounts, err))
	}
	return kv, nil
}

// announce tells of an account's last change, and notes that it did.
func (s *Service) announce(ctx context.Context, r record) error {
	t := events.AccountSet
	if r.Removed {
		t = events.AccountRemoved
	}
	id := events.DeriveID(t.Name, r.Account, strconv.Itoa(r.Version), strconv.FormatInt(r.At.UnixNano(), 10))
	if _, err := bus.Publish(ctx, s.bus, t, events.Event[events.AccountNotice]{ID: id, Subject: r.Account, Time: r.At, Data: r.AccountNotice}); err != nil {
		return err
	}
	_, err := s.change(ctx, r.Account, func(old record, found bool) (record, error) {
		if !found || old.Told || old.Version != r.Version || old.Removed != r.Removed {
			return old, errKeep
		}
		old.Told = true
		return old, nil
	})
	return err
}
