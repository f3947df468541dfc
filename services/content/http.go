package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"chandler/events"
	"chandler/services/content/blobstore"
)

const (
	// giveChunk and givePatience bound a transfer to an agent by its slowest part: a chunk in two minutes is
	// less than any throttled agent reads.
	giveChunk    = 1 << 20
	givePatience = 2 * time.Minute
	// takePatience is how long an upload may send nothing.
	takePatience = time.Minute
)

// blobHandler serves the blobs of a store at signed addresses.
type blobHandler struct {
	store   *blobstore.Store
	signer  signer
	metrics *metrics
	log     *slog.Logger
	slots   chan struct{} // one for each upload under way
	queue   time.Duration // that an upload waits for its slot
}

func (h *blobHandler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+blobPrefix+"{sha256}", h.guarded(h.give)) // HEAD too
	mux.HandleFunc("PUT "+blobPrefix+"{sha256}", h.guarded(h.take))
	return mux
}

// guarded lets through what carries a valid signature.
func (h *blobHandler) guarded(next func(w *answer, r *http.Request, digest string, size int64)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w := &answer{ResponseWriter: rw, control: http.NewResponseController(rw), status: http.StatusOK}
		w.extend()
		digest := r.PathValue("sha256")
		defer h.note(w, r, digest, time.Now())
		if err := events.ValidDigest(digest); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		size, err := h.signer.check(r, digest)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next(w, r, digest, size)
	}
}

// note counts a request that is over and, at debug level, writes who asked for which blob and what came of it: the
// access log. The one who asked is known by address alone, which is a proxy's where there is one: an address is signed
// for whoever holds it. Its query is a secret while it is valid and is never written.
func (h *blobHandler) note(w *answer, r *http.Request, digest string, began time.Time) {
	h.metrics.requests.WithLabelValues(r.Method, strconv.Itoa(w.status)).Inc()
	if events.ValidDigest(digest) != nil {
		digest = "" // whatever it is, and however long
	}
	h.log.LogAttrs(r.Context(), slog.LevelDebug, "blob requested", slog.String("remote", r.RemoteAddr), slog.String("method", r.Method), slog.String("blob", digest),
		slog.Int("status", w.status), slog.Int64("bytes_in", w.taken), slog.Int64("bytes_out", w.sent), slog.Bool("cut", w.failed),
		slog.Float64("seconds", time.Since(began).Seconds()))
}

func (h *blobHandler) give(w *answer, r *http.Request, digest string, _ int64) {
	f, err := h.store.Open(digest)
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "no such blob here", http.StatusNotFound)
		return
	}
	if err != nil {
		h.log.ErrorContext(r.Context(), "blob could not be opened", "blob", digest, "error", err)
		http.Error(w, "the blob cannot be read", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	head := w.Header()
	head.Set("ETag", `"`+digest+`"`)
	head.Set("Cache-Control", "private, max-age=31536000, immutable")
	head.Set("Content-Type", "application/octet-stream")
	head.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, f)
	if w.status != http.StatusOK && w.status != http.StatusPartialContent {
		return
	}
	result := "ok"
	if w.failed {
		result = "cut"
	}
	h.metrics.bytes.WithLabelValues("out", result).Add(float64(w.sent))
}

func (h *blobHandler) take(w *answer, r *http.Request, digest string, size int64) {
	if r.ContentLength >= 0 && r.ContentLength != size {
		http.Error(w, fmt.Sprintf("the address takes %d bytes, the request has %d", size, r.ContentLength), http.StatusUnprocessableEntity)
		return
	}
	leave, err := h.enter(r.Context())
	if err != nil {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many uploads at this moment: try again", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	// One byte more than signed tells a body that is too long; the store says it.
	body := &upload{ReadCloser: http.MaxBytesReader(w, r.Body, size+1), control: w.control}
	err = h.store.Put(r.Context(), digest, size, body)
	status, result := verdict(err)
	w.taken = body.taken
	h.metrics.bytes.WithLabelValues("in", result).Add(float64(body.taken))
	if err == nil {
		w.WriteHeader(http.StatusCreated)
		return
	}
	if status == http.StatusInternalServerError {
		h.log.ErrorContext(r.Context(), "blob could not be stored", "blob", digest, "error", err)
		http.Error(w, "the blob cannot be stored", status)
		return
	}
	if status == http.StatusInsufficientStorage {
		h.log.ErrorContext(r.Context(), "disk is full, blob was not stored", "blob", digest, "bytes", size)
		http.Error(w, "the content service's disk is full", status)
		return
	}
	http.Error(w, err.Error(), status)
}

// verdict is the answer to an upload, and its metric's result.
func verdict(err error) (status int, result string) {
	switch {
	case err == nil:
		return http.StatusCreated, "ok"
	case errors.Is(err, blobstore.ErrMismatch):
		return http.StatusUnprocessableEntity, "mismatch"
	case errors.Is(err, blobstore.ErrDiskFull):
		return http.StatusInsufficientStorage, "disk_full"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout, "cut"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled):
		return http.StatusBadRequest, "cut"
	}
	return http.StatusInternalServerError, "failed"
}

// enter waits a little for a turn to upload.
func (h *blobHandler) enter(ctx context.Context) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, h.queue)
	defer cancel()
	select {
	case h.slots <- struct{}{}:
		h.metrics.uploads.Inc()
		return func() { <-h.slots; h.metrics.uploads.Dec() }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answer counts what is sent and gives each chunk of it its own time limit. It keeps the kernel's way from
// file to socket open: ServeContent finds ReadFrom, and the connection finds the file.
type answer struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	sent    int64
	taken   int64 // of an upload
	failed  bool  // to send
}

func (w *answer) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(givePatience)) }

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *answer) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *answer) Write(p []byte) (int, error) {
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	w.failed = w.failed || err != nil
	return n, err
}

// ReadFrom sends chunk by chunk. What it passes on is a LimitedReader right around the file: the only form in
// which the connection recognises one.
func (w *answer) ReadFrom(src io.Reader) (total int64, err error) {
	whole, ok := src.(*io.LimitedReader)
	to, can := w.ResponseWriter.(io.ReaderFrom)
	if !ok || !can {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	for whole.N > 0 {
		w.extend()
		part := &io.LimitedReader{R: whole.R, N: min(whole.N, giveChunk)}
		n, err := to.ReadFrom(part)
		total += n
		w.sent += n
		whole.N -= n
		if err != nil || n == 0 {
			w.failed = w.failed || err != nil
			return total, err
		}
	}
	return total, nil
}

// upload reads a request's body, each read within its own time limit.
type upload struct {
	io.ReadCloser
	control *http.ResponseController
	taken   int64
}

func (u *upload) Read(p []byte) (int, error) {
	_ = u.control.SetReadDeadline(time.Now().Add(takePatience))
	n, err := u.ReadCloser.Read(p)
	u.taken += int64(n)
	if err != nil {
		// The connection is read on in the background, to see its client leave.
		_ = u.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
