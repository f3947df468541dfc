package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chandler/events"
)

// Server is the content service as publishing needs it: its calls ContentUpload and ContentCommit.
type Server interface {
	Upload(context.Context, events.UploadRequest) (events.UploadAnswer, error)
	Commit(context.Context, events.CommitRequest) (events.PackageInfo, error)
}

const (
	askAtOnce    = 1000 // blobs in one request: its answer with URLs stays below the broker's message size
	parallelPuts = 4
	putAttempts  = 5
	putIdle      = 2 * time.Minute // without a byte taken, or an answer
)

// Upload sends the blobs that the server lacks and publishes the package. progress hears of the bytes that
// are at the server, those that were there before included; it may be nil and is called concurrently.
func Upload(ctx context.Context, p *Plan, server Server, client *http.Client, progress func(done, total int64)) (events.PackageInfo, error) {
	if client == nil {
		client = http.DefaultClient
	}
	u := upload{plan: p, server: server, client: client, total: p.Size(), progress: progress}
	if u.progress == nil {
		u.progress = func(int64, int64) {}
	}
	for blobs := range slices.Chunk(p.Blobs, askAtOnce) {
		if err := u.send(ctx, blobs); err != nil {
			return events.PackageInfo{}, err
		}
	}
	return server.Commit(ctx, events.CommitRequest{Manifest: p.Digest})
}

type upload struct {
	plan     *Plan
	server   Server
	client   *http.Client
	total    int64
	done     atomic.Int64
	progress func(done, total int64)
}

func (u *upload) advance(n int64) { u.progress(u.done.Add(n), u.total) }

// send asks which of the blobs are missing and puts those, a few at a time. The first failure ends all.
func (u *upload) send(ctx context.Context, blobs []Blob) error {
	missing, err := u.ask(ctx, blobs)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, parallelPuts)
	var wait sync.WaitGroup
	for _, b := range blobs {
		address, ok := missing[b.SHA256]
		if !ok {
			u.advance(b.Size)
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-slots }()
			if err := u.deliver(ctx, b, address); err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

func (u *upload) ask(ctx context.Context, blobs []Blob) (map[string]string, error) {
	request := events.UploadRequest{Blobs: make([]events.BlobRef, len(blobs))}
	for i, b := range blobs {
		request.Blobs[i] = b.BlobRef
	}
	answer, err := u.server.Upload(ctx, request)
	if err != nil {
		return nil, err
	}
	missing := make(map[string]string, len(answer.Missing))
	for _, m := range answer.Missing {
		missing[m.SHA256] = m.URL
	}
	return missing, nil
}

// deliver puts one blob, again after a failure that may pass.
func (u *upload) deliver(ctx context.Context, b Blob, address string) error {
	for attempt := 1; ; attempt++ {
		sent, err := u.put(ctx, b, address)
		if err == nil {
			return nil
		}
		u.advance(-sent)
		var refusal refused
		final := errors.As(err, &refusal) && refusal.final()
		if final || attempt == putAttempts || ctx.Err() != nil {
			return fmt.Errorf("upload %s: %w", firstOf(b.Path, "the manifest"), err)
		}
		select {
		case <-time.After(time.Duration(attempt*attempt) * 250 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		// The address may have expired meanwhile, or the blob have arrived although the answer got lost.
		again, err := u.ask(ctx, []Blob{b})
		if err != nil {
			continue
		}
		if address = again[b.SHA256]; address == "" {
			u.advance(b.Size)
			return nil
		}
	}
}

// put sends the bytes once and returns how many of them it has counted as done.
func (u *upload) put(ctx context.Context, b Blob, address string) (sent int64, err error) {
	body, err := u.plan.open(b)
	if err != nil {
		return 0, refused{text: err.Error()}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(putIdle, func() { cancel(fmt.Errorf("the server took no bytes for %s", putIdle)) })
	defer idle.Stop()
	counted := &counting{ReadCloser: body, read: func(n int64) { idle.Reset(putIdle); u.advance(n) }}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, address, counted)
	if err != nil {
		return 0, errors.Join(withoutAddress(err), body.Close())
	}
	request.ContentLength = b.Size
	if b.Size > events.BlockSize {
		request.Header.Set("Expect", "100-continue") // a refusal comes before the bytes are sent
	}
	if b.Size == 0 {
		request.Body = http.NoBody
		body.Close()
	}
	answer, err := u.client.Do(request)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return counted.n.Load(), withoutAddress(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	if answer.StatusCode/100 != 2 {
		return counted.n.Load(), refused{status: answer.StatusCode, text: strings.TrimSpace(string(text))}
	}
	return counted.n.Load(), nil
}

// withoutAddress keeps signed addresses out of messages and logs.
func withoutAddress(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// refused is an answer of the server; status 0: the file could not be opened here.
type refused struct {
	status int
	text   string
}

func (r refused) Error() string {
	if r.status == 0 {
		return r.text
	}
	return "the server answered " + strconv.Itoa(r.status) + " " + http.StatusText(r.status) + ": " + r.text
}

// final answers would be the same again; an expired address (403) and a server in trouble would not.
func (r refused) final() bool {
	switch r.status {
	case http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return r.status < 500 || r.status == http.StatusInsufficientStorage
}

// counting counts what was read; the transport may still read after Do has returned.
type counting struct {
	io.ReadCloser
	n    atomic.Int64
	read func(int64)
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	c.read(int64(n))
	return n, err
}
