package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/manifest"
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
	Needs     []string         `json:"needs,omitempty"` // packages that this one depends on or removes: name@version
	By        string           `json:"by"`
	At        time.Time        `json:"at"` // of the commit; part of the events' ids
	Phase     phase            `json:"phase"`
	RemovedBy string           `json:"removed_by,omitempty"`
	Manifest  *events.Manifest `json:"manifest,omitempty"` // absent where it is large: see the blob
	// Signatures of the manifest's envelope, as it has them.
	Signatures json.RawMessage `json:"signatures,omitempty"`
	revision   uint64          // of the record in the bucket; 0: not stored
}

func (r record) notice(by string) events.PackageNotice {
	return events.PackageNotice{Package: r.Package, Version: r.Version, Digest: r.Digest, Bytes: r.Bytes, Files: r.Files, Programs: r.Programs, By: by}
}

// use is what the bucket keeps of a deployment, under "use.<name>". The highest revision counts, and its
// removal, in whatever order the events come; a removed one stays, so that an old creation cannot bring it back.
type use struct {
	Package  string `json:"package"`
	Version  string `json:"version"`
	Revision uint64 `json:"revision"` // of the deployment
	// Rollback is the program that takes the deployment back, of this or another package: package@version/program.
	Rollback string `json:"rollback,omitempty"`
	Removed  bool   `json:"removed,omitempty"`
}

// packages are the keys of those that the deployment needs, also to be taken back.
func (u use) packages() []string {
	keys := []string{packageKey(u.Package, u.Version)}
	if u.Rollback == "" {
		return keys
	}
	back, err := manifest.ParseRef(u.Rollback, events.Manifest{})
	if err != nil {
		return keys // what names no package needs none
	}
	return slices.Compact(append(keys, packageKey(back.Package, back.Version)))
}

// summary is what the record knows of a manifest that cannot be read.
func (r record) summary() events.Manifest {
	m := events.Manifest{API: manifest.API, Package: r.Package, Version: r.Version, Published: r.Published, Programs: map[string]events.Program{}}
	for _, name := range r.Programs {
		m.Programs[name] = events.Program{}
	}
	return m
}

// inlineManifest is the largest envelope of a manifest whose content is in a record, in bytes: well below what the broker takes.
const inlineManifest = 256 << 10

// recordsTime bounds a reading of many records, and a pass over interrupted work.
const recordsTime = 30 * time.Second

// records are the bucket. Every write names the revision that it is based on.
type records struct {
	js        jetstream.JetStream
	log       *slog.Logger
	provision func(context.Context) error // makes the bucket where it is missing; nil: somebody else does
	patience  time.Duration               // recordsTime
}

// bucket finds the bucket each time, so that one that was lost is noticed and made again.
func (r *records) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	kv, err := r.js.KeyValue(ctx, events.BucketPackages)
	if errors.Is(err, jetstream.ErrBucketNotFound) && r.provision != nil {
		r.log.ErrorContext(ctx, "the bucket of packages does not exist and is made", "bucket", events.BucketPackages)
		if err := r.provision(ctx); err != nil {
			return nil, fmt.Errorf("make bucket %s: %w", events.BucketPackages, err)
		}
		kv, err = r.js.KeyValue(ctx, events.BucketPackages)
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", events.BucketPackages, err)
	}
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

// lostRace says that somebody else stored a record first.
func lostRace(err error) bool {
	if errors.Is(err, jetstream.ErrKeyExists) {
		return true
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
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

// remove purges a record up to the revision it was read with: a marker of a deleted key would stay for ever.
func (r *records) remove(ctx context.Context, rec record) error {
	stream, err := r.js.Stream(ctx, "KV_"+events.BucketPackages)
	if err != nil {
		return err
	}
	key := "$KV." + events.BucketPackages + "." + packageKey(rec.Package, rec.Version)
	return stream.Purge(ctx, jetstream.WithPurgeSubject(key), jetstream.WithPurgeSequence(rec.revision+1))
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
			for _, key := range u.packages() {
				all[key] = append(all[key], strings.TrimPrefix(e.Key(), "use."))
			}
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
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
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

// noteUse keeps what an event says of a deployment, unless more is known of it.
func (s *Service) noteUse(ctx context.Context, subject string, n events.DeploymentNotice, rollback string, removed bool) error {
	if subject != n.Deployment {
		return bus.Drop("subject", fmt.Errorf("an event about %q speaks of deployment %q", subject, n.Deployment))
	}
	kv, err := s.records.bucket(ctx)
	if err != nil {
		return err
	}
	next := use{Package: n.Package, Version: n.Version, Revision: n.Revision, Rollback: rollback, Removed: removed}
	var revision uint64
	switch entry, err := kv.Get(ctx, useKey(n.Deployment)); {
	case err == nil:
		var before use
		if err := json.Unmarshal(entry.Value(), &before); err != nil {
			return fmt.Errorf("read record %s: %w", entry.Key(), err)
		}
		if before.Revision > n.Revision || before.Revision == n.Revision && (before.Removed || next == before) {
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
