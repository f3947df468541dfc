package fetch

import (
	"context"
	"fmt"
	"io"

	"chandler/events"
)

// FetchBytes returns a small blob of unknown size, at most limit bytes, from the cache or from where content
// says it is, verified, and holds it for owner until Release. The error is an *[Error], or the context's.
func (f *Fetcher) FetchBytes(ctx context.Context, owner, sha256 string, limit int64) ([]byte, error) {
	if err := events.ValidDigest(sha256); err != nil {
		return nil, f.failed(ctx, &Error{Reason: events.ContentUnavailable, Identity: Agent, Resource: "blob", Err: err})
	}
	f.cache.hold(owner, sha256)
	unlock, err := f.cache.lock(ctx, sha256)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if data, err := f.cached(sha256, limit); err == nil {
		f.metrics.bytes.WithLabelValues("cache").Add(float64(len(data)))
		return data, nil
	}
	var data []byte
	err = f.rounds(ctx, sha256, f.addresses(ctx, sha256), func(ctx context.Context, address string) (bool, error) {
		var err error
		data, err = f.small(ctx, sha256, limit, address)
		return false, err
	})
	if err != nil {
		return nil, f.failed(ctx, err)
	}
	f.metrics.bytes.WithLabelValues("network").Add(float64(len(data)))
	if err := f.keep(sha256, data); err != nil {
		// The caller has what it asked for; it is fetched again should it be needed again.
		f.log.WarnContext(ctx, "blob could not be kept in the cache", "blob", sha256, "error", err)
	}
	return data, nil
}

func (f *Fetcher) addresses(ctx context.Context, sha256 string) []string {
	found, err := f.locate(ctx, []string{sha256})
	if err != nil {
		f.log.WarnContext(ctx, "content did not say where a blob is, asking again", "blob", sha256, "error", err)
	}
	return found[sha256]
}

// cached reads a blob of the cache; a decayed one is thrown out.
func (f *Fetcher) cached(sha256 string, limit int64) ([]byte, error) {
	if !f.cache.has(sha256, -1) {
		return nil, fmt.Errorf("blob %s is not cached", sha256)
	}
	file, err := f.cache.open(sha256)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if events.DigestOf(data) != sha256 {
		f.metrics.mismatches.Inc()
		f.cache.drop(sha256)
		return nil, fmt.Errorf("blob %s decayed in the cache", sha256)
	}
	return data, nil
}

// small reads a whole blob into memory.
func (f *Fetcher) small(ctx context.Context, sha256 string, limit int64, address string) ([]byte, error) {
	source, err := f.source(address)
	if err != nil {
		return nil, err
	}
	body, err := source.Open(ctx, Ref{URL: address, SHA256: sha256, Size: -1}, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, &Error{Reason: events.ContentMismatch, Identity: Agent, Resource: Redact(address), Answer: fmt.Sprintf("it has more than the %d bytes allowed", limit)}
	case events.DigestOf(data) != sha256:
		f.metrics.mismatches.Inc()
		return nil, &Error{Reason: events.ContentMismatch, Identity: Agent, Resource: Redact(address), Answer: fmt.Sprintf("%d bytes that are not blob %s", len(data), sha256)}
	}
	return data, nil
}

// keep puts verified bytes into the cache. The caller has the blob's turn.
func (f *Fetcher) keep(sha256 string, data []byte) error {
	p, err := f.cache.begin(blob{sha256: sha256, size: int64(len(data))})
	if err != nil {
		return err
	}
	defer p.close()
	if p.at < p.size { // what an earlier attempt left is of no use
		if err := p.rewind(); err != nil {
			return err
		}
		if err := p.write(data); err != nil {
			f.cache.discard(p)
			return err
		}
	}
	return p.finish()
}
