// Package dpsource reads blobs from distribution points: HTTP servers of package content.
//
// A transfer has no limit on its whole time, only on the time without a byte, so that slow links finish
// and dead ones do not hold a job. Wherever a server's answer contradicts what was asked for (another
// size, another offset, another blob) the transfer fails at once; whether the bytes are right is the
// fetcher's to say. Signed addresses never appear in errors.
package dpsource

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"chandler/agent/fetch"
	"chandler/events"
)

// DefaultIdle is how long a server may be silent.
const DefaultIdle = 30 * time.Second

const (
	maxRedirects = 3
	maxAnswer    = 200 // bytes of a refusal that are quoted
	// maxSkip is what is read past when a server ignores ranges; beyond it the address is of no use.
	maxSkip = 1 << 30
)

// Options of a source.
type Options struct {
	Idle time.Duration // 0: DefaultIdle
	TLS  *tls.Config   // nil: the system's roots
}

// Source reads http and https addresses.
type Source struct {
	client *http.Client
	idle   time.Duration
}

// New makes a source. It starts nothing.
func New(o Options) *Source {
	if o.Idle == 0 {
		o.Idle = DefaultIdle
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: o.Idle}).DialContext, TLSClientConfig: o.TLS, TLSHandshakeTimeout: o.Idle,
		ResponseHeaderTimeout: o.Idle, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4, MaxResponseHeaderBytes: 64 << 10,
		DisableCompression: true, ReadBufferSize: 64 << 10,
	}
	return &Source{client: &http.Client{Transport: transport, CheckRedirect: redirect}, idle: o.Idle}
}

func redirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case r.URL.Scheme != via[0].URL.Scheme && r.URL.Scheme != "https":
		return errors.New("redirect to an address without TLS")
	}
	return nil
}

// Open asks for the blob from offset on.
func (s *Source) Open(ctx context.Context, ref fetch.Ref, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, ref.URL, nil)
	if err != nil {
		cancel(nil)
		return nil, &fetch.Error{Reason: events.SourceUnsupported, Identity: fetch.Agent, Resource: fetch.Redact(ref.URL), Answer: "the address cannot be read"}
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		request.Header.Set("If-Match", `"`+ref.SHA256+`"`)
	}
	answer, err := s.client.Do(request)
	if err != nil {
		err = unreachable(ctx, ref, err)
		cancel(nil)
		return nil, err
	}
	b := &body{ref: ref, ctx: ctx, cancel: cancel, stream: answer.Body, idle: s.idle}
	b.watch = time.AfterFunc(s.idle, func() { cancel(errSilent) })
	if err := b.accept(answer, offset); err != nil {
		b.Close()
		return nil, err
	}
	b.watch.Stop()
	return b, nil
}

var errSilent = errors.New("the server sent nothing more")

// unreachable is the error of a transfer that broke; the client's own words hold the signed address.
func unreachable(ctx context.Context, ref fetch.Ref, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return &fetch.Error{Reason: events.SourceUnreachable, Identity: fetch.Agent, Resource: fetch.Redact(ref.URL), Err: err}
}

// body is the blob's bytes from the offset on.
type body struct {
	ref    fetch.Ref
	ctx    context.Context
	cancel context.CancelCauseFunc
	stream io.ReadCloser
	watch  *time.Timer // runs while a read waits
	idle   time.Duration
}

func (b *body) refuse(reason events.Reason, answer string, err error) error {
	return &fetch.Error{Reason: reason, Identity: fetch.Agent, Resource: fetch.Redact(b.ref.URL), Answer: answer, Err: err}
}

// accept checks the answer's head and brings the stream to the offset.
func (b *body) accept(a *http.Response, offset int64) error {
	if err := b.status(a); err != nil {
		return err
	}
	if e := a.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return b.refuse(events.ContentMismatch, "the server, or a proxy on the way, encodes the content as "+e, nil)
	}
	from, size := int64(0), a.ContentLength
	if a.StatusCode == http.StatusPartialContent {
		var last int64
		if _, err := fmt.Sscanf(a.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &last, &size); err != nil || from != offset || last != size-1 {
			return b.refuse(events.ContentMismatch, fmt.Sprintf("asked for bytes from %d on, the server sends %.100q", offset, a.Header.Get("Content-Range")), nil)
		}
	}
	if b.ref.Size >= 0 && size >= 0 && size != b.ref.Size {
		return b.refuse(events.ContentMismatch, fmt.Sprintf("the server has %d bytes, the manifest says %d", size, b.ref.Size), nil)
	}
	return b.skip(offset - from)
}

// skip reads past bytes that were not asked for: the server ignores ranges.
func (b *body) skip(n int64) error {
	if n > maxSkip {
		return b.refuse(events.SourceUnsupported, "the server cannot go on in the middle of a file", nil)
	}
	buf := make([]byte, 64<<10)
	for n > 0 {
		got, err := b.Read(buf[:min(n, int64(len(buf)))])
		n -= int64(got)
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
}

func (b *body) status(a *http.Response) error {
	if a.StatusCode == http.StatusOK || a.StatusCode == http.StatusPartialContent {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(a.Body, maxAnswer))
	answer := strings.TrimSpace(fmt.Sprintf("%d %s: %s", a.StatusCode, http.StatusText(a.StatusCode), strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "?")), " ")))
	answer = strings.TrimSuffix(answer, ":")
	switch a.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return b.refuse(events.SourceUnreachable, answer, fetch.ErrExpired)
	case http.StatusNotFound, http.StatusGone:
		return b.refuse(events.SourceNotFound, answer, nil)
	case http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
		return b.refuse(events.ContentMismatch, answer, nil)
	}
	return b.refuse(events.SourceUnreachable, answer, nil)
}

// Read waits for bytes no longer than the idle time. Time between reads, when the agent throttles, does not count.
func (b *body) Read(p []byte) (int, error) {
	b.watch.Reset(b.idle)
	n, err := b.stream.Read(p)
	b.watch.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		return n, unreachable(b.ctx, b.ref, err)
	}
	return n, err
}

// Close ends the transfer.
func (b *body) Close() error {
	b.watch.Stop()
	b.cancel(nil)
	return b.stream.Close()
}
