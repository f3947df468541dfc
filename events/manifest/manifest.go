// Package manifest encodes, decodes, checks and seals package manifests: the one place that says what a package
// may be, used where a package is read from disk and again where it is published. Publishers sign manifests;
// agents verify that before they believe one.
//
// It is pure: bytes and values in, values and problems out. A manifest has exactly one encoding, so that
// equal packages have equal digests and no two readers can understand the same bytes differently.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"chandler/events"
)

// API is the only form of manifest that this version writes and reads.
const API = "chandler/v1"

// MaxBytes bounds an encoded manifest, without its envelope: ten thousand files, or a few hundred gigabytes in large ones.
const MaxBytes = 8 << 20

// Encode writes the one encoding of a manifest that passed [Check]: JSON in the order of the declaration,
// map keys sorted, the time in UTC, one newline at the end.
func Encode(m events.Manifest) ([]byte, error) {
	m.Published = m.Published.UTC().Truncate(time.Second)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encode manifest of %s %s: %w", m.Package, m.Version, err)
	}
	if b.Len() > MaxBytes {
		return nil, fmt.Errorf("manifest of %s %s has %d bytes, at most %d are allowed: publish fewer or smaller files", m.Package, m.Version, b.Len(), MaxBytes)
	}
	return b.Bytes(), nil
}

// Decode reads and checks a manifest. Unknown fields, anything after the value, and every encoding but
// that of [Encode] are errors.
func Decode(data []byte) (events.Manifest, error) {
	var m events.Manifest
	if len(data) > MaxBytes {
		return m, fmt.Errorf("manifest has %d bytes, at most %d are allowed", len(data), MaxBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return events.Manifest{}, fmt.Errorf("decode manifest: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return events.Manifest{}, errors.New("decode manifest: something follows it")
	}
	if err := Join(Check(m)); err != nil {
		return events.Manifest{}, err
	}
	again, err := Encode(m)
	if err != nil {
		return events.Manifest{}, err
	}
	if !bytes.Equal(again, data) {
		return events.Manifest{}, errors.New("decode manifest: it is not in the one form that chandler writes (order, spacing, a doubled key or another letter case)")
	}
	return m, nil
}

// Same says whether two manifests describe the same package, whenever they were published.
func Same(a, b events.Manifest) bool {
	a.Published, b.Published = time.Time{}, time.Time{}
	x, errA := Encode(a)
	y, errB := Encode(b)
	return errA == nil && errB == nil && bytes.Equal(x, y)
}

// Blobs of a package, each once, in the order of its files: what distribution points hold of it. Neither the manifest itself
// nor files on external sources are among them.
func Blobs(m events.Manifest) []events.BlobRef {
	seen := make(map[string]bool, len(m.Files))
	var blobs []events.BlobRef
	for _, f := range m.Files {
		if !Outside(m, f) && !seen[f.SHA256] {
			seen[f.SHA256] = true
			blobs = append(blobs, events.BlobRef{SHA256: f.SHA256, Size: f.Size})
		}
	}
	return blobs
}
