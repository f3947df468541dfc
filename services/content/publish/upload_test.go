package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"chandler/events"
)

// store is a content service in memory.
type store struct {
	url    string
	answer func(digest string, attempt int) int // status; 0: take it

	mu        sync.Mutex
	blobs     map[string][]byte
	attempts  map[string]int
	committed string
}

func newStore(t *testing.T, answer func(string, int) int) *store {
	s := &store{blobs: map[string][]byte{}, attempts: map[string]int{}, answer: answer}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	digest := path.Base(r.URL.Path)
	s.mu.Lock()
	s.attempts[digest]++
	attempt := s.attempts[digest]
	s.mu.Unlock()
	data, _ := io.ReadAll(r.Body)
	if status := s.answer(digest, attempt); status != 0 {
		http.Error(w, "no: "+http.StatusText(status), status)
		return
	}
	if r.Method != http.MethodPut || events.DigestOf(data) != digest || r.ContentLength != int64(len(data)) {
		http.Error(w, "bytes do not match", http.StatusUnprocessableEntity)
		return
	}
	s.mu.Lock()
	s.blobs[digest] = data
	s.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
}

func (s *store) Upload(_ context.Context, r events.UploadRequest) (a events.UploadAnswer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range r.Blobs {
		if _, ok := s.blobs[b.SHA256]; !ok {
			a.Missing = append(a.Missing, events.BlobURL{SHA256: b.SHA256, URL: s.url + "/" + b.SHA256 + "?signature=secret"})
		}
	}
	return a, nil
}

func (s *store) Commit(_ context.Context, r events.CommitRequest) (events.PackageInfo, error) {
	s.committed = r.Manifest
	return events.PackageInfo{Digest: r.Manifest}, nil
}

// manyFiles is a plan whose files are larger than one request's worth of reading.
func manyFiles(t *testing.T, n int) *Plan {
	dir := directory(t, "files: [hello.deb, data/notes.txt]\n", "")
	for i := range n {
		write(t, dir, fmt.Sprintf("f/%04d", i), fmt.Sprint("file ", i))
	}
	write(t, dir, "empty", "")
	write(t, dir, "large", strings.Repeat("0123456789abcdef", events.BlockSize/8))
	return read(t, dir, options())
}

func TestUploadSendsWhatIsMissingAndCommits(t *testing.T) {
	p := manyFiles(t, 1100)
	s := newStore(t, func(string, int) int { return 0 })
	s.blobs[p.Blobs[0].SHA256] = nil // is there already
	var mu sync.Mutex
	var most, total int64
	info, err := Upload(t.Context(), p, s, nil, func(done, all int64) {
		mu.Lock()
		defer mu.Unlock()
		most, total = max(most, done), all
	})
	if err != nil {
		t.Fatal(err)
	}
	if info.Digest != p.Digest || s.committed != p.Digest || len(s.blobs) != len(p.Blobs) || s.attempts[p.Blobs[0].SHA256] != 0 {
		t.Errorf("committed %s, %d blobs of %d", s.committed, len(s.blobs), len(p.Blobs))
	}
	if most != p.Size() || total != p.Size() {
		t.Errorf("progress ended at %d of %d, the package has %d", most, total, p.Size())
	}
	if !bytes.Equal(s.blobs[p.Digest], p.Envelope) {
		t.Error("the manifest is not stored")
	}
}

func TestUploadTriesAgainWhatMayPass(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusServiceUnavailable, http.StatusBadGateway} {
		p := read(t, directory(t), options())
		s := newStore(t, func(digest string, attempt int) int {
			if digest == p.Blobs[0].SHA256 && attempt < 2 {
				return status
			}
			return 0
		})
		var last atomic.Int64 // the progress of the refused attempt is taken back
		if _, err := Upload(t.Context(), p, s, nil, func(done, _ int64) { last.Store(done) }); err != nil || s.committed == "" || last.Load() > p.Size() {
			t.Errorf("status %d: %v, progress %d of %d", status, err, last.Load(), p.Size())
		}
	}
}

func TestUploadEndsWithTheServersWords(t *testing.T) {
	for _, status := range []int{http.StatusUnprocessableEntity, http.StatusInsufficientStorage, http.StatusRequestEntityTooLarge} {
		p := read(t, directory(t), options())
		s := newStore(t, func(string, int) int { return status })
		_, err := Upload(t.Context(), p, s, nil, nil)
		if err == nil || !strings.Contains(err.Error(), "no: "+http.StatusText(status)) || s.committed != "" {
			t.Errorf("status %d: %v", status, err)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the signature is in the error: %v", err)
		}
	}
}

func TestAFileThatChangedBeforeItsUploadIsRefused(t *testing.T) {
	dir := directory(t)
	p := read(t, dir, options())
	write(t, dir, "hello.deb", "b package")
	s := newStore(t, func(string, int) int { return 0 })
	if _, err := Upload(t.Context(), p, s, nil, nil); err == nil || !strings.Contains(err.Error(), "hello.deb") || s.committed != "" {
		t.Errorf("error: %v", err)
	}
}

func TestAServerThatIsAwayIsNamedWithoutItsSignature(t *testing.T) {
	p := read(t, directory(t), options())
	u := upload{plan: p, client: http.DefaultClient, progress: func(int64, int64) {}}
	if _, err := u.put(t.Context(), p.Blobs[0], "http://127.0.0.1:1/x?signature=secret"); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("error: %v", err)
	}
}

func TestAnUploadEndsWithItsContext(t *testing.T) {
	p := read(t, directory(t), options())
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := newStore(t, func(string, int) int { cancel(enough); return http.StatusServiceUnavailable })
	if _, err := Upload(ctx, p, s, nil, nil); !errors.Is(err, enough) || s.committed != "" {
		t.Errorf("error: %v", err)
	}
}
