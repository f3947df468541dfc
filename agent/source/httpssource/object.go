package httpssource

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"sync"
	"time"

	"chandler/agent/source"
	"chandler/events"
)

const (
	// window is what a read elsewhere asks for at least. Whoever reads on after it gets everything from there on.
	window = 256 << 10
	// maxStreams that wait for somebody who reads on: several readers of one file, or one who goes to and fro.
	maxStreams = 4
	maxReaders = 8 // at once, each with a connection
)

// object is a file that a server has.
type object struct {
	address  string
	info     source.Info // as version: of the first answer
	version  version
	opened   bool // there was a first answer
	proof    proof
	client   *http.Client
	own      *http.Transport // of a client certificate; else nil
	patience time.Duration
	slots    chan struct{}   // one for each who reads
	ctx      context.Context // ends when the object is closed
	cancel   context.CancelFunc

	mu      sync.Mutex
	size    int64     // -1 while unknown
	streams []*stream // each where somebody stopped, oldest first
	dead    error     // a refusal, after which nothing is asked any more
}

func (o *object) Info() source.Info { return o.info }

func (o *object) List(context.Context) ([]source.Info, error) { return nil, unlisted() }

// open keeps the answer to the first request, which says what the file is, for whoever reads from the beginning.
func (o *object) open(ctx context.Context) error {
	o.ctx, o.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s, err := o.ask(ctx, 0, -1)
	if err != nil {
		return err
	}
	o.opened = true
	o.put(s)
	return nil
}

// ReadAt reads on where somebody stopped, or asks for what lies elsewhere. A transfer that broke is asked for again once:
// servers end those that wait too long, and the new answer says whether the file is still there.
func (o *object) ReadAt(ctx context.Context, p []byte, offset int64) (n int, err error) {
	if offset < 0 {
		return 0, refuse(events.SourceUnsupported, "read before the beginning of the file", notSupported)
	}
	select {
	case o.slots <- struct{}{}:
		defer func() { <-o.slots }()
	case <-ctx.Done():
		return 0, transferFailed(context.Cause(ctx))
	}
	for broken := false; n < len(p); {
		at := offset + int64(n)
		s, err := o.streamAt(ctx, at, int64(len(p)-n))
		if err != nil {
			return n, err
		}
		got, err := s.read(ctx, p[n:], o.patience)
		n += got
		if err == nil || errors.Is(err, io.EOF) {
			o.putBack(s, err)
			continue
		}
		s.close()
		if broken || s.fresh && got == 0 || ctx.Err() != nil || errors.Is(err, errSilent) {
			return n, transferFailed(err)
		}
		broken = true
	}
	return n, nil
}

// streamAt gives the stream that stopped at an offset, or a new one; io.EOF where the file has ended.
func (o *object) streamAt(ctx context.Context, at, length int64) (*stream, error) {
	o.mu.Lock()
	size, dead, length := o.size, o.dead, max(length, window)
	i := slices.IndexFunc(o.streams, func(s *stream) bool { return s.at == at })
	var s *stream
	if i >= 0 {
		s = o.streams[i]
		o.streams = slices.Delete(o.streams, i, i+1)
	}
	o.mu.Unlock()
	switch {
	case o.ctx.Err() != nil:
		return nil, &source.Error{Reason: events.OtherReason, Answer: "the file is closed", Err: fs.ErrClosed}
	case size >= 0 && at >= size:
		return nil, io.EOF
	case dead != nil:
		return nil, dead
	case s != nil && s.body != nil:
		s.fresh = false
		return s, nil
	case s != nil || at == 0: // somebody reads on after a window, or reads from the beginning
		return o.ask(ctx, at, -1)
	case size < 0:
		return nil, refuse(events.SourceUnsupported, "the server does not say how long the file is: it can only be read from the beginning on", notSupported)
	}
	return o.ask(ctx, at, min(length, size-at))
}

// putBack keeps a stream, of which err is nil or io.EOF, for whoever reads on.
func (o *object) putBack(s *stream, err error) {
	if err != nil || s.at == s.end {
		s.close()
		s.body = nil // only where it ended is remembered
		if s.end < 0 {
			o.mu.Lock()
			o.size = s.at
			o.mu.Unlock()
			return
		}
	}
	o.put(s)
}

// put drops the oldest stream where there are too many, and all when the object was closed meanwhile.
func (o *object) put(s *stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streams = append(o.streams, s)
	if len(o.streams) > maxStreams || o.ctx.Err() != nil {
		o.streams[0].close()
		o.streams = slices.Delete(o.streams, 0, 1)
	}
}

// ask sends one request for the bytes from an offset on, length of them or, if it is negative, all.
func (o *object) ask(ctx context.Context, from, length int64) (*stream, error) {
	own, cancel := context.WithCancelCause(o.ctx)
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer stop()
	request, err := http.NewRequestWithContext(own, http.MethodGet, o.address, nil)
	if err != nil {
		cancel(nil)
		return nil, refuse(events.SourceUnsupported, "the address cannot be asked for", notSupported)
	}
	request.Header.Set("Accept-Encoding", "identity")
	request.Header.Set("User-Agent", "chandler-agent")
	o.proof.put(request)
	setRange(request.Header, from, length)
	o.version.require(request.Header)
	answer, err := o.client.Do(request)
	if err != nil {
		if cause := context.Cause(own); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, o.refused(o.proof.failed(err))
	}
	s := &stream{body: answer.Body, ctx: own, cancel: cancel, at: from, end: -1, fresh: true}
	if err := o.accept(answer, s); err != nil {
		s.close()
		return nil, o.refused(err)
	}
	return s, nil
}

// refused remembers what another request would only meet again.
func (o *object) refused(err error) error {
	if e, ok := errors.AsType[*source.Error](err); ok {
		switch e.Reason {
		case events.CredentialRejected, events.NoNetworkIdentity, events.NetworkAccessDenied, events.ContentChanged:
			o.mu.Lock()
			o.dead = err
			o.mu.Unlock()
		}
	}
	return err
}

// Close ends all transfers. The shared connections that are unused stay for other objects.
func (o *object) Close() error {
	o.cancel()
	o.mu.Lock()
	for _, s := range o.streams {
		s.close()
	}
	o.streams = nil
	o.mu.Unlock()
	if o.own != nil {
		o.own.CloseIdleConnections()
	}
	return nil
}
