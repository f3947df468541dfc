package httpssource

import (
	"context"
	"errors"
	"io"
	"time"
)

// errSilent is why a transfer was ended.
var errSilent = errors.New("the server sent nothing more")

// stream is the body of one answer, which one reader at a time has.
type stream struct {
	body    io.ReadCloser // nil when it was read to its end
	ctx     context.Context
	cancel  context.CancelCauseFunc
	at, end int64 // in the file; end is -1 where the server did not say
	fresh   bool  // nobody has read from it before
}

// read fills p, unless the body ends first. It waits no longer than patience for any byte; the time between reads does not
// count.
func (s *stream) read(ctx context.Context, p []byte, patience time.Duration) (n int, err error) {
	stop := context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) })
	defer stop()
	watch := time.AfterFunc(patience, func() { s.cancel(errSilent) })
	defer watch.Stop()
	for n < len(p) && err == nil {
		var got int
		got, err = s.body.Read(p[n:])
		n, s.at = n+got, s.at+int64(got)
		watch.Reset(patience)
	}
	if cause := context.Cause(s.ctx); cause != nil && !errors.Is(err, io.EOF) {
		err = cause
	}
	return n, err
}

func (s *stream) close() {
	s.cancel(nil)
	if s.body != nil {
		s.body.Close()
	}
}
