package asuser

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// Main is the whole process of the user: it opens, reads and lists what is asked for on in, by the sources for the schemes
// of addresses, and answers on out. It returns at the end of in, without waiting for what is under way: with nil, or with
// what was wrong with a request. The process should end then.
func Main(in io.Reader, out io.Writer, sources map[string]source.Source) error {
	if err := confineSelf(); err != nil {
		return err
	}
	adoptTicket()
	return serve(in, out, sources)
}

func serve(in io.Reader, out io.Writer, sources map[string]source.Source) error {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{ctx: ctx, out: out, sources: sources, tasks: map[uint64]*task{}, objects: map[uint64]source.Object{}}
	defer r.closeAll()
	defer cancel()
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, maxRequest), maxRequest)
	for lines.Scan() {
		var req request
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			return errors.New("read a request: it is no JSON")
		}
		if err := req.check(); err != nil {
			return err
		}
		if err := r.take(req); err != nil {
			return err
		}
	}
	return lines.Err()
}

// reader is the user's end of a conversation.
type reader struct {
	ctx     context.Context
	out     io.Writer
	sources map[string]source.Source
	writing sync.Mutex // of a frame

	mu      sync.Mutex
	tasks   map[uint64]*task
	objects map[uint64]source.Object
	closed  bool
}

// task is a request that is being answered.
type task struct {
	cancel context.CancelFunc
	ended  bool // what it opens is to be closed
}

func (r *reader) take(req request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Op == opEnd {
		r.endLocked(req.Object)
		return nil
	}
	if len(r.tasks) >= maxCalls || len(r.objects) >= maxObjects || r.tasks[req.ID] != nil || r.objects[req.ID] != nil {
		return fmt.Errorf("request %d: too many, or not the first", req.ID)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	t := &task{cancel: cancel}
	r.tasks[req.ID] = t
	o := r.objects[req.Object]
	go func() {
		defer cancel()
		h, data := r.answer(ctx, req, o, t)
		h.ID = req.ID
		r.writing.Lock()
		defer r.writing.Unlock()
		// Nobody else is told that nobody listens: the input ends then.
		_ = writeFrame(r.out, h, data)
	}()
	return nil
}

func (r *reader) endLocked(id uint64) {
	if t := r.tasks[id]; t != nil {
		t.ended = true
		t.cancel()
	}
	if o := r.objects[id]; o != nil {
		delete(r.objects, id)
		go o.Close() // which may take its time
	}
}

// answer does what is asked. The task is over before the answer is written, so that nobody is refused who heard it.
func (r *reader) answer(ctx context.Context, req request, o source.Object, t *task) (h head, data []byte) {
	var err error
	switch {
	case req.Op == opOpen:
		o, err = r.open(ctx, req.Address)
		if err == nil {
			h.Info = entryOf(o.Info())
		}
	case o == nil:
		err = &source.Error{Reason: events.OtherReason, Answer: "the file is closed"}
	case req.Op == opRead:
		data = make([]byte, req.Length)
		n := 0
		n, err = o.ReadAt(ctx, data, req.Offset)
		data = data[:n]
		if errors.Is(err, io.EOF) {
			h.End, err = true, nil
		}
	case req.Op == opList:
		data, err = list(ctx, o)
	}
	if err != nil {
		h.Reason, h.Answer = saidOf(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.tasks, req.ID)
	if req.Op == opOpen && err == nil {
		if t.ended || r.closed {
			go o.Close()
		} else {
			r.objects[req.ID] = o
		}
	}
	return h, data
}

// open opens as nobody in particular: as the user that this process is.
func (r *reader) open(ctx context.Context, address string) (source.Object, error) {
	where, err := resource.Parse(address)
	if err != nil {
		return nil, refuse(events.SourceUnsupported, "not an address", notSupported)
	}
	s := r.sources[where.Scheme]
	if s == nil {
		return nil, refuse(events.SourceUnsupported, "nothing reads "+where.Scheme+":// as a user", notSupported)
	}
	return s.Open(ctx, address, source.Login{})
}

func list(ctx context.Context, o source.Object) ([]byte, error) {
	infos, err := o.List(ctx)
	if err != nil {
		return nil, err
	}
	entries := make([]*entry, 0, len(infos))
	for _, info := range infos {
		entries = append(entries, entryOf(info))
	}
	data, err := json.Marshal(entries)
	if err == nil && len(data) > maxList {
		err = refuse(events.SourceUnsupported, "the folder's list is too long", notSupported)
	}
	return data, err
}

func saidOf(err error) (events.Reason, string) {
	if e, ok := errors.AsType[*source.Error](err); ok {
		return e.Reason, brief(e.Answer)
	}
	return events.OtherReason, brief(err.Error())
}

func (r *reader) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for id := range r.objects {
		r.endLocked(id)
	}
}
