package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"chandler/events"
)

// partial is a blob on its way into the cache: a file that holds its first bytes. All blocks but the one
// that is being filled are verified.
type partial struct {
	blob
	cache *cache
	file  *os.File

	at    int64 // bytes in the file
	start int64 // of the block being filled
	// resumed: the block being filled holds bytes from before, which nothing vouches for yet.
	resumed      bool
	whole, block hash.Hash
	wholeAtStart hash.Hash // whole as it was at start, to go back to
}

var errBlock = errors.New("bytes do not match the manifest")

// blockEnd is where the block being filled ends.
func (p *partial) blockEnd() int64 {
	if len(p.blocks) == 0 {
		return p.size
	}
	return min(p.start+events.BlockSize, p.size)
}

// resume reads what the file holds and keeps it as far as it can be true.
func (p *partial) resume() error {
	p.whole, p.block = sha256.New(), sha256.New()
	p.mark(0)
	buf := make([]byte, chunk)
	for p.at < p.size {
		n, err := p.file.Read(buf[:min(int64(len(buf)), p.blockEnd()-p.at)])
		if n > 0 {
			p.whole.Write(buf[:n])
			p.block.Write(buf[:n])
			p.at += int64(n)
			if p.at == p.blockEnd() && !p.seal() {
				p.back()
				break
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	p.resumed = p.at > p.start
	if err := p.file.Truncate(p.at); err != nil {
		return err
	}
	_, err := p.file.Seek(p.at, io.SeekStart)
	return err
}

// mark begins a block.
func (p *partial) mark(at int64) {
	p.start, p.resumed = at, false
	p.block.Reset()
	clone, err := p.whole.(hash.Cloner).Clone()
	if err != nil {
		panic("sha256 can always be cloned: " + err.Error())
	}
	p.wholeAtStart = clone
}

// seal ends the block being filled and says whether it is the manifest's.
func (p *partial) seal() bool {
	want := p.sha256
	if len(p.blocks) > 0 {
		i := p.start / events.BlockSize
		if i >= int64(len(p.blocks)) {
			return false
		}
		want = p.blocks[i]
	}
	if hex.EncodeToString(p.block.Sum(nil)) != want {
		return false
	}
	p.mark(p.at)
	return true
}

// back forgets the block being filled.
func (p *partial) back() {
	p.at, p.whole = p.start, p.wholeAtStart
	p.mark(p.start)
}

// rewind forgets the block being filled in the file too.
func (p *partial) rewind() error {
	p.back()
	if err := p.file.Truncate(p.at); err != nil {
		return err
	}
	_, err := p.file.Seek(p.at, io.SeekStart)
	return err
}

// write appends bytes that lie within one block. errBlock: they, or those resumed before them, are wrong,
// and the block is forgotten.
func (p *partial) write(data []byte) error {
	n, err := p.file.Write(data)
	p.whole.Write(data[:n])
	p.block.Write(data[:n])
	p.at += int64(n)
	if err != nil {
		return err
	}
	if p.at == p.blockEnd() && !p.seal() {
		return errors.Join(p.rewind(), errBlock)
	}
	return nil
}

// finish checks the whole once more and gives it to the cache. A manifest whose block digests are right and
// whose whole digest is not contradicts itself.
func (p *partial) finish() error {
	if got := hex.EncodeToString(p.whole.Sum(nil)); got != p.sha256 || p.at != p.size {
		p.cache.discard(p)
		return &Error{Reason: events.ContentMismatch, Identity: Agent, Resource: "blob " + p.sha256,
			Answer: fmt.Sprintf("its blocks are right, but together they are %s: the manifest contradicts itself", got)}
	}
	return p.cache.admit(p)
}

// close keeps what has arrived for the next attempt.
func (p *partial) close() { p.cache.pause(p) }

// transfer reads from one address into the partial file until the blob is whole.
func (r *fetching) transfer(ctx context.Context, p *partial, address string) error {
	if p.at == p.size {
		return nil
	}
	source := r.outside.Source
	if p.address == "" {
		var err error
		if source, err = r.source(address); err != nil {
			return err
		}
	}
	body, err := source.Open(ctx, Ref{URL: address, SHA256: p.sha256, Size: p.size}, p.at)
	if err != nil {
		return err
	}
	defer body.Close()
	buf := make([]byte, chunk)
	for p.at < p.size {
		room := buf[:min(int64(chunk), p.blockEnd()-p.at)]
		n, err := body.Read(room)
		if n > 0 {
			if err := r.throttle(ctx, n); err != nil {
				return err
			}
			r.metrics.bytes.WithLabelValues("network").Add(float64(n))
			r.arrived(int64(n), Redact(address))
			before, resumed := p.at, p.resumed
			if err := p.write(room[:n]); err != nil {
				r.advance(p.at - before)
				return r.reader(p, r.writeFailed(p, err, resumed, address))
			}
			r.advance(int64(n))
		}
		if err != nil && p.at < p.size {
			return r.reader(p, cut(err, p, address))
		}
	}
	return nil
}

// reader puts into an error who read outside; and where the bytes are others there than those pinned, that is no
// distribution point's fault. Bytes kept from before may have been the wrong ones: then the next try tells.
func (r *fetching) reader(p *partial, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || p.address == "" {
		return err
	}
	if e.Identity == Agent && (e.Reason == events.ContentMismatch || e.Reason == events.SourceUnreachable) {
		e.Identity = r.outside.Identity
	}
	if e.Reason == events.ContentMismatch && !e.resumed {
		e.Reason = events.ContentChanged
	}
	return e
}

func (r *fetching) throttle(ctx context.Context, n int) error {
	if r.limiter == nil {
		return nil
	}
	return r.limiter.WaitN(ctx, n)
}

// writeFailed tells wrong bytes from a disk that takes none.
func (r *fetching) writeFailed(p *partial, err error, resumed bool, address string) error {
	if errors.Is(err, errBlock) {
		r.metrics.mismatches.Inc()
		answer := fmt.Sprintf("the block at byte %d does not match the manifest", p.start)
		if resumed {
			answer += " (it began with bytes kept from before, which may be the wrong ones)"
		}
		return &Error{Reason: events.ContentMismatch, Identity: Agent, Resource: Redact(address), Answer: answer, resumed: resumed}
	}
	if diskFull(err) {
		r.cache.discard(p)
		return &Error{Reason: events.DiskFull, Identity: Agent, Resource: r.cache.dir, Answer: fmt.Sprintf("no room for %d bytes", p.size), Err: err}
	}
	return &Error{Reason: events.AgentFault, Identity: Agent, Resource: r.cache.dir, Err: err}
}

// cut is the error of a reader that ended too early.
func cut(err error, p *partial, address string) error {
	e := known(err, events.SourceUnreachable, Redact(address))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		e.Answer = fmt.Sprintf("the connection ended after %d of %d bytes", p.at, p.size)
	}
	return e
}
