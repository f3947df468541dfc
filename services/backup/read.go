package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Verify reads all of an archive that is not encrypted (any more) and holds it against its manifest. Nothing is
// written.
func Verify(ctx context.Context, r io.Reader) (Manifest, error) {
	streams := map[string]Stream{}
	return read(ctx, r, func(m Manifest) error {
		for _, s := range m.Streams {
			streams[s.Name] = s
		}
		return nil
	}, func(e Entry, in io.Reader) error {
		name, since, ok := e.stream()
		switch {
		case !ok:
			return nil
		case since:
			return readSince(in, func(kept) error { return nil })
		}
		return checkSnapshot(in, streams[name])
	})
}

// read gives the manifest, and then every entry in its order; each need not be read to its end. What differs from
// the manifest is an error, at the latest after each returned.
func read(ctx context.Context, r io.Reader, begin func(Manifest) error, each func(Entry, io.Reader) error) (Manifest, error) {
	in := tar.NewReader(interruptible{ctx, r})
	m, err := readManifest(in)
	if err != nil {
		return m, err
	}
	if err := begin(m); err != nil {
		return m, err
	}
	for _, e := range m.Entries {
		if err := readEntry(in, e, each); err != nil {
			return m, err
		}
	}
	if h, err := in.Next(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("%.80q is in it and not in its list", h.Name)
		}
		return m, fmt.Errorf("read the backup: %w", err)
	}
	return m, readEnd(interruptible{ctx, r})
}

// readManifest reads the first entry.
func readManifest(in *tar.Reader) (m Manifest, err error) {
	h, err := in.Next()
	if err != nil {
		return m, fmt.Errorf("this is no backup of chandler, or it is encrypted otherwise than said: %w", err)
	}
	if h.Name != manifestName || h.Typeflag != tar.TypeReg {
		return m, fmt.Errorf("this is no backup of chandler: it does not begin with %s", manifestName)
	}
	if h.Size > maxManifest {
		return m, fmt.Errorf("%s: %w", manifestName, errTooLarge)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return m, fmt.Errorf("read %s: %w", manifestName, err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&m); err != nil {
		return m, fmt.Errorf("read %s: %w", manifestName, err)
	}
	if err := m.validate(); err != nil {
		return m, fmt.Errorf("%s: %w", manifestName, err)
	}
	return m, nil
}

// readEntry makes sure that the next entry is e, with its bytes.
func readEntry(in *tar.Reader, e Entry, each func(Entry, io.Reader) error) error {
	h, err := in.Next()
	if err != nil {
		return fmt.Errorf("the backup ends before %s: %w", e.Name, err)
	}
	if h.Name != e.Name || h.Typeflag != tar.TypeReg || h.Size != e.Size || sparse(h) {
		return fmt.Errorf("where %s is to be the backup has %.80q of %d bytes", e.Name, h.Name, h.Size)
	}
	m := newMeter()
	body := io.TeeReader(in, m)
	if err := each(e, body); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return fmt.Errorf("read %s: %w", e.Name, err)
	}
	if m.entry(e.Name) != e {
		return fmt.Errorf("%s is not what the backup's list says: the file is damaged", e.Name)
	}
	return nil
}

// sparse files claim bytes that are not in the archive.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// readEnd reads what pads the archive: encryption tells at its very end that nothing was cut off.
func readEnd(r io.Reader) error {
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.Read(buffer)
		if len(bytes.Trim(buffer[:n], "\x00")) > 0 {
			return errors.New("there is something after the end of the backup")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the end of the backup: %w", err)
		}
	}
}
