package rpmfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of a header. rpm's own are as many entries and 256 MiB; packages of some ten thousand files take 4 MiB.
const (
	maxEntries = 0xFFFF
	maxStore   = 16 << 20 // bytes
)

const (
	entrySize = 16 // bytes: tag, type, offset in the store, count of values, each a big-endian uint32

	tagName    = 1000
	tagVersion = 1001
	tagRelease = 1002
	tagEpoch   = 1003
	tagSummary = 1004
	tagVendor  = 1011
	tagArch    = 1022

	typeInt32      = 4
	typeString     = 6
	typeTranslated = 9 // strings by locale, the untranslated one first
)

// header is an index of tagged values and the store that they lie in.
type header struct {
	index []byte
	store []byte
}

// readHeader reads a header: 16 bytes of magic, number of entries and size of the store, then the entries, then the store.
func readHeader(r io.Reader) (header, error) {
	entries, size, err := readIntro(r)
	if err != nil {
		return header{}, err
	}
	index, err := readExactly(r, entries*entrySize)
	if err != nil {
		return header{}, fmt.Errorf("index: %w", err)
	}
	store, err := readExactly(r, size)
	if err != nil {
		return header{}, fmt.Errorf("store: %w", err)
	}
	return header{index: index, store: store}, nil
}

// skipSignature reads over the header before the main one, which is built alike and padded to a multiple of eight bytes.
func skipSignature(r io.Reader) error {
	entries, size, err := readIntro(r)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, r, entries*entrySize+(size+7)&^7); err != nil {
		return unexpected(err)
	}
	return nil
}

func readIntro(r io.Reader) (entries, size int64, err error) {
	intro := make([]byte, 16)
	if _, err := io.ReadFull(r, intro); err != nil {
		return 0, 0, unexpected(err)
	}
	if !bytes.HasPrefix(intro, []byte{0x8E, 0xAD, 0xE8, 1}) {
		return 0, 0, errors.New("no header where one must be")
	}
	entries, size = int64(binary.BigEndian.Uint32(intro[8:])), int64(binary.BigEndian.Uint32(intro[12:]))
	if entries > maxEntries || size > maxStore {
		return 0, 0, fmt.Errorf("it has %d entries and %d bytes, allowed are %d and %d", entries, size, maxEntries, maxStore)
	}
	return entries, size, nil
}

// readExactly reads size bytes, and allocates only as they come.
func readExactly(r io.Reader, size int64) ([]byte, error) {
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, size); err != nil {
		return nil, unexpected(err)
	}
	return b.Bytes(), nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// find returns the type of a tag and the store from its first value on; ok is false when the header does not have it.
func (h header) find(tag uint32) (kind uint32, value []byte, ok bool, err error) {
	for index := h.index; len(index) > 0; index = index[entrySize:] {
		if binary.BigEndian.Uint32(index) != tag {
			continue
		}
		offset, count := binary.BigEndian.Uint32(index[8:]), binary.BigEndian.Uint32(index[12:])
		switch {
		case ok:
			return 0, nil, false, fmt.Errorf("tag %d is there twice", tag)
		case count == 0 || int64(offset) >= int64(len(h.store)):
			return 0, nil, false, fmt.Errorf("tag %d points outside the header", tag)
		}
		kind, value, ok = binary.BigEndian.Uint32(index[4:]), h.store[offset:], true
	}
	return kind, value, ok, nil
}

// text returns a string, of several the first; "" when the header does not have the tag.
func (h header) text(tag uint32) (string, error) {
	kind, value, ok, err := h.find(tag)
	if err != nil || !ok {
		return "", err
	}
	text, _, terminated := bytes.Cut(value, []byte{0})
	if kind != typeString && kind != typeTranslated || !terminated {
		return "", fmt.Errorf("tag %d is no string", tag)
	}
	return strings.ToValidUTF8(string(text), "\uFFFD"), nil
}

// number returns an integer, of several the first; 0 when the header does not have the tag.
func (h header) number(tag uint32) (uint32, error) {
	kind, value, ok, err := h.find(tag)
	if err != nil || !ok {
		return 0, err
	}
	if kind != typeInt32 || len(value) < 4 {
		return 0, fmt.Errorf("tag %d is no number", tag)
	}
	return binary.BigEndian.Uint32(value), nil
}
