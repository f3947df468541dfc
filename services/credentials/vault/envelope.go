package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// Limits in bytes.
const (
	maxEnvelope = 1 << 20
	maxWrapped  = 256 << 10
	maxKeyset   = 64 << 10 // in the clear
	maxName     = 4 << 10
)

// format is the version of the keyset file.
const format = 1

// envelope is the keyset file.
type envelope struct {
	Format int `json:"format"`
	// KeptBy is the name of the key-encryption key; see [Wrapper].
	KeptBy string `json:"kept_by"`
	// Since is when the key that seals was made, which says when no request uses the one before any more.
	Since   time.Time `json:"since"`
	Wrapped []byte    `json:"wrapped"`
}

// parseEnvelope reads a keyset file strictly: what this version does not know may be what makes it readable.
func parseEnvelope(data []byte) (envelope, error) {
	var e envelope
	if len(data) > maxEnvelope {
		return e, fmt.Errorf("the file is larger than %d bytes", maxEnvelope)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil || len(bytes.TrimSpace(data[d.InputOffset():])) > 0 {
		return envelope{}, errors.New("the file is no wrapped keyset, is damaged, or of a later version: restore it from a backup")
	}
	kind, place, _ := strings.Cut(e.KeptBy, ":")
	switch {
	case e.Format != format:
		return envelope{}, fmt.Errorf("the file's format is %d, and this version reads %d", e.Format, format)
	case kind == "" || place == "" || len(e.KeptBy) > maxName || strings.ContainsFunc(e.KeptBy, unicode.IsControl):
		return envelope{}, errors.New("the file does not say what encrypts it: restore it from a backup")
	case len(e.Wrapped) == 0 || len(e.Wrapped) > maxWrapped:
		return envelope{}, fmt.Errorf("the wrapped keyset has %d bytes, not 1 to %d", len(e.Wrapped), maxWrapped)
	}
	return e, nil
}

// Look says which key-encryption key the keyset file in a directory names, "" where there is no file, and whether an
// earlier version's keyset is there in the clear. Nothing is opened.
func Look(dir string) (keptBy string, inClear bool, err error) {
	if _, err := os.Lstat(filepath.Join(dir, clearOld)); err == nil {
		inClear = true
	}
	data, err := readPrivate(filepath.Join(dir, File), maxEnvelope)
	if errors.Is(err, fs.ErrNotExist) {
		return "", inClear, nil
	}
	if err != nil {
		return "", inClear, fmt.Errorf("read keyset %s: %w", filepath.Join(dir, File), err)
	}
	e, err := parseEnvelope(data)
	if err != nil {
		return "", inClear, fmt.Errorf("read keyset %s: %w", filepath.Join(dir, File), err)
	}
	return e.KeptBy, inClear, nil
}

func (e envelope) bytes() ([]byte, error) {
	data, err := json.MarshalIndent(e, "", "  ")
	return append(data, '\n'), err
}

// kindOf a key-encryption key, by its name.
func kindOf(name string) string {
	kind, _, _ := strings.Cut(name, ":")
	return kind
}
