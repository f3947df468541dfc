package execution

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"

	"chandler/events"
)

// delta is one change of a partition: whole records, by which the records of the same jobs are replaced.
// A snapshot is one big delta.
type delta struct {
	previous uint64            // sequence in FOLD of the partition's delta before this one
	author   uint64            // replica that appended it
	status   events.Generation // of STATUS
	folded   uint64            // sequence in STATUS up to which the partition is folded
	removed  []removal         // deployments that are forgotten; before the jobs
	places   []place           // agents whose site became known, or is another one
	jobs     []job
}

// removal forgets a deployment, and its orders up to a revision.
type removal struct {
	deployment string
	revision   uint64
}

// snapshot is a partition's whole state.
type snapshot struct {
	created  int64  // creation of the FOLD that sequence belongs to, Unix nanoseconds
	sequence uint64 // of the newest delta in it
	delta
}

const (
	// Format 2 added the phases of jobs and the sites of agents; format 1 is read as if all jobs were of the first phase.
	deltaFormat    = 2
	snapshotFormat = 2
	// maxSnapshot bounds a snapshot in memory: a million jobs of one partition are below 100 MB.
	maxSnapshot = 1 << 30
	// minEntry is the smallest encoding of one job; it bounds what a header may announce.
	minEntry = 12
)

// encode writes the words first, each once, and then numbers that refer to them.
func (d delta) encode() []byte { return d.append([]byte{'D', deltaFormat}) }

func (d delta) append(out []byte) []byte {
	words, index := []string{}, map[string]uint64{}
	word := func(s string) uint64 {
		i, ok := index[s]
		if !ok {
			i = uint64(len(words))
			index[s], words = i, append(words, s)
		}
		return i
	}
	body := binary.AppendUvarint(nil, uint64(len(d.removed)))
	for _, r := range d.removed {
		body = binary.AppendUvarint(binary.AppendUvarint(body, word(r.deployment)), r.revision)
	}
	body = binary.AppendUvarint(body, uint64(len(d.jobs)))
	for _, j := range d.jobs {
		for _, n := range []uint64{word(j.deployment), j.revision, word(j.agent), word(j.user), uint64(j.changed), uint64(j.transition), uint64(j.attempt),
			word(string(j.state)), word(string(j.reason)), word(string(j.waiting))} {
			body = binary.AppendUvarint(body, n)
		}
		body = append(binary.AppendVarint(body, j.occurrence), j.flags, j.wave)
	}
	body = binary.AppendUvarint(body, uint64(len(d.places)))
	for _, p := range d.places {
		body = binary.AppendUvarint(binary.AppendUvarint(body, word(p.agent)), word(p.site))
	}
	out = binary.AppendUvarint(out, d.previous)
	out = binary.AppendUvarint(out, d.author)
	out = binary.AppendVarint(out, d.status.Created)
	out = binary.AppendVarint(out, int64(d.status.Counter))
	out = binary.AppendUvarint(out, d.folded)
	out = binary.AppendUvarint(out, uint64(len(words)))
	for _, w := range words {
		out = append(binary.AppendUvarint(out, uint64(len(w))), w...)
	}
	return append(out, body...)
}

// decodeDelta reads what encode wrote. It trusts nothing: counts are held against the bytes there are.
func decodeDelta(data []byte) (delta, error) {
	if len(data) < 2 || data[0] != 'D' {
		return delta{}, errors.New("decode delta: it does not begin as one")
	}
	if data[1] < 1 || data[1] > deltaFormat {
		return delta{}, fmt.Errorf("decode delta: format %d, this version reads up to %d", data[1], deltaFormat)
	}
	r := reader{rest: data[2:], format: data[1]}
	d := r.delta()
	if r.err == nil && len(r.rest) > 0 {
		r.err = errors.New("something follows")
	}
	if r.err != nil {
		return delta{}, fmt.Errorf("decode delta: %w", r.err)
	}
	return d, nil
}

