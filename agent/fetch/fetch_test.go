package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

// memory is a source of blobs in memory, whose addresses are mem://<anything>/<digest>.
type memory struct {
	mu      sync.Mutex
	blobs   map[string][]byte
	opened  []int64                                            // offsets
	disturb func(address string, r io.Reader, n int) io.Reader // may be nil; n counts the calls of Open from 1
}

func (m *memory) Open(_ context.Context, ref Ref, offset int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened = append(m.opened, offset)
	data, ok := m.blobs[ref.SHA256]
	if !ok {
		return nil, &Error{Reason: events.SourceNotFound, Identity: Agent, Resource: ref.URL, Answer: "no such blob"}
	}
	var r io.Reader = bytes.NewReader(data[offset:])
	if m.disturb != nil {
		r = m.disturb(ref.URL, r, len(m.opened))
	}
	return io.NopCloser(r), nil
}

// cutAfter ends a reader after n bytes with an error.
func cutAfter(r io.Reader, n int64) io.Reader {
	return io.MultiReader(io.LimitReader(r, n), failing{})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// bench is a fetcher over a memory source.
type bench struct {
	*Fetcher
	*memory
	dir     string
	located int
}

func newBench(t *testing.T, change func(*Options)) *bench {
	t.Helper()
	return onDisk(t, t.TempDir(), &memory{blobs: map[string][]byte{}}, change)
}

// onDisk opens a cache, as an agent does that starts.
func onDisk(t *testing.T, dir string, m *memory, change func(*Options)) *bench {
	t.Helper()
	b := &bench{memory: m, dir: dir}
	o := Options{Dir: dir, Log: slog.New(slog.DiscardHandler), Sources: map[string]Source{"mem": m}, Pause: time.Millisecond, Locate: func(_ context.Context, blobs []string) (map[string][]string, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		b.located++
		found := map[string][]string{}
		for _, sha256 := range blobs {
			found[sha256] = []string{"mem://near/" + sha256, "mem://far/" + sha256}
		}
		return found, nil
	}}
	if change != nil {
		change(&o)
	}
	var err error
	if b.Fetcher, err = New(o); err != nil {
		t.Fatal(err)
	}
	return b
}

// file makes a file of n random bytes that the source has.
func (b *bench) file(path string, n int) events.File {
	data := random(path, n)
	f := events.File{Path: path, Size: int64(n), Mode: 0o644, SHA256: events.DigestOf(data)}
	if n > events.BlockSize {
		for at := 0; at < n; at += events.BlockSize {
			f.Blocks = append(f.Blocks, events.DigestOf(data[at:min(at+events.BlockSize, n)]))
		}
	}
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	b.blobs[f.SHA256] = data
	return f
}

func random(seed string, n int) []byte {
	data := make([]byte, n)
	var key [32]byte
	copy(key[:], seed)
	_, _ = rand.NewChaCha8(key).Read(data)
	return data
}

func (b *bench) must(t *testing.T, owner string, files ...events.File) Fetched {
	t.Helper()
	got, err := b.Fetch(t.Context(), owner, files, Outside{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func reason(err error) events.Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return "none"
}

// cached is what the cache holds, checked against its names.
func (b *bench) cached(t *testing.T) (digests []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(b.dir, "blobs", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil || events.DigestOf(data) != filepath.Base(name) {
			t.Errorf("%s holds other bytes: %v", name, err)
		}
		digests = append(digests, filepath.Base(name))
	}
	return digests
}

func TestFilesArriveOnceAndAreFoundAgain(t *testing.T) {
	b := newBench(t, nil)
	files := []events.File{b.file("a", 10), b.file("b", events.BlockSize+5), b.file("empty", 0), b.file("c", 300_000)}
	copyOfA := files[0]
	copyOfA.Path = "again"
	files = append(files, copyOfA)
	total := int64(10 + events.BlockSize + 5 + 300_000)
	var mu sync.Mutex
	var last, of int64
	got, err := b.Fetch(t.Context(), "job", files, Outside{}, func(done, all int64) {
		mu.Lock()
		defer mu.Unlock()
		last, of = max(last, done), all
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Bytes != total || got.Cached != 0 || !strings.HasPrefix(got.From, "mem://near/") || last != total || of != total {
		t.Errorf("fetched %+v, progress %d of %d, want %d", got, last, of, total)
	}
	if n := len(b.cached(t)); n != 4 {
		t.Errorf("%d blobs in the cache", n)
	}
	opened := len(b.opened)
	if diff := cmp.Diff(Fetched{Cached: total}, b.must(t, "another job", files...)); diff != "" || len(b.opened) != opened {
		t.Error(diff)
	}
	again := onDisk(t, b.dir, b.memory, nil)
	if diff := cmp.Diff(Fetched{Cached: total}, again.must(t, "job", files...)); diff != "" {
		t.Error("after a restart:", diff)
	}
}

func TestACutTransferGoesOnWhereItWas(t *testing.T) {
	b := newBench(t, nil)
	f := b.file("a", 3*events.BlockSize)
	b.disturb = func(_ string, r io.Reader, n int) io.Reader {
		if n == 1 {
			return cutAfter(r, events.BlockSize+1000)
		}
		return r
	}
	got := b.must(t, "job", f)
	if diff := cmp.Diff([]int64{0, events.BlockSize + 1000}, b.opened); diff != "" || got.Bytes != f.Size {
		t.Error(diff, got)
	}
}

func TestAKilledAgentsTransferGoesOn(t *testing.T) {
	const n = 3*events.BlockSize + 100
	for _, c := range []struct {
		name   string
		change func(left []byte) []byte
		opened []int64
		fresh  int64 // bytes over the network
	}{
		{"where it was", func(left []byte) []byte { return left }, []int64{2*events.BlockSize + 77}, events.BlockSize + 23},
		{"before a block that is wrong", func(left []byte) []byte { left[events.BlockSize+3] ^= 1; return left }, []int64{events.BlockSize}, 2*events.BlockSize + 100},
		{"from the beginning if all is wrong", func([]byte) []byte { return make([]byte, n) }, []int64{0}, n},
		{"again from the block's start if its kept beginning was wrong", func(left []byte) []byte { left[len(left)-1] ^= 1; return left },
			[]int64{2*events.BlockSize + 77, 2 * events.BlockSize}, 2*events.BlockSize + 23},
		{"not at all if nothing is missing", func([]byte) []byte { return random("a", n) }, nil, 0},
		{"before what is too much", func([]byte) []byte { return append(random("a", n), "more"...) }, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			f := b.file("a", n)
			left := c.change(random("a", n)[:2*events.BlockSize+77])
			if err := os.WriteFile(filepath.Join(b.dir, "partial", f.SHA256), left, 0o600); err != nil {
				t.Fatal(err)
			}
			again := onDisk(t, b.dir, b.memory, nil)
			got, err := again.Fetch(t.Context(), "job", []events.File{f}, Outside{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.opened, again.opened); diff != "" {
				t.Error(diff)
			}
			if len(again.cached(t)) != 1 || got.Bytes != c.fresh || again.cache.total != n {
				t.Errorf("fetched %+v; the cache counts %d bytes", got, again.cache.total)
			}
		})
	}
}

func TestWrongBytesAreNeverKeptAndTheNextAddressIsTried(t *testing.T) {
	b := newBench(t, nil)
	f := b.file("a", 2*events.BlockSize)
	b.disturb = func(address string, r io.Reader, _ int) io.Reader {
		if strings.HasPrefix(address, "mem://near") {
			return io.MultiReader(io.LimitReader(r, events.BlockSize), bytes.NewReader(make([]byte, events.BlockSize)))
		}
		return r
	}
	b.must(t, "job", f)
	if diff := cmp.Diff([]int64{0, events.BlockSize}, b.opened); diff != "" {
		t.Error(diff) // the right block is kept, the wrong one is fetched from far
	}
	b.cached(t)
}

func TestAManifestThatContradictsItselfIsAMismatch(t *testing.T) {
	b := newBench(t, nil)
	f := b.file("a", 2*events.BlockSize)
	b.blobs[f.SHA256] = random("other", 2*events.BlockSize)
	f.Blocks = b.file("other", 2*events.BlockSize).Blocks
	_, err := b.Fetch(t.Context(), "job", []events.File{f}, Outside{}, nil)
	if reason(err) != events.ContentMismatch || len(b.cached(t)) != 0 || b.cache.total != 0 {
		t.Errorf("error %v, %d bytes are counted", err, b.cache.total)
	}
}

func TestGivingUpSaysWhoTriedWhat(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*bench, events.File)
		want    Error
	}{
		"nobody has it":       {func(b *bench, f events.File) { delete(b.blobs, f.SHA256) }, Error{Reason: events.ContentUnavailable, Resource: "mem://far/", Answer: "no such blob"}},
		"nobody is named":     {func(b *bench, _ events.File) { b.locate = nowhere }, Error{Reason: events.ContentUnavailable, Resource: "blob ", Answer: "no distribution point"}},
		"content says naught": {func(b *bench, _ events.File) { b.locate = silent }, Error{Reason: events.ContentUnavailable, Resource: "the content service"}},
		"an unknown scheme":   {func(b *bench, _ events.File) { b.sources = map[string]Source{"http": b.memory} }, Error{Reason: events.SourceUnsupported, Resource: "mem://far/"}},
		"every address is cut": {func(b *bench, _ events.File) {
			b.disturb = func(_ string, r io.Reader, _ int) io.Reader { return failing{} }
		}, Error{Reason: events.SourceUnreachable, Resource: "mem://far/", Answer: "0 of 10 bytes"}},
		"every address lies": {func(b *bench, f events.File) { b.blobs[f.SHA256] = make([]byte, 10) }, Error{Reason: events.ContentMismatch, Resource: "mem://far/", Answer: "does not match"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			f := b.file("a", 10)
			c.prepare(b, f)
			_, err := b.Fetch(t.Context(), "job", []events.File{f}, Outside{}, nil)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Reason != c.want.Reason || e.Identity != Agent || !strings.HasPrefix(e.Resource, c.want.Resource) || !strings.Contains(e.Answer, c.want.Answer) {
				t.Errorf("error %+v", err)
			}
		})
	}
}

func nowhere(context.Context, []string) (map[string][]string, error) { return nil, nil }
func silent(context.Context, []string) (map[string][]string, error) {
	return nil, errors.New("no responders")
}

func TestPausesGrowAndProgressStartsThemAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.Pause, o.Attempts = time.Second, 4 })
		f := b.file("a", 2*events.BlockSize)
		start := time.Now()
		b.disturb = func(_ string, r io.Reader, n int) io.Reader {
			if n == 3 { // the second round's first
				return cutAfter(r, 100)
			}
			return failing{}
		}
		if _, err := b.Fetch(t.Context(), "job", []events.File{f}, Outside{}, nil); reason(err) != events.SourceUnreachable {
			t.Error(err)
		}
		// Fruitless, one second, gained, one second, and three more fruitless ones with two, four between.
		if took := time.Since(start); took != (1+1+2+4+8)*time.Second || len(b.opened) != 12 {
			t.Errorf("%d transfers in %s", len(b.opened), took)
		}
	})
}

func TestTransfersTogetherAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.BytesPerSecond = chunk })
		start := time.Now()
		b.must(t, "job", b.file("a", 5*chunk), b.file("b", 6*chunk))
		if took := time.Since(start); took != 10*time.Second { // the first chunk is free
			t.Errorf("took %s", took)
		}
	})
}

func TestJobsThatWantTheSameBlobFetchItOnce(t *testing.T) {
	b := newBench(t, nil)
	f := b.file("a", 2*events.BlockSize)
	var jobs sync.WaitGroup
	for i := range 5 {
		jobs.Go(func() {
			if _, err := b.Fetch(t.Context(), fmt.Sprint("job ", i), []events.File{f}, Outside{}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	jobs.Wait()
	if len(b.opened) != 1 || len(b.cache.turns) != 0 {
		t.Errorf("%d transfers, %d turns left", len(b.opened), len(b.cache.turns))
	}
}

func TestACancelledFetchEndsAndIsResumed(t *testing.T) {
	b := newBench(t, nil)
	f := b.file("a", 2*events.BlockSize)
	stop := errors.New("stopped by an administrator")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := b.Fetch(ctx, "job", []events.File{f}, Outside{}, func(done, _ int64) {
		if done > events.BlockSize {
			cancel(stop)
		}
	})
	if !errors.Is(err, stop) {
		// The transfer may have been faster than the cancellation, never both.
		if err != nil || len(b.cached(t)) != 1 {
			t.Fatal(err)
		}
	}
	b.must(t, "job", f)
	if b.cache.total != f.Size {
		t.Errorf("the cache counts %d bytes", b.cache.total)
	}
}

func TestSmallBlobsAreFetchedAsBytes(t *testing.T) {
	b := newBench(t, nil)
	f := b.file("manifest", 5000)
	for range 2 {
		data, err := b.FetchBytes(t.Context(), "job", f.SHA256, 1<<20)
		if err != nil || !bytes.Equal(data, random("manifest", 5000)) {
			t.Fatal(len(data), err)
		}
	}
	if len(b.opened) != 1 {
		t.Errorf("%d transfers", len(b.opened))
	}
	t.Run("again when the cached bytes decayed", func(t *testing.T) {
		if err := os.WriteFile(b.cache.blobPath(f.SHA256), make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
		if data, err := b.FetchBytes(t.Context(), "job", f.SHA256, 1<<20); err != nil || events.DigestOf(data) != f.SHA256 || len(b.opened) != 2 {
			t.Error(len(data), err)
		}
		b.cached(t)
	})
	t.Run("never more than allowed", func(t *testing.T) {
		large := b.file("large", 5001)
		if _, err := b.FetchBytes(t.Context(), "job", large.SHA256, 5000); reason(err) != events.ContentMismatch || !strings.Contains(err.Error(), "5000 bytes allowed") {
			t.Error(err)
		}
	})
	t.Run("never other bytes", func(t *testing.T) {
		other := b.file("other", 10)
		b.blobs[other.SHA256] = []byte("not these!")
		if _, err := b.FetchBytes(t.Context(), "job", other.SHA256, 5000); reason(err) != events.ContentMismatch {
			t.Error(err)
		}
	})
	t.Run("from a digest only", func(t *testing.T) {
		if _, err := b.FetchBytes(t.Context(), "job", "../../etc/passwd", 5000); reason(err) != events.ContentUnavailable {
			t.Error(err)
		}
	})
	t.Run("of nothing", func(t *testing.T) {
		empty := b.file("nothing", 0)
		if data, err := b.FetchBytes(t.Context(), "job", empty.SHA256, 5000); err != nil || len(data) != 0 {
			t.Error(data, err)
		}
	})
}

func TestSignaturesAreNotInAddressesForPeople(t *testing.T) {
	for address, want := range map[string]string{
		"https://user:pw@dp.example:8443/v1/blobs/ab?signature=x#y": "https://dp.example:8443/v1/blobs/ab",
		"http://[::1": "an address that cannot be read",
	} {
		if got := Redact(address); got != want {
			t.Errorf("%s became %s", address, got)
		}
	}
}

func FuzzResume(f *testing.F) {
	data := random("fuzz", 3000)
	f.Add(data[:100], 3000)
	f.Add(append([]byte("x"), data...), 3000)
	f.Fuzz(func(t *testing.T, left []byte, size int) {
		if size < 0 || size > len(data) || len(left) > 10_000 {
			return
		}
		b := newBench(t, func(o *Options) { o.Pause = time.Microsecond })
		want := data[:size]
		digest := events.DigestOf(want)
		b.blobs[digest] = want
		if err := os.WriteFile(filepath.Join(b.dir, "partial", digest), left, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Fetch(t.Context(), "job", []events.File{{Path: "x", SHA256: digest, Size: int64(size)}}, Outside{}, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(b.cache.blobPath(digest)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %v", len(got), err)
		}
	})
}
