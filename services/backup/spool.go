package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
)

// spool keeps copies of streams until their sizes and digests are known, encrypted by a key that is in memory
// alone: what a crash leaves of it tells nobody anything.
type spool struct {
	dir string
	key *age.X25519Identity
}

func newSpool(beside string) (*spool, error) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(beside, ".chandler-backup-*") // mode 0700
	if err != nil {
		return nil, fmt.Errorf("make a directory for what is copied: %w", err)
	}
	return &spool{dir, key}, nil
}

func (s *spool) remove() error { return os.RemoveAll(s.dir) }

func (s *spool) file(entry string) string { return filepath.Join(s.dir, filepath.Base(entry)) }

// put keeps what write writes.
func (s *spool) put(entry string, write func(io.Writer) error) (e Entry, err error) {
	f, err := os.OpenFile(s.file(entry), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sealed, err := age.Encrypt(f, s.key.Recipient())
	if err != nil {
		return e, err
	}
	m := newMeter()
	if err := write(io.MultiWriter(sealed, m)); err != nil {
		return e, err
	}
	return m.entry(entry), sealed.Close()
}

// open gives what put kept.
func (s *spool) open(entry string) (io.ReadCloser, error) {
	f, err := os.Open(s.file(entry))
	if err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(f, s.key)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{plain, f}, nil
}

// meter counts and hashes what passes.
type meter struct {
	size int64
	hash hash.Hash
}

func newMeter() *meter { return &meter{hash: sha256.New()} }

func (m *meter) Write(p []byte) (int, error) {
	m.size += int64(len(p))
	return m.hash.Write(p)
}

func (m *meter) entry(name string) Entry {
	return Entry{Name: name, Size: m.size, SHA256: hex.EncodeToString(m.hash.Sum(nil))}
}
