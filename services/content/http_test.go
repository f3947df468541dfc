package content

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"chandler/events"
	"chandler/services/content/blobstore"
)

// serve is a handler over a new store, at a listening address.
func serve(t testing.TB, dir string) *blobHandler {
	t.Helper()
	store, err := blobstore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMetrics(nil, store)
	if err != nil {
		t.Fatal(err)
	}
	h := &blobHandler{store: store, metrics: m, log: slog.New(slog.DiscardHandler), slots: make(chan struct{}, 2), queue: 200 * time.Millisecond}
	server := httptest.NewServer(h.routes())
	t.Cleanup(server.Close)
	h.signer = signer{key: bytes.Repeat([]byte("k"), keySize), base: server.URL, now: time.Now}
	return h
}

func (h *blobHandler) put(t testing.TB, data []byte) string {
	t.Helper()
	digest := events.DigestOf(data)
	if err := h.store.Put(t.Context(), digest, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return digest
}

func do(t testing.TB, method, address string, body io.Reader, head ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(head); i += 2 {
		r.Header.Set(head[i], head[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

func TestBlobsAreServedWithRangesAndConditions(t *testing.T) {
	h := serve(t, t.TempDir())
	digest := h.put(t, []byte("0123456789"))
	tag := `"` + digest + `"`
	for _, c := range []struct {
		name, method string
		head         []string
		status       int
		body         string
	}{
		{"whole", "GET", nil, 200, "0123456789"},
		{"head", "HEAD", nil, 200, ""},
		{"from the middle", "GET", []string{"Range", "bytes=4-"}, 206, "456789"},
		{"from the middle of the same", "GET", []string{"Range", "bytes=4-", "If-Match", tag}, 206, "456789"},
		{"from the middle of another", "GET", []string{"Range", "bytes=4-", "If-Match", `"other"`}, 412, ""},
		{"a part", "GET", []string{"Range", "bytes=2-3"}, 206, "23"},
		{"behind the end", "GET", []string{"Range", "bytes=10-"}, 416, "*"},
		{"known already", "GET", []string{"If-None-Match", tag}, 304, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, body := do(t, c.method, h.signer.get(digest), nil, c.head...)
			if answer.StatusCode != c.status || body != c.body && c.body != "*" {
				t.Errorf("%s: %q", answer.Status, body)
			}
			if got := answer.Header.Get("ETag"); got != tag && c.status != 416 {
				t.Errorf("tag %s", got)
			}
			if c.status < 400 && !strings.Contains(answer.Header.Get("Cache-Control"), "immutable") {
				t.Error("not immutable")
			}
			if c.status == 206 && !strings.HasSuffix(answer.Header.Get("Content-Range"), "/10") {
				t.Errorf("range %s", answer.Header.Get("Content-Range"))
			}
		})
	}
	if answer, text := do(t, "GET", h.signer.get(events.DigestOf(nil)), nil); answer.StatusCode != http.StatusNotFound || !strings.Contains(text, "no such blob") {
		t.Errorf("%s: %s", answer.Status, text)
	}
	if n := testutil.ToFloat64(h.metrics.bytes.WithLabelValues("out", "ok")); n != 10+6+6+2 {
		t.Errorf("%v bytes were counted", n)
	}
}

func TestOnlySignedAddressesAreServed(t *testing.T) {
	h := serve(t, t.TempDir())
	digest := h.put(t, []byte("0123456789"))
	other := h.put(t, []byte("other"))
	alter := func(address, key, value string) string {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set(key, value)
		u.RawQuery = q.Encode()
		return u.String()
	}
	get, put := h.signer.get(digest), h.signer.put(digest, 10)
	past := h.signer
	past.now = func() time.Time { return time.Now().Add(-2 * getLife) }
	stranger := h.signer
	stranger.key = bytes.Repeat([]byte("x"), keySize)
	for _, c := range []struct{ name, method, address, want string }{
		{"unsigned", "GET", strings.SplitN(get, "?", 2)[0], "not signed"},
		{"expired", "GET", past.get(digest), "expired at"},
		{"for another blob", "GET", strings.Replace(get, digest, other, 1), "altered"},
		{"made to last", "GET", alter(get, "expires", "99999999999"), "altered"},
		{"without a time", "GET", alter(get, "expires", "soon"), "when it expires"},
		{"signed by another", "GET", stranger.get(digest), "altered"},
		{"to read, used to write", "PUT", get, `signed for "GET", not for PUT`},
		{"to write, used to read", "GET", put, `signed for "PUT", not for GET`},
		{"to read, said to write", "PUT", alter(alter(get, "method", "PUT"), "size", "10"), "altered"},
		{"for more bytes", "PUT", alter(put, "size", "11"), "altered"},
		{"for any bytes", "PUT", alter(put, "size", "-1"), "how many bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, text := do(t, c.method, c.address, strings.NewReader("0123456789"))
			if answer.StatusCode != http.StatusForbidden || !strings.Contains(text, c.want) {
				t.Errorf("%s: %s", answer.Status, text)
			}
		})
	}
	for address, want := range map[string]int{
		strings.Replace(get, digest, "short", 1):       http.StatusBadRequest,
		strings.Replace(get, digest, "..%2f..%2fx", 1): http.StatusBadRequest,
		strings.Replace(get, blobPrefix, "/x/", 1):     http.StatusNotFound,
	} {
		if answer, text := do(t, "GET", address, nil); answer.StatusCode != want {
			t.Errorf("%s: %s %s", address, answer.Status, text)
		}
	}
	if answer, _ := do(t, "DELETE", get, nil); answer.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("delete: %s", answer.Status)
	}
}

func TestTheAccessLogSaysWhoAskedAndNeverHowTheAddressIsSigned(t *testing.T) {
	h := serve(t, t.TempDir())
	digest, other := h.put(t, []byte("0123456789")), events.DigestOf([]byte("new"))
	for _, c := range []struct {
		name, method, address, ranged, body string
		want                                map[string]any
	}{
		{"the whole blob", "GET", h.signer.get(digest), "", "", map[string]any{"blob": digest, "status": 200., "bytes_in": 0., "bytes_out": 10.}},
		{"the rest of it", "GET", h.signer.get(digest), "bytes=4-", "", map[string]any{"blob": digest, "status": 206., "bytes_in": 0., "bytes_out": 6.}},
		{"an upload", "PUT", h.signer.put(other, 3), "", "new", map[string]any{"blob": other, "status": 201., "bytes_in": 3., "bytes_out": 0.}},
		{"a wrong signature", "GET", h.signer.get(digest) + "00", "", "", map[string]any{"blob": digest, "status": 403., "bytes_in": 0.}},
		{"anything but a digest, of any length", "GET", h.signer.base + blobPrefix + strings.Repeat("x", 10_000), "", "", map[string]any{"blob": "", "status": 400.}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var text bytes.Buffer
			h.log = slog.New(slog.NewJSONHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
			r := httptest.NewRequest(c.method, c.address, strings.NewReader(c.body))
			if c.ranged != "" {
				r.Header.Set("Range", c.ranged)
			}
			h.routes().ServeHTTP(httptest.NewRecorder(), r)
			got := map[string]any{}
			if err := json.Unmarshal(text.Bytes(), &got); err != nil || text.Len() > 400 {
				t.Fatalf("%v: %d bytes: %s", err, text.Len(), text.Bytes())
			}
			c.want["msg"], c.want["method"], c.want["remote"], c.want["cut"] = "blob requested", c.method, r.RemoteAddr, false
			for key, want := range c.want {
				if got[key] != want {
					t.Errorf("%s is %v, want %v", key, got[key], want)
				}
			}
			if seconds, ok := got["seconds"].(float64); !ok || seconds < 0 || seconds > 60 {
				t.Errorf("it took %v seconds", got["seconds"])
			}
			for _, secret := range []string{"signature", "expires", r.URL.Query().Get("signature")} {
				if secret != "" && strings.Contains(text.String(), secret) {
					t.Errorf("the line holds %s: %s", secret, text.Bytes())
				}
			}
			text.Reset()
			h.log = slog.New(slog.NewJSONHandler(&text, nil))
			h.routes().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", h.signer.get(digest), nil))
			if text.Len() > 0 {
				t.Errorf("without debugging: %s", text.Bytes())
			}
		})
	}
}

func TestUploadsAreExactlyTheBytesAnnounced(t *testing.T) {
	data := "exactly these bytes"
	for _, c := range []struct {
		name, body string
		chunked    bool // without a length
		status     int
		want       string
	}{
		{"right", data, false, 201, ""},
		{"right without a length", data, true, 201, ""},
		{"altered", strings.Replace(data, "x", "y", 1), false, 422, "hash to"},
		{"shorter", data[1:], false, 422, "takes 19 bytes, the request has 18"},
		{"shorter without a length", data[1:], true, 422, "18 bytes of the 19"},
		{"longer", data + "!", false, 422, "takes 19 bytes"},
		{"longer without a length", data + strings.Repeat("!", 1<<20), true, 422, "more than the 19"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := serve(t, t.TempDir())
			var body io.Reader = strings.NewReader(c.body)
			if c.chunked {
				body = io.MultiReader(body)
			}
			digest := events.DigestOf([]byte(data))
			answer, text := do(t, "PUT", h.signer.put(digest, int64(len(data))), body)
			if answer.StatusCode != c.status || !strings.Contains(text, c.want) {
				t.Errorf("%s: %s", answer.Status, text)
			}
			if h.store.Has(digest) != (c.status == 201) {
				t.Error("stored:", h.store.Has(digest))
			}
		})
	}
}

func TestAFullDiskIsAnsweredWith507(t *testing.T) {
	h := serve(t, smallDisk(t))
	data := make([]byte, 3<<20)
	digest := events.DigestOf(data)
	answer, text := do(t, "PUT", h.signer.put(digest, int64(len(data))), bytes.NewReader(data))
	if answer.StatusCode != http.StatusInsufficientStorage || !strings.Contains(text, "disk is full") {
		t.Errorf("%s: %s", answer.Status, text)
	}
	if n := testutil.ToFloat64(h.metrics.bytes.WithLabelValues("in", "disk_full")); n == 0 {
		t.Error("nothing was counted")
	}
	if answer, text := do(t, "PUT", h.signer.put(events.DigestOf([]byte("x")), 1), strings.NewReader("x")); answer.StatusCode != http.StatusCreated {
		t.Errorf("%s: %s", answer.Status, text)
	}
}

func TestUploadsWaitTheirTurnAndThenAreRefused(t *testing.T) {
	h := serve(t, t.TempDir())
	for range cap(h.slots) {
		h.slots <- struct{}{}
	}
	answer, _ := do(t, "PUT", h.signer.put(events.DigestOf([]byte("x")), 1), strings.NewReader("x"))
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Errorf("with no slot free: %s", answer.Status)
	}
	<-h.slots
	if answer, _ := do(t, "PUT", h.signer.put(events.DigestOf([]byte("x")), 1), strings.NewReader("x")); answer.StatusCode != http.StatusCreated {
		t.Errorf("after one ended: %s", answer.Status)
	}
}

func TestTheKeyIsMadeOnceAndForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "url.key")
	first, err := loadKey(path)
	if err != nil || len(first) != keySize {
		t.Fatal(len(first), err)
	}
	if again, err := loadKey(path); err != nil || !bytes.Equal(first, again) {
		t.Error("another key", err)
	}
	if err := makeKey(path); err != nil {
		t.Error(err)
	}
	if again, err := loadKey(path); err != nil || !bytes.Equal(first, again) {
		t.Error("a key that was there was replaced", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
	if runtime.GOOS != "windows" {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != fs.FileMode(0o600) {
			t.Errorf("mode %v", info.Mode())
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := loadKey(path); err == nil || !strings.Contains(err.Error(), "read by others") {
			t.Errorf("error: %v", err)
		}
	}
	if err := errorsOf(os.Remove(path), os.WriteFile(path, []byte("short"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKey(path); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("error: %v", err)
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// watched is a connection's writer that notes what it is given.
type watched struct {
	http.ResponseWriter
	files, others int
}

func (w *watched) ReadFrom(r io.Reader) (int64, error) {
	if part, ok := r.(*io.LimitedReader); ok {
		if _, ok := part.R.(*os.File); ok {
			w.files++
			return io.Copy(io.Discard, r)
		}
	}
	w.others++
	return io.Copy(io.Discard, r)
}

// The kernel copies from file to socket only if the connection gets a limited reader around the file itself.
func TestTheKernelsWayFromFileToSocketStaysOpen(t *testing.T) {
	h := serve(t, t.TempDir())
	digest := h.put(t, make([]byte, 3*giveChunk+5))
	for _, c := range []struct {
		ranged string
		files  int
	}{{"", 4}, {"bytes=100-", 3}, {"bytes=0-9", 1}} {
		w := &watched{ResponseWriter: httptest.NewRecorder()}
		r := httptest.NewRequest("GET", h.signer.get(digest), nil)
		if c.ranged != "" {
			r.Header.Set("Range", c.ranged)
		}
		h.routes().ServeHTTP(w, r)
		if w.files != c.files || w.others != 0 {
			t.Errorf("range %q: %d parts of the file, %d other writes", c.ranged, w.files, w.others)
		}
	}
}

func FuzzSignedAddress(f *testing.F) {
	h := &blobHandler{signer: signer{key: bytes.Repeat([]byte("k"), keySize), base: "http://x", now: time.Now}}
	digest := events.DigestOf(nil)
	f.Add("GET", strings.SplitN(h.signer.get(digest), "?", 2)[1])
	f.Add("PUT", "method=PUT&size=1&expires=99999999999&signature=00")
	f.Fuzz(func(t *testing.T, method, query string) {
		r := &http.Request{Method: method, URL: &url.URL{RawQuery: query}}
		other := signer{key: bytes.Repeat([]byte("o"), keySize), now: time.Now}
		if _, err := other.check(r, digest); err == nil {
			t.Errorf("%s %s was accepted without the key", method, query)
		}
	})
}

// BenchmarkThroughput compares with http.FileServer in the same run; x is the ratio.
func BenchmarkThroughput(b *testing.B) {
	const size = 256 << 20
	dir := b.TempDir()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	h := serve(b, dir)
	digest := h.put(b, data)
	files := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(dir, digest[:2]))))
	defer files.Close()
	load := func(address string) time.Duration {
		started := time.Now()
		answer, err := http.Get(address)
		if err != nil {
			b.Fatal(err)
		}
		defer answer.Body.Close()
		buf := make([]byte, 256<<10)
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{answer.Body}, buf)
		if err != nil || n != size {
			b.Fatal(n, err)
		}
		return time.Since(started)
	}
	var ours, plain time.Duration
	for b.Loop() {
		plain += load(files.URL + "/" + digest)
		ours += load(h.signer.get(digest))
	}
	rate := func(d time.Duration) float64 { return float64(size) * float64(b.N) / d.Seconds() / (1 << 20) }
	b.ReportMetric(rate(ours), "MiB/s")
	b.ReportMetric(rate(plain), "plain_MiB/s")
	b.ReportMetric(rate(ours)/rate(plain), "x")
	b.ReportMetric(0, "ns/op")
}

// smallDisk mounts a file system of one MiB for the time of a test.
func smallDisk(t *testing.T) string {
	t.Helper()
	need := t.Skip
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		need = t.Fatal
	}
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		need("a small disk needs Linux and root: run this test as root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		need(fmt.Sprintf("mount tmpfs: %v %s", err, out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}
