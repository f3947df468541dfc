package backup

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"chandler/events"
)

// Format of the archives that this version writes and reads.
const Format = 1

const (
	manifestName = "manifest.json"
	// maxManifest and maxEntries bound what is read of an archive before anything of it is believed: a million
	// entries are 4 TiB of package content.
	maxManifest = 256 << 20
	maxEntries  = 1 << 20
	maxName     = 512
)

// GlobalAccount is the account of a broker that asks nobody who he is.
const GlobalAccount = "$G"

// Manifest is the first entry of an archive.
type Manifest struct {
	Format  int    `json:"format"`
	Version string `json:"version"` // of the program that wrote it
	Fleet   string `json:"fleet"`   // name of the fleet; empty: not known where it was taken
	// Account is the public key of the account that the streams belong to, or [GlobalAccount].
	Account string    `json:"account"`
	Taken   time.Time `json:"taken"` // when it was begun
	Keys    bool      `json:"keys"`  // private keys are in it
	Streams []Stream  `json:"streams"`
	Entries []Entry   `json:"entries"` // in the archive's order
}

// Stream is one stream, or the one that keeps a bucket.
type Stream struct {
	Name     string          `json:"name"`
	Config   json.RawMessage `json:"config"` // as the broker gave it
	Messages uint64          `json:"messages"`
	Bytes    uint64          `json:"bytes"` // as the broker stores them
	Last     uint64          `json:"last"`  // last sequence
	Readers  []Reader        `json:"readers,omitempty"`
}

// Reader is a durable consumer. What it had acknowledged lies before Next.
type Reader struct {
	Config jetstream.ConsumerConfig `json:"config"`
	Next   uint64                   `json:"next"`
}

// Entry is one file of the archive.
type Entry struct {
	Name   string `json:"name"` // streams/STREAM.snapshot, streams/STREAM.since, or files/PART/…
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // in hexadecimal
}

const (
	streamsPrefix  = "streams/"
	filesPrefix    = "files/"
	snapshotSuffix = ".snapshot"
	sinceSuffix    = ".since"
)

// stream says of which stream the entry is, and whether it is the broker's copy or what came since.
func (e Entry) stream() (name string, since, ok bool) {
	rest, ok := strings.CutPrefix(e.Name, streamsPrefix)
	if !ok {
		return "", false, false
	}
	if name, ok = strings.CutSuffix(rest, sinceSuffix); ok {
		return name, true, true
	}
	name, ok = strings.CutSuffix(rest, snapshotSuffix)
	return name, false, ok
}

// Parts are the parts of the data directory that are in the archive, sorted.
func (m Manifest) Parts() []string {
	var parts []string
	for _, e := range m.Entries {
		if rest, ok := strings.CutPrefix(e.Name, filesPrefix); ok {
			part, _, _ := strings.Cut(rest, "/")
			parts = append(parts, part)
		}
	}
	slices.Sort(parts)
	return slices.Compact(parts)
}

// Size is how many bytes a restore writes, about.
func (m Manifest) Size() int64 {
	var total int64
	for _, e := range m.Entries {
		if _, _, ok := e.stream(); !ok {
			total += e.Size
		}
	}
	for _, s := range m.Streams {
		total += int64(min(s.Bytes, math.MaxInt64/4))
	}
	return total
}

// validate refuses what this version does not write.
func (m Manifest) validate() error {
	if m.Format != Format {
		return fmt.Errorf("it has format %d, and this version of the program reads format %d", m.Format, Format)
	}
	if m.Fleet != "" {
		if err := events.ValidToken(m.Fleet); err != nil {
			return fmt.Errorf("fleet: %w", err)
		}
	}
	if m.Account != GlobalAccount && !nkeys.IsValidPublicAccountKey(m.Account) {
		return fmt.Errorf("%q is no account", m.Account)
	}
	if len(m.Entries) > maxEntries {
		return fmt.Errorf("it lists %d entries, at most %d are read", len(m.Entries), maxEntries)
	}
	listed, err := m.validStreams()
	if err != nil {
		return err
	}
	return m.validEntries(listed)
}

// validStreams gives the names of the streams, each of which is declared.
func (m Manifest) validStreams() (map[string]bool, error) {
	declared, listed := map[string]bool{}, map[string]bool{}
	for _, name := range order() {
		declared[name] = true
	}
	for _, s := range m.Streams {
		switch {
		case !declared[s.Name]:
			return nil, fmt.Errorf("stream %q is not one of Chandler's", s.Name)
		case listed[s.Name]:
			return nil, fmt.Errorf("stream %s is listed twice", s.Name)
		}
		if _, err := s.config(); err != nil {
			return nil, err
		}
		for _, r := range s.Readers {
			if err := events.ValidToken(r.Config.Durable); err != nil {
				return nil, fmt.Errorf("stream %s: reader: %w", s.Name, err)
			}
		}
		listed[s.Name] = true
	}
	return listed, nil
}

// validEntries holds names and sizes against what can be, and the streams' entries against the streams.
func (m Manifest) validEntries(listed map[string]bool) error {
	seen := make(map[string]bool, len(m.Entries))
	copied := ""
	var total int64
	for _, e := range m.Entries {
		if err := validName(e.Name); err != nil {
			return err
		}
		folded := strings.ToLower(e.Name) // file systems may not tell them apart
		if seen[folded] {
			return fmt.Errorf("%s is listed twice", e.Name)
		}
		seen[folded] = true
		if digest, err := hex.DecodeString(e.SHA256); err != nil || len(digest) != 32 || e.Size < 0 || total > math.MaxInt64/4-e.Size {
			return fmt.Errorf("%s: its size or digest cannot be", e.Name)
		}
		total += e.Size
		name, since, ok := e.stream()
		switch {
		case !ok:
			continue
		case !listed[name], since && copied != name:
			return fmt.Errorf("%s belongs to no stream before it", e.Name)
		case !since:
			copied = name
		}
	}
	for name := range listed {
		if !seen[strings.ToLower(streamsPrefix+name+snapshotSuffix)] {
			return fmt.Errorf("stream %s is listed and not there", name)
		}
	}
	return nil
}

var segment = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._+-]{0,126}[A-Za-z0-9_+-])?$`)

// validName refuses what would leave the directory that it is joined to, on any operating system.
func validName(name string) error {
	bad := fmt.Errorf("an entry is named %.80q, which cannot be", name)
	if len(name) > maxName || !filepath.IsLocal(filepath.FromSlash(name)) {
		return bad
	}
	for s := range strings.SplitSeq(name, "/") {
		if !segment.MatchString(s) {
			return bad
		}
	}
	if _, _, ok := (Entry{Name: name}).stream(); ok {
		return nil
	}
	rest, ok := strings.CutPrefix(name, filesPrefix)
	if part, _, below := strings.Cut(rest, "/"); !ok || !below || strings.EqualFold(part, StoreName) {
		return bad
	}
	return nil
}

var errTooLarge = errors.New("it is larger than any that is written")
