package asuser

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"chandler/agent/source"
	"chandler/events"
)

var (
	errSilent = errors.New("it does not answer")
	errEnded  = errors.New("it ended")
	errClosed = errors.New("the reader is closed")
)

// conversation is the agent's end of what is said with one process of the user.
type conversation struct {
	patience time.Duration
	input    io.WriteCloser
	output   io.ReadCloser
	kill     func()
	requests chan request
	slots    chan struct{} // one for each call that is not answered
	dead     chan struct{} // closed when nothing is said any more
	gone     chan struct{} // closed when the process is too

	mu      sync.Mutex
	why     error // of the end
	last    uint64
	calls   map[uint64]*call
	objects int // open, or being opened
}

// call is a request that is not answered yet.
type call struct {
	limit    int // bytes of data in the answer
	watch    *time.Timer
	answered chan reply // has room for one
}

type reply struct {
	head head
	data []byte
}

// converse begins. kill is called once, when the input is closed already, and returns when the process is gone.
func converse(input io.WriteCloser, output io.ReadCloser, kill func(), patience time.Duration) *conversation {
	c := &conversation{
		patience: patience, input: input, output: output, kill: kill,
		requests: make(chan request, 2*maxObjects), slots: make(chan struct{}, maxCalls),
		dead: make(chan struct{}), gone: make(chan struct{}), calls: map[uint64]*call{},
	}
	go c.write()
	go c.read()
	return c
}

// write ends with the conversation, which closes the input.
func (c *conversation) write() {
	to := json.NewEncoder(c.input)
	for {
		select {
		case r := <-c.requests:
			if err := to.Encode(r); err != nil {
				c.end(errEnded)
				return
			}
		case <-c.dead:
			return
		}
	}
}

func (c *conversation) read() {
	from := bufio.NewReaderSize(c.output, 64<<10)
	for {
		h, data, err := readFrame(from, c.limitOf)
		if err == nil {
			err = c.deliver(reply{h, data})
		}
		if errors.Is(err, io.EOF) {
			err = errEnded
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

var errUnasked = errors.New("it answers what it was not asked")

func (c *conversation) limitOf(h head) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.calls[h.ID]
	if asked == nil {
		return 0, errUnasked
	}
	return asked.limit, nil
}

func (c *conversation) deliver(r reply) error {
	c.mu.Lock()
	asked := c.calls[r.head.ID]
	delete(c.calls, r.head.ID)
	c.mu.Unlock()
	if asked == nil { // the conversation has ended meanwhile
		return errUnasked
	}
	asked.watch.Stop()
	<-c.slots
	asked.answered <- r
	return nil
}

// end ends the conversation and the process, whoever is the first to find a reason.
func (c *conversation) end(why error) {
	c.mu.Lock()
	if c.why != nil {
		c.mu.Unlock()
		return
	}
	c.why = why
	for _, asked := range c.calls {
		asked.watch.Stop()
	}
	clear(c.calls)
	close(c.dead)
	c.mu.Unlock()
	c.input.Close()
	c.kill()
	c.output.Close()
	close(c.gone)
}

// failure is nil for as long as the conversation goes on.
func (c *conversation) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		return nil
	}
	return &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer("what reads as the user is gone: "+brief(c.why.Error()), source.BadNetworkPath), Err: c.why}
}

// ask waits for an answer with at most limit bytes of data. When its context ends first the request is called off; what is
// answered nevertheless is dropped. The number of the request is there whatever comes of it.
func (c *conversation) ask(ctx context.Context, r request, limit int) (id uint64, answer reply, err error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return 0, reply{}, givenUp(ctx)
	case <-c.dead:
		return 0, reply{}, c.failure()
	}
	c.mu.Lock()
	if c.why != nil {
		c.mu.Unlock()
		return 0, reply{}, c.failure()
	}
	c.last++
	r.ID = c.last
	asked := &call{limit: limit, watch: time.AfterFunc(c.patience, func() { c.end(errSilent) }), answered: make(chan reply, 1)}
	c.calls[r.ID] = asked
	c.mu.Unlock()
	c.say(r)
	select {
	case answer = <-asked.answered:
		return r.ID, answer, answer.head.failure()
	case <-ctx.Done():
		c.say(request{ID: r.ID, Op: opEnd, Object: r.ID})
		return r.ID, reply{}, givenUp(ctx)
	case <-c.dead:
		return r.ID, reply{}, c.failure()
	}
}

// say has room for whatever may be said, unless the process does not listen.
func (c *conversation) say(r request) {
	select {
	case c.requests <- r:
	case <-c.dead:
	}
}

func givenUp(ctx context.Context) error {
	return &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer("it was given up", source.BadNetworkPath), Err: context.Cause(ctx)}
}

// broken ends a conversation in which something was said that Main does not say.
func (c *conversation) broken(what string) error {
	c.end(errors.New("it " + what))
	return c.failure()
}

// open asks for an object, of which the name is known.
func (c *conversation) open(ctx context.Context, address, name string) (source.Object, error) {
	if !c.count(1) {
		return nil, &source.Error{Reason: events.SourceUnreachable, Answer: fmt.Sprintf("more than %d files are open at once", maxObjects)}
	}
	id, answer, err := c.ask(ctx, request{Op: opOpen, Address: address}, 0)
	if err != nil {
		c.count(-1)
		return nil, err
	}
	if answer.head.Info == nil {
		return nil, c.broken("opens without a word")
	}
	answer.head.Info.Name = name
	info, err := answer.head.Info.info()
	if err != nil {
		return nil, c.broken("opens what no source has")
	}
	return &object{talk: c, id: id, info: info}, nil
}

func (c *conversation) count(more int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.objects+more > maxObjects {
		return false
	}
	c.objects += more
	return true
}
