package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// phase of a package's record.
type phase string

const (
	publishing phase = "publishing" // recorded, PackagePublished not known to be stored
	published  phase = "published"
	removing   phase = "removing" // refused to newcomers, its blobs may be gone already
)

// record is what the bucket keeps of a package, under "package.<name>.<version>".
type record struct {
	Digest    string           `json:"digest"`
	Package   string           `json:"package"`
	Version   string           `json:"version"`
	Published time.Time        `json:"published"` // as the manifest says
	Bytes     int64            `json:"bytes"`
	Files     int              `json:"files"`
	Programs  []string         `json:"programs"`
	By        string           `json:"by"`
	At        time.Time        `json:"at"` // of the commit; part of the events' ids
	Phase     phase            `json:"phase"`
	RemovedBy string           `json:"removed_by,omitempty"`
	Manifest  *events.Manifest `json:"manifest,omitempty"` // absent where it is large: see the blob
	revision  uint64           // of the record in the bucket; 0: not stored
}

func (r record) notice(by string) events.PackageNotice {
	return events.PackageNotice{Package: r.Package, Version: r.Version, Digest: r.Digest, Bytes: r.Bytes, Files: r.Files, Programs: r.Programs, By: by}
}

// use is what the bucket keeps of a deployment, under "use.<name>". Of two events the later counts, in
// whatever order they come; a removed one stays, so that an old creation cannot bring it back.
type use struct {
	Package string    `json:"package"`
	Version string    `json:"version"`
	At      time.Time `json:"at"`
	Removed bool      `json:"removed,omitempty"`
}

// inlineManifest is the largest manifest in a record, in bytes: well below what the broker takes.
const inlineManifest = 256 << 10

// records are the bucket. Every write names the revision that it is based on.
type records struct {
	js jetstream.JetStream

	mu sync.Mutex
	kv jetstream.KeyValue // nil until the broker has answered once
}

func (r *records) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kv != nil {
		return r.kv, nil
	}
	kv, err := r.js.KeyValue(ctx, events.BucketPackages)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", events.BucketPackages, err)
	}
	r.kv = kv
	return kv, nil
}

// escape writes a name with what a key may not hold, and with dots, as =XX.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

func packageKey(name, version string) string {
	return "package." + escape(name) + "." + escape(version)
}

func useKey(deployment string) string { return "use." + escape(deployment) }

// get reads a package's record; jetstream.ErrKeyNotFound where there is none.
func (r *records) get(ctx context.Context, name, version string) (record, error) {
	kv, err := r.bucket(ctx)
	if err != nil {
		return record{}, err
	}
	entry, err := kv.Get(ctx, packageKey(name, version))
	if err != nil {
		return record{}, err
	}
	return decodeRecord(entry)
}

func decodeRecord(entry jetstream.KeyValueEntry) (record, error) {
	out := record{revision: entry.Revision()}
	if err := json.Unmarshal(entry.Value(), &out); err != nil {
		return record{}, fmt.Errorf("read record %s: %w", entry.Key(), err)
	}
	return out, nil
}

// put stores a record over the revision it was read with, and returns it with its new one.
func (r *records) put(ctx context.Context, rec record) (record, error) {
	revision, err := r.write(ctx, packageKey(rec.Package, rec.Version), rec, rec.revision)
	rec.revision = revision
	return rec, err
}

func (r *records) write(ctx context.Context, key string, value any, revision uint64) (uint64, error) {
	kv, err := r.bucket(ctx)
	if err != nil {
		return 0, err
	}
	data, err := json.Marshal(value)
	if err != nil {
		return 0, fmt.Errorf("write record %s: %w", key, err)
	}
	if revision == 0 {
		return kv.Create(ctx, key, data)
	}
	return kv.Update(ctx, key, data, revision)
}

func (r *records) remove(ctx context.Context, rec record) error {
	kv, err := r.bucket(ctx)
	if err != nil {
		return err
	}
	return kv.Delete(ctx, packageKey(rec.Package, rec.Version), jetstream.LastRevision(rec.revision))
}

// packages reads every package's record, in no order.
func (r *records) packages(ctx context.Context) ([]record, error) {
	var all []record
	err := r.each(ctx, "package.>", func(e jetstream.KeyValueEntry) error {
		rec, err := decodeRecord(e)
		all = append(all, rec)
		return err
	})
	return all, err
}

// uses reads which deployments need which package, by package key.
func (r *records) uses(ctx context.Context) (map[string][]string, error) {
	all := map[string][]string{}
	err := r.each(ctx, "use.>", func(e jetstream.KeyValueEntry) error {
		var u use
		if err := json.Unmarshal(e.Value(), &u); err != nil {
			return fmt.Errorf("read record %s: %w", e.Key(), err)
		}
		if !u.Removed {
			key := packageKey(u.Package, u.Version)
			all[key] = append(all[key], strings.TrimPrefix(e.Key(), "use."))
		}
		return nil
	})
	return all, err
}

// each reads the present entries of a pattern with one request, however many there are.
func (r *records) each(ctx context.Context, pattern string, do func(jetstream.KeyValueEntry) error) error {
	kv, err := r.bucket(ctx)
	if err != nil {
		return err
	}
	watch, err := kv.Watch(ctx, pattern, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("read %s: %w", pattern, err)
	}
	defer func() { _ = watch.Stop() }() // what it leaves behind ends by itself
	for {
		select {
		case entry, ok := <-watch.Updates():
			switch {
			case !ok:
				return fmt.Errorf("read %s: the broker went away", pattern)
			case entry == nil:
				return nil
			}
			if err := do(entry); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// noteUse keeps what an event says of a deployment, unless a later one was heard.
func (s *Service) noteUse(ctx context.Context, n events.DeploymentNotice, removed bool) error {
	kv, err := s.records.bucket(ctx)
	if err != nil {
		return err
	}
	next := use{Package: n.Package, Version: n.Version, At: n.At, Removed: removed}
	var revision uint64
	switch entry, err := kv.Get(ctx, useKey(n.Deployment)); {
	case err == nil:
		var before use
		if err := json.Unmarshal(entry.Value(), &before); err != nil {
			return fmt.Errorf("read record %s: %w", entry.Key(), err)
		}
		if before.At.After(n.At) || before.At.Equal(n.At) && before.Removed {
			return nil
		}
		revision = entry.Revision()
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return fmt.Errorf("read use by %s: %w", n.Deployment, err)
	}
	if _, err := s.records.write(ctx, useKey(n.Deployment), next, revision); err != nil {
		return fmt.Errorf("note use by %s: %w", n.Deployment, err)
	}
	return nil
}
