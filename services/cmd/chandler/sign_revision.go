package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"chandler/events"
	"chandler/events/bus"
)

// signedRevisions remembers the highest revision of each deployment that was signed on this machine, beside
// its keys: services may be restored from old copies, and agents refuse to go back.
type signedRevisions struct{ dir string }

func (r signedRevisions) file() string { return filepath.Join(r.dir, "revisions.json") }

func (r signedRevisions) load() (map[string]uint64, error) {
	all := map[string]uint64{}
	data, err := readSmall(r.file())
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which revisions were signed here: %w", err)
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("read which revisions were signed here: %s: %w", r.file(), err)
	}
	return all, nil
}

// note remembers a revision. It is called before the order is sent: what is signed may turn up anywhere.
func (r signedRevisions) note(deployment string, revision uint64) error {
	all, err := r.load()
	if err != nil || all[deployment] >= revision {
		return err
	}
	all[deployment] = revision
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(r.file(), append(data, '\n'))
}

// nextRevision follows the highest that scheduling, its drafts, execution or this machine knows, so that a
// service that was restored from an old copy does not make a right order look old to the agents. Replacing a
// deployment must be meant.
func (a *app) nextRevision(ctx context.Context, c *client, s signer, name string, revise bool) (uint64, error) {
	there, err := known(ask(ctx, c, events.DeploymentShow, events.Named{Name: name}))
	if err != nil {
		return 0, err
	}
	if there.Revision > 0 && !revise {
		if there.Life == events.LifeDraft {
			return 0, fmt.Errorf("there is a draft of deployment %q (%s): sign it with `%s deployment sign %s`, or remove it first with `%s deployment rm %s`", name, programText(there.DeploymentNotice), a.self, name, a.self, name)
		}
		return 0, fmt.Errorf("there is a deployment %q (%s, %s): choose another name, or replace it with --revise", name, programText(there.DeploymentNotice), there.Life)
	}
	draft, err := known(ask(ctx, c, events.DeploymentDraft, events.Named{Name: name}))
	if err != nil {
		return 0, err
	}
	progress, err := known(ask(ctx, c, events.ExecutionProgress, events.Named{Name: name}))
	if err != nil {
		return 0, fmt.Errorf("find out which revision follows: %w; say it with --revision", err)
	}
	here, err := signedRevisions{s.dir}.load()
	return 1 + max(there.Revision, draft.Revision, progress.Revision, here[name]), err
}

// known turns the answer that there is no such thing into the empty one.
func known[T any](answer T, err error) (T, error) {
	if errors.Is(err, bus.ErrNotFound) {
		var none T
		return none, nil
	}
	return answer, err
}
