package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"chandler/agent/execute"
	"chandler/agent/fetch"
	"chandler/agent/identity"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/manifest"
)

func newFetcher(a *Agent) (*fetch.Fetcher, error) {
	return fetch.New(fetch.Options{Dir: filepath.Join(a.StateDir, "cache"), MaxBytes: a.CacheSize, Sources: a.Sources, Locate: a.locate,
		BytesPerSecond: a.Bandwidth, Registerer: a.Registerer, Log: a.log})
}

func newExecutor(a *Agent) (*execute.Executor, error) {
	return execute.New(execute.Options{Supervisor: a.Supervisor, Runners: a.Runners, Rights: a.Rights})
}

// locate asks content where blobs are.
func (a *Agent) locate(ctx context.Context, digests []string) (map[string][]string, error) {
	found := map[string][]string{}
	for batch := range slices.Chunk(digests, 1000) {
		err := a.ask(ctx, func(ctx context.Context) error {
			answer, err := bus.Request(ctx, a.bus, a.id, events.ContentLocate, events.LocateRequest{Site: a.Facts().Site, Blobs: batch})
			for digest, urls := range answer.Blobs {
				found[digest] = urls
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// fetchContent brings all files of the package into the cache, held there until the job ends, and counts
// the bytes that came over the network.
func (t *task) fetchContent(ctx context.Context) error {
	if err := t.room(t.manifest.Size()); err != nil {
		return err
	}
	outside, err := t.contentOutside()
	if err != nil {
		return err
	}
	fetched, err := t.a.fetcher.Fetch(ctx, t.job.Offer.Job, t.manifest.Files, outside, nil)
	t.bytes += fetched.Bytes
	if err != nil && outside.Source != nil {
		return t.reach.Refuted(ctx, err)
	}
	if err == nil && fetched.Cached > 0 && t.readsAsUser() {
		return t.mayRead(ctx, outside)
	}
	return err
}

// mayRead asks whether the user who is to run the program may read what others brought into the cache before. A source
// that is away, or has it no more, forbids nothing.
func (t *task) mayRead(ctx context.Context, outside fetch.Outside) error {
	for _, f := range t.manifest.Files {
		if !manifest.Outside(t.manifest, f) {
			continue
		}
		o, err := t.reach.Open(ctx, outside.Address(f), events.AccessContent)
		if err == nil {
			o.Close()
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch asEnding(err).reason {
		case events.NetworkAccessDenied, events.CredentialRejected, events.NoNetworkIdentity:
			return err
		}
	}
	return nil
}

// stageContent lays out a fresh copy of the package's files for one run, hashed while it is copied.
func (t *task) stageContent(ctx context.Context) error {
	t.content = ""
	dir := t.runDir()
	if err := t.a.openRuns(dir); err != nil {
		return err
	}
	if len(t.manifest.Files) == 0 {
		return nil
	}
	content := filepath.Join(dir, "content")
	// What an attempt that never started left behind may be half a copy.
	if err := os.RemoveAll(content); err != nil {
		return fmt.Errorf("clear %s: %w", content, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	t.content = content
	return t.a.fetcher.Stage(ctx, t.manifest.Files, content, t.contentOwner())
}

// contentOwner is the user that reads the copy: whom the program runs as, where that is not the agent's own user.
func (t *task) contentOwner() *fetch.Owner {
	if t.who.Executor != identity.User || t.session == nil || !privileged() || runtime.GOOS == "windows" {
		return nil
	}
	return &fetch.Owner{UID: int(t.session.UID), Writable: t.program.Writable}
}

func sameOwner(a, b *fetch.Owner) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}
