package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/cryptofmt"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// keys is an open keyset. It does not change.
type keys struct {
	handle  *keyset.Handle
	aead    tink.AEAD
	primary uint32 // the key that seals
	ids     map[uint32]bool
}

func newKeys() (*keys, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	return keysOf(handle)
}

func keysOf(handle *keyset.Handle) (*keys, error) {
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, errors.New("the keyset's keys are not for authenticated encryption")
	}
	info := handle.KeysetInfo()
	k := &keys{handle: handle, aead: primitive, primary: info.GetPrimaryKeyId(), ids: map[uint32]bool{}}
	for _, one := range info.GetKeyInfo() {
		k.ids[one.GetKeyId()] = true
	}
	return k, nil
}

// parseKeys reads a keyset as bytes gives it. No error quotes what was read.
func parseKeys(data []byte) (*keys, error) {
	return readKeys(keyset.NewBinaryReader(bytes.NewReader(data)))
}

// parseClear reads a keyset as earlier versions stored it.
func parseClear(data []byte) (*keys, error) {
	return readKeys(keyset.NewJSONReader(bytes.NewReader(data)))
}

func readKeys(from keyset.Reader) (*keys, error) {
	handle, err := insecurecleartextkeyset.Read(from)
	if err != nil {
		return nil, errors.New("it is no keyset, or is damaged: restore it from a backup")
	}
	return keysOf(handle)
}

// bytes is the keyset in the clear. The caller clears it.
func (k *keys) bytes() ([]byte, error) {
	out := bounded{data: make([]byte, 0, maxKeyset), limit: maxKeyset}
	if err := insecurecleartextkeyset.Write(k.handle, keyset.NewBinaryWriter(&out)); err != nil {
		clear(out.data)
		return nil, err
	}
	return out.data, nil
}

// withNew adds a key, by which is sealed from now on.
func (k *keys) withNew() (*keys, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	id, err := m.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, err
	}
	handle, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return keysOf(handle)
}

// primaryOnly leaves all other keys out.
func (k *keys) primaryOnly() (*keys, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	for id := range k.ids {
		if id != k.primary {
			if err := m.Delete(id); err != nil {
				return nil, fmt.Errorf("remove key %s: %w", keyName(id), err)
			}
		}
	}
	handle, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return keysOf(handle)
}

// keyName is how people read a key's id.
func keyName(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// keyOf is the id of the key that sealed something.
func keyOf(sealed []byte) (id uint32, ok bool) {
	if len(sealed) < cryptofmt.TinkPrefixSize || sealed[0] != cryptofmt.TinkStartByte {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[1:]), true
}

// bounded takes up to limit bytes, without leaving copies behind as a buffer does that grows.
type bounded struct {
	data  []byte
	limit int
	full  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.data)+len(p) > b.limit {
		b.full = true
		return 0, io.ErrShortWrite
	}
	b.data = append(b.data, p...)
	return len(p), nil
}
