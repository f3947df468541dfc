package external

import (
	"context"
	"errors"
	"fmt"
	"io"

	"chandler/agent/fetch"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// Content reads the files of packages through a Reader, for a fetch.Fetcher.
type Content struct{ *Reader }

// Open is that of fetch.Source. A file of another size than was pinned is not read at all.
func (c Content) Open(ctx context.Context, ref fetch.Ref, offset int64) (io.ReadCloser, error) {
	o, err := c.Reader.Open(ctx, ref.URL, events.AccessContent)
	if err != nil {
		return nil, fetchError(err)
	}
	info := o.Info()
	if wrong := info.Folder || ref.Size >= 0 && info.Size >= 0 && info.Size != ref.Size; wrong {
		o.Close()
		answer := fmt.Sprintf("it has %d bytes, %d when the package was published", info.Size, ref.Size)
		if info.Folder {
			answer = "it is a folder now"
		}
		return nil, fetchError(o.(*object).said(ctx, &source.Error{Reason: events.ContentChanged, Answer: answer}))
	}
	return &stream{ctx: ctx, object: o, at: offset, size: ref.Size}, nil
}

// stream reads an object from an offset on.
type stream struct {
	ctx      context.Context // of Open, which bounds the reading too
	object   source.Object
	at, size int64
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.object.ReadAt(s.ctx, p, s.at)
	s.at += int64(n)
	if errors.Is(err, io.EOF) && s.size >= 0 && s.at < s.size {
		err = io.ErrUnexpectedEOF
	}
	if n > 0 && errors.Is(err, io.EOF) {
		return n, nil
	}
	return n, fetchError(err)
}

func (s *stream) Close() error { return s.object.Close() }

// fetchError puts a failure into the fetcher's terms.
func fetchError(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	return &fetch.Error{Reason: e.Reason, Identity: e.Identity, Resource: resource.Shown(e.Resource), Answer: e.Answer, Err: e}
}

// Refuted tells of bytes that the fetcher found to be others than were pinned, as of any other access.
func (r *Reader) Refuted(ctx context.Context, err error) error {
	e, ok := errors.AsType[*fetch.Error](err)
	if _, told := errors.AsType[*Error](err); !ok || told || e.Reason != events.ContentChanged {
		return err
	}
	a := events.Access{Resource: e.Resource, Identity: string(r.Who), User: r.User, When: events.AccessContent}
	r.mu.Lock()
	lease := ""
	if held := r.held[resource.Longest(r.Resources, e.Resource)]; held != nil {
		a.Account, a.User, a.Version, lease = held.Account, held.User, held.Version, held.ID
	}
	r.mu.Unlock()
	return r.fail(ctx, a, lease, &source.Error{Reason: e.Reason, Answer: e.Answer, Err: e.Err})
}
