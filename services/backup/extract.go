package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// StoreName is the directory that Extract makes for the broker beside those of the parts.
const StoreName = "broker"

// Extract makes DIR/broker and a directory for each part of an archive that [Verify] found right. dir is empty, or not
// there. After an error it is to be removed.
func Extract(ctx context.Context, r io.Reader, dir string, log *slog.Logger) (Manifest, error) {
	x := &extraction{dir: dir, log: log, streams: map[string]Stream{}}
	m, err := read(ctx, r, func(m Manifest) error { return x.begin(ctx, m) }, func(e Entry, in io.Reader) error { return x.take(ctx, e, in) })
	if err == nil {
		err = x.attach(ctx, m)
	}
	if x.broker != nil {
		x.broker.Close()
	}
	if err != nil {
		return m, err
	}
	return m, syncAll(dir)
}

// extraction puts entries where they belong.
type extraction struct {
	dir     string
	log     *slog.Logger
	streams map[string]Stream
	broker  *Offline
	js      jetstream.JetStream
}

func (x *extraction) begin(ctx context.Context, m Manifest) (err error) {
	for _, s := range m.Streams {
		x.streams[s.Name] = s
	}
	store := filepath.Join(x.dir, StoreName)
	if err := os.MkdirAll(store, 0o700); err != nil {
		return err
	}
	if x.broker, err = Open(ctx, store, m.Account, x.log); err != nil {
		return err
	}
	x.js, err = jetstream.New(x.broker.Conn)
	return err
}

func (x *extraction) take(ctx context.Context, e Entry, in io.Reader) error {
	name, since, ok := e.stream()
	switch {
	case !ok:
		return x.file(e, in)
	case since:
		return readSince(in, func(k kept) error { return k.store(ctx, x.js, name) })
	}
	return x.stream(ctx, x.streams[name], in)
}

// file writes one file for its owner alone.
func (x *extraction) file(e Entry, in io.Reader) (err error) {
	name := filepath.Join(x.dir, filepath.FromSlash(strings.TrimPrefix(e.Name, filesPrefix)))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Close())
}

// stream has the broker take its copy back. It keeps its sequences, and is another stream by its time of creation.
func (x *extraction) stream(ctx context.Context, s Stream, in io.Reader) error {
	config, err := s.config()
	if err != nil {
		return err
	}
	if _, err := x.broker.account.RestoreStreamV2(&config, in); err != nil {
		return fmt.Errorf("restore stream %s: %w", s.Name, err)
	}
	there, err := x.js.Stream(ctx, s.Name)
	if err != nil {
		return fmt.Errorf("restore stream %s: %w", s.Name, err)
	}
	if info := there.CachedInfo(); info.State.LastSeq != s.Last {
		return fmt.Errorf("stream %s ends with message %d after it was restored, not with %d", s.Name, info.State.LastSeq, s.Last)
	}
	return nil
}

// attach makes the durable readers, each where it was when the backup began.
func (x *extraction) attach(ctx context.Context, m Manifest) error {
	for _, s := range m.Streams {
		for _, r := range s.Readers {
			if err := x.reader(ctx, s, r); err != nil {
				return fmt.Errorf("reader %s of stream %s: %w", r.Config.Durable, s.Name, err)
			}
		}
	}
	return nil
}

func (x *extraction) reader(ctx context.Context, s Stream, r Reader) error {
	r.Config.Replicas = 0
	if _, err := x.js.CreateConsumer(ctx, s.Name, r.Config); err != nil {
		return err
	}
	if r.Next <= 1 {
		return nil
	}
	request, err := json.Marshal(server.JSApiConsumerResetRequest{Seq: min(r.Next, s.Last+1)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stall)
	defer cancel()
	answer, err := x.broker.Conn.RequestWithContext(ctx, fmt.Sprintf(server.JSApiConsumerResetT, s.Name, r.Config.Durable), request)
	if err != nil {
		return err
	}
	var said server.JSApiConsumerResetResponse
	if err := json.Unmarshal(answer.Data, &said); err != nil {
		return err
	}
	if said.Error != nil {
		return errors.New(said.Error.Description)
	}
	return nil
}

// syncAll makes every file and directory outlast a power cut.
func syncAll(dir string) error {
	return filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return SyncDir(name)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
