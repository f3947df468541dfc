package vault

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// fileKeySize in bytes: AES-256.
const fileKeySize = 32

// fileKey is a key-encryption key in a file. It is read for each call and not kept in memory.
type fileKey struct{ path string }

func newFileKey(path string) (*fileKey, error) {
	path, err := filepath.Abs(path)
	return &fileKey{path}, err
}

func (f *fileKey) Name() string { return "file:" + f.path }

// make makes the file if there is none. If another replica is first, its key stays.
func (f *fileKey) make() error {
	if _, err := os.Stat(f.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key := make([]byte, fileKeySize)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	if err := writeNew(f.path, key); err != nil {
		return fmt.Errorf("make key-encryption key %s: %w; say with --key-encryption where it shall be", f.path, err)
	}
	return nil
}

func (f *fileKey) Wrap(_ context.Context, plain, purpose []byte) ([]byte, error) {
	c, err := f.cipher()
	if err != nil {
		return nil, err
	}
	return c.Seal(nil, nil, plain, purpose), nil
}

func (f *fileKey) Unwrap(_ context.Context, wrapped, purpose []byte) ([]byte, error) {
	c, err := f.cipher()
	if err != nil {
		return nil, err
	}
	plain, err := c.Open(nil, nil, wrapped, purpose)
	if err != nil {
		return nil, fmt.Errorf("%s is another key than the one that the keyset was encrypted by, or the keyset was altered", f.path)
	}
	return plain, nil
}

func (f *fileKey) cipher() (cipher.AEAD, error) {
	key, err := readOwn(f.path, fileKeySize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key-encryption key %s is not there: put it back from its copy, no account can be used without", f.path)
	}
	if err != nil {
		return nil, fmt.Errorf("read key-encryption key %s: %w", f.path, err)
	}
	defer clear(key)
	if len(key) != fileKeySize {
		return nil, fmt.Errorf("key-encryption key %s has %d bytes, not %d: put it back from its copy", f.path, len(key), fileKeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
