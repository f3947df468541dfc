package credentials

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

const (
	keysetFile = "accounts.keyset.json"
	maxKeyset  = 1 << 20
)

// sealer encrypts secrets.
type sealer struct{ aead tink.AEAD }

// seal encrypts one account's secret of one version.
func (s sealer) seal(account string, version int, secret []byte) ([]byte, error) {
	return s.aead.Encrypt(secret, binding(account, version))
}

// open decrypts it. The caller clears what it gets.
func (s sealer) open(account string, version int, sealed []byte) ([]byte, error) {
	return s.aead.Decrypt(sealed, binding(account, version))
}

// check says whether a sealed secret belongs to the account and version and is whole.
func (s sealer) check(account string, version int, sealed []byte) error {
	secret, err := s.open(account, version, sealed)
	clear(secret)
	return err
}

// binding is the associated data. Names hold no zero bytes.
func binding(account string, version int) []byte {
	return []byte("chandler account\x00" + account + "\x00" + strconv.Itoa(version))
}

// openKeyset reads the keyset in dir; the first time it makes both.
func openKeyset(dir string) (sealer, error) {
	path := filepath.Join(dir, keysetFile)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return sealer{}, fmt.Errorf("make directory of the keyset: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := makeKeyset(dir, path); err != nil {
			return sealer{}, fmt.Errorf("make keyset %s: %w", path, err)
		}
	}
	s, err := readKeyset(path)
	if err != nil {
		return sealer{}, fmt.Errorf("open keyset %s: %w", path, err)
	}
	return s, nil
}

func readKeyset(path string) (sealer, error) {
	f, err := os.Open(path)
	if err != nil {
		return sealer{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return sealer{}, err
	}
	if err := checkPrivate(info); err != nil {
		return sealer{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyset))
	if err != nil {
		return sealer{}, err
	}
	defer clear(data)
	return parseKeyset(data)
}

// parseKeyset never puts what it reads into an error.
func parseKeyset(data []byte) (sealer, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	if err != nil {
		return sealer{}, errors.New("the file is not a keyset, or is damaged: restore it from a backup")
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return sealer{}, errors.New("the keyset's keys are not for authenticated encryption")
	}
	return sealer{primitive}, nil
}

// makeKeyset writes a new keyset whole or not at all. If another replica was first, its keyset stays.
func makeKeyset(dir, path string) error {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&out)); err != nil {
		return err
	}
	defer clear(out.Bytes())
	f, err := os.CreateTemp(dir, keysetFile+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(out.Bytes())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}
