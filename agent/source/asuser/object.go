package asuser

import (
	"context"
	"io"
	"io/fs"
	"math"
	"sync/atomic"

	"chandler/agent/source"
	"chandler/events"
)

// object is what a process of the user opened.
type object struct {
	talk   *conversation
	id     uint64
	info   source.Info
	closed atomic.Bool
}

func (o *object) Info() source.Info { return o.info }

// ReadAt asks for one piece after the other: reading ahead is the user's sources'.
func (o *object) ReadAt(ctx context.Context, p []byte, offset int64) (n int, err error) {
	if offset < 0 || offset > math.MaxInt64-int64(len(p)) {
		return 0, refuse(events.SourceUnsupported, "read where no file is", notSupported)
	}
	for n < len(p) {
		if o.closed.Load() {
			return n, closedError()
		}
		want := min(len(p)-n, maxPiece)
		_, answer, err := o.talk.ask(ctx, request{Op: opRead, Object: o.id, Offset: offset + int64(n), Length: want}, want)
		n += copy(p[n:], answer.data)
		switch {
		case err != nil:
			return n, err
		case answer.head.End:
			return n, io.EOF
		case len(answer.data) == 0:
			return n, o.talk.broken("reads nothing, and calls it no end")
		}
	}
	return n, nil
}

// List takes nothing that Main does not say.
func (o *object) List(ctx context.Context) ([]source.Info, error) {
	if o.closed.Load() {
		return nil, closedError()
	}
	_, answer, err := o.talk.ask(ctx, request{Op: opList, Object: o.id}, maxList)
	if err != nil {
		return nil, err
	}
	list, err := parseList(answer.data)
	if err != nil {
		return nil, o.talk.broken("gives " + err.Error())
	}
	return list, nil
}

// Close does not wait for the process to close it.
func (o *object) Close() error {
	if !o.closed.Swap(true) {
		o.talk.say(request{ID: o.id, Op: opEnd, Object: o.id})
		o.talk.count(-1)
	}
	return nil
}

func closedError() error {
	return &source.Error{Reason: events.OtherReason, Answer: "the file is closed", Err: fs.ErrClosed}
}