// encode compresses a snapshot.
func (s snapshot) encode(z *zstd.Encoder) []byte {
	head := binary.AppendUvarint(binary.AppendVarint(nil, s.created), s.sequence)
	return z.EncodeAll(s.append(head), []byte{'S', snapshotFormat})
}

func decodeSnapshot(data []byte, z *zstd.Decoder) (snapshot, error) {
	if len(data) < 2 || data[0] != 'S' {
		return snapshot{}, errors.New("decode snapshot: it does not begin as one")
	}
	if data[1] < 1 || data[1] > snapshotFormat {
		return snapshot{}, fmt.Errorf("decode snapshot: format %d, this version reads up to %d", data[1], snapshotFormat)
	}
	plain, err := z.DecodeAll(data[2:], nil)
	if err != nil {
		return snapshot{}, fmt.Errorf("decode snapshot: %w", err)
	}
	r := reader{rest: plain, format: data[1]}
	s := snapshot{created: r.signed(), sequence: r.unsigned(math.MaxUint64)}
	s.delta = r.delta()
	if r.err == nil && len(r.rest) > 0 {
		r.err = errors.New("something follows")
	}
	if r.err != nil {
		return snapshot{}, fmt.Errorf("decode snapshot: %w", r.err)
	}
	return s, nil
}

func newZstd() (*zstd.Encoder, *zstd.Decoder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSnapshot))
	return enc, dec, err
}

// reader takes values off a byte slice; after the first error all it gives is zero.
type reader struct {
	rest   []byte
	format byte
	words  []string
	err    error
}

func (r *reader) delta() delta {
	d := delta{previous: r.unsigned(math.MaxUint64), author: r.unsigned(math.MaxUint64)}
	d.status = events.Generation{Created: r.signed(), Counter: int(int32(r.signed()))}
	d.folded = r.unsigned(math.MaxUint64)
	for range r.count(1) {
		r.words = append(r.words, r.text())
	}
	for range r.count(2) {
		d.removed = append(d.removed, removal{r.word(), r.unsigned(math.MaxUint64)})
	}
	n := r.count(minEntry)
	if n > 0 {
		d.jobs = make([]job, 0, n)
	}
	for range n {
		if r.err != nil {
			break
		}
		d.jobs = append(d.jobs, r.job())
	}
	if r.format < 2 {
		return d
	}
	for range r.count(2) {
		d.places = append(d.places, place{r.word(), r.word()})
	}
	return d
}

func (r *reader) job() job {
	j := job{deployment: r.word(), revision: r.unsigned(math.MaxUint64), agent: r.word(), user: r.word(), changed: uint32(r.unsigned(math.MaxUint32)),
		transition: uint32(r.unsigned(math.MaxUint32)), attempt: uint16(r.unsigned(math.MaxUint16)), state: events.State(r.word()),
		reason: events.Reason(r.word()), waiting: events.WaitingFor(r.word()), occurrence: r.signed()}
	j.flags = r.single()
	if r.format >= 2 {
		j.wave = r.single()
	}
	return j
}

func (r *reader) single() (b byte) {
	if len(r.rest) == 0 {
		r.fail("it is cut off")
		return 0
	}
	b, r.rest = r.rest[0], r.rest[1:]
	return b
}

func (r *reader) fail(why string) {
	if r.err == nil {
		r.err = errors.New(why)
	}
	r.rest = nil
}

func (r *reader) unsigned(most uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > most {
		r.fail("a number is malformed or too large")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail("a number is malformed")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// count is a number of things of at least size bytes each.
func (r *reader) count(size int) uint64 {
	return r.unsigned(uint64(len(r.rest) / size))
}

func (r *reader) text() string {
	n := r.unsigned(uint64(len(r.rest)))
	if n > uint64(len(r.rest)) {
		r.fail("a word is cut off")
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) word() string {
	i := r.unsigned(math.MaxUint32)
	if r.err != nil {
		return ""
	}
	if i >= uint64(len(r.words)) {
		r.fail("a word is referred to that is not there")
		return ""
	}
	return r.words[i]
}
