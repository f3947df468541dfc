package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxFile bounds a file that is read into memory, in bytes.
const maxFile = 4 << 20

// File is one file to be in a backup.
type File struct {
	Name string // PART/…, with slashes
	Path string // where it is now
	// Blob: its bytes never change under that name. It may be large; every other file is read at once.
	Blob bool
}

// Options say what is backed up.
type Options struct {
	Conn *nats.Conn // as a user who may copy streams: the provisioner
	// Files lists the files, after the streams were copied; nil: the streams alone.
	Files func() ([]File, error)
	// Steady are files that must not change while the streams are copied, which they belong to.
	Steady  []File
	Fleet   string
	Account string // of the streams
	Version string
	Keys    bool      // Files are private keys too
	Now     time.Time // when it is taken
	Scratch string    // directory in which copies are kept meanwhile; it needs room for all streams
	// Copied is told of each stream; nil: nobody is.
	Copied func(Stream)
}

// Write backs up to w. It returns when all is written; w is the caller's to encrypt and to close.
func Write(ctx context.Context, w io.Writer, o Options) (m Manifest, err error) {
	js, err := jetstream.New(o.Conn)
	if err != nil {
		return m, err
	}
	kept, err := newSpool(o.Scratch)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, kept.remove()) }()
	b := &writer{Options: o, js: js, spool: kept, small: map[string][]byte{}, blobs: map[string]string{}}
	b.manifest = Manifest{Format: Format, Version: o.Version, Fleet: o.Fleet, Account: o.Account, Taken: o.Now.UTC(), Keys: o.Keys}
	if err := b.gather(ctx); err != nil {
		return m, err
	}
	if err := b.manifest.validate(); err != nil {
		return m, fmt.Errorf("what was backed up could not be restored: %w", err)
	}
	return b.manifest, b.write(ctx, w)
}

// writer gathers everything, and then writes it.
type writer struct {
	Options
	js       jetstream.JetStream
	spool    *spool
	small    map[string][]byte // files by entry
	blobs    map[string]string // paths by entry
	manifest Manifest
}

// gather brings together what is written, in the order of the package's doc.
func (b *writer) gather(ctx context.Context) error {
	steady, err := readAll(b.Steady)
	if err != nil {
		return err
	}
	readers, err := positions(ctx, b.js)
	if err != nil {
		return err
	}
	for _, name := range order() {
		if err := b.copyStream(ctx, name, readers[name]); err != nil {
			return err
		}
	}
	if b.Files == nil {
		return nil
	}
	files, err := b.Files()
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := b.addFile(ctx, f); err != nil {
			return err
		}
	}
	for name, data := range steady {
		if there, ok := b.small[name]; ok && !bytes.Equal(there, data) {
			return fmt.Errorf("%s changed while what belongs to it was copied: try again", name)
		}
	}
	return nil
}

// readAll reads small files, by entry.
func readAll(files []File) (map[string][]byte, error) {
	all := map[string][]byte{}
	for _, f := range files {
		data, err := readFile(f.Path)
		if err != nil {
			return nil, err
		}
		all[filesPrefix+f.Name] = data
	}
	return all, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read %s: larger than %d bytes", path, maxFile)
	}
	return data, nil
}

// copyStream spools the broker's copy, and of a bucket what came since. The copy is read once more, as it will be
// when it is restored.
func (b *writer) copyStream(ctx context.Context, name string, readers []Reader) error {
	var s Stream
	copied := streamsPrefix + name + snapshotSuffix
	e, err := b.spool.put(copied, func(w io.Writer) (err error) {
		s, err = snapshot(ctx, b.Conn, name, w)
		return err
	})
	if err != nil {
		return err
	}
	again, err := b.spool.open(copied)
	if err != nil {
		return err
	}
	if err := errors.Join(checkSnapshot(again, s), again.Close()); err != nil {
		return err
	}
	s.Readers = readers
	b.manifest.Streams, b.manifest.Entries = append(b.manifest.Streams, s), append(b.manifest.Entries, e)
	if b.Copied != nil {
		b.Copied(s)
	}
	if !isBucket(name) {
		return nil
	}
	var n uint64
	e, err = b.spool.put(streamsPrefix+name+sinceSuffix, func(w io.Writer) (err error) {
		n, err = since(ctx, b.js, name, s.Last, w)
		return err
	})
	if err == nil && n > 0 {
		b.manifest.Entries = append(b.manifest.Entries, e)
	}
	return err
}

// addFile measures a file. A small one is read here, so that what is written is what was measured.
func (b *writer) addFile(ctx context.Context, f File) error {
	name := filesPrefix + f.Name
	if !f.Blob {
		data, err := readFile(f.Path)
		if err != nil {
			return err
		}
		m := newMeter()
		_, _ = m.Write(data) // never fails
		b.small[name], b.manifest.Entries = data, append(b.manifest.Entries, m.entry(name))
		return nil
	}
	in, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	m := newMeter()
	if _, err := io.Copy(m, interruptible{ctx, in}); err != nil {
		return fmt.Errorf("read %s: %w", f.Path, err)
	}
	b.blobs[name], b.manifest.Entries = f.Path, append(b.manifest.Entries, m.entry(name))
	return nil
}

// write writes the manifest and all that it lists.
func (b *writer) write(ctx context.Context, w io.Writer) error {
	text, err := json.MarshalIndent(b.manifest, "", " ")
	if err != nil {
		return err
	}
	if len(text) > maxManifest {
		return fmt.Errorf("the list of what is backed up: %w", errTooLarge)
	}
	out := tar.NewWriter(w)
	if err := b.writeEntry(ctx, out, Entry{Name: manifestName, Size: int64(len(text))}, io.NopCloser(bytes.NewReader(text))); err != nil {
		return err
	}
	for _, e := range b.manifest.Entries {
		in, err := b.open(e)
		if err != nil {
			return err
		}
		if err := b.writeEntry(ctx, out, e, in); err != nil {
			return err
		}
	}
	return out.Close()
}

func (b *writer) open(e Entry) (io.ReadCloser, error) {
	if data, ok := b.small[e.Name]; ok {
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	if path, ok := b.blobs[e.Name]; ok {
		return os.Open(path)
	}
	return b.spool.open(e.Name)
}

// writeEntry writes exactly what was measured.
func (b *writer) writeEntry(ctx context.Context, out *tar.Writer, e Entry, in io.ReadCloser) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: e.Name, Size: e.Size, Mode: 0o600, ModTime: b.manifest.Taken.Truncate(time.Second)}
	m := newMeter()
	err := out.WriteHeader(header)
	if err == nil {
		_, err = io.Copy(io.MultiWriter(out, m), interruptible{ctx, in})
	}
	if err = errors.Join(err, in.Close()); err != nil {
		return fmt.Errorf("write %s: %w", e.Name, err)
	}
	if e.SHA256 != "" && m.entry(e.Name) != e {
		return fmt.Errorf("%s changed while it was read: try again", e.Name)
	}
	return nil
}

// interruptible ends reading when the context does.
type interruptible struct {
	ctx context.Context
	io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.Reader.Read(p)
}
