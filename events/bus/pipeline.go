package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// storeAttempts is how often a pipeline sends a message whose fate it does not learn, unreadyAttempts how often one
	// to which the broker answers that it cannot store it now; neither counts for the other.
	storeAttempts, unreadyAttempts = 3, 9
	// pipelineTick is how often a pipeline that waits looks for messages that are to be sent again.
	pipelineTick = 250 * time.Millisecond
)

// Pipeline stores many messages without waiting for each. It is for one goroutine. Messages are stored in
// their order, except one that had to be sent again because a leader died. It has no goroutines and, beside
// one for itself, no timers: the answers wait in a channel until the pipeline looks at them, which it does
// when its window is full, and in Flush.
type Pipeline struct {
	bus     *Bus
	answers *answers    // nil: nothing is under way
	flight  []inFlight  // in the order of their numbers, at most the bus's window
	first   uint64      // number of flight[0]
	clock   *time.Timer // nil until the first wait
	counted stored      // what is not in the metrics yet
	failed  error       // why the pipeline takes no more
}

type inFlight struct {
	msg     *nats.Msg
	label   string // of its type; "" for what is no event
	sent    time.Time
	again   time.Time // when it is sent again because the broker said so; zero: it did not
	lives   uint64    // reconnections of the connection when it was sent
	unready int       // how often the broker said that it cannot store it now
	silent  int       // how often it was sent again because nobody answered
	settled bool
}

// stored counts messages of one type.
type stored struct {
	label       string
	new, double int
}

// NewPipeline starts an empty pipeline.
func (b *Bus) NewPipeline() *Pipeline { return &Pipeline{bus: b} }

// Add sends a message made by [Message], and waits for others when the window is full. It returns an
// error once any message could not be stored: what follows would not be stored either. [Pipeline.Flush]
// tells of the rest, and must follow in any case: it gives back what the pipeline holds of its bus. The
// message must not be changed until then.
func (p *Pipeline) Add(ctx context.Context, m *nats.Msg) error {
	if p.failed == nil {
		if err := p.bus.check(m); err != nil {
			return err
		}
	}
	return p.add(ctx, m, typeOf(m))
}

// AddPlain is Add for a message that is no event, or goes to another subject than its type's. It needs an id
// ([jetstream.MsgIDHeader]), or a condition under which it is stored: a message may be sent more than once.
func (p *Pipeline) AddPlain(ctx context.Context, m *nats.Msg) error { return p.add(ctx, m, "") }

func (p *Pipeline) add(ctx context.Context, m *nats.Msg, label string) error {
	if p.failed != nil {
		return p.failed
	}
	if p.answers == nil {
		var err error
		if p.answers, err = p.bus.takeAnswers(); err != nil {
			return fmt.Errorf("publish %s: %w", m.Subject, err)
		}
		p.first = p.answers.next
	}
	for len(p.flight) >= p.bus.window {
		if err := p.wait(ctx); err != nil {
			return err
		}
		if p.failed != nil {
			return p.failed
		}
	}
	p.flight = append(p.flight, inFlight{msg: m, label: label})
	p.answers.next++
	p.send(len(p.flight) - 1)
	p.trim()
	return p.failed
}

// Flush waits until everything that was added is stored or has failed, and returns the errors joined. It
// ends at the latest a few ack time-outs after the last message, whatever becomes of the broker. After it
// the pipeline is empty and may be used again.
func (p *Pipeline) Flush(ctx context.Context) error {
	var failures []error
	note := func() {
		if p.failed != nil {
			failures = append(failures, p.failed)
			p.failed = nil
		}
	}
	note()
	for len(p.flight) > 0 {
		if err := p.wait(ctx); err != nil {
			failures = append(failures, fmt.Errorf("%d messages are not confirmed: %w", len(p.flight), err))
			p.flight = nil
		}
		note()
	}
	p.count("", false)
	if p.answers != nil {
		p.bus.giveAnswers(p.answers)
		p.answers = nil
	}
	if p.clock != nil {
		p.clock.Stop()
		p.clock = nil
	}
	return errors.Join(failures...)
}

// send sends flight[i], for the first time or again.
func (p *Pipeline) send(i int) {
	f := &p.flight[i]
	f.sent, f.again, f.lives = time.Now(), time.Time{}, p.bus.conn.Stats().Reconnects
	m := nats.Msg{Subject: f.msg.Subject, Reply: p.answers.subject(p.first + uint64(i)), Header: f.msg.Header, Data: f.msg.Data}
	if err := p.bus.conn.PublishMsg(&m); err != nil {
		p.fail(f, err)
	}
}

// wait takes the answers that there are, waiting for one if there is none; the error is ctx's.
func (p *Pipeline) wait(ctx context.Context) error {
	select {
	case m := <-p.answers.arriving:
		p.settle(m)
	default:
		if p.clock == nil {
			p.clock = time.NewTimer(pipelineTick)
		}
		select {
		case m := <-p.answers.arriving:
			p.settle(m)
		case <-p.clock.C:
			p.sendAgain()
			p.clock.Reset(pipelineTick)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		select {
		case m := <-p.answers.arriving:
			p.settle(m)
		default:
			p.trim()
			return nil
		}
	}
}

// trim forgets what is settled, up to the oldest that is not.
func (p *Pipeline) trim() {
	n := 0
	for n < len(p.flight) && p.flight[n].settled {
		p.flight[n] = inFlight{}
		n++
	}
	p.flight, p.first = p.flight[n:], p.first+uint64(n)
}

// settle reads the answer to one message. One that comes late, after a message was sent again, settles it too.
func (p *Pipeline) settle(m *nats.Msg) {
	number, ok := p.answers.number(m.Subject)
	if !ok || number < p.first || number >= p.first+uint64(len(p.flight)) {
		return
	}
	f := &p.flight[number-p.first]
	if f.settled {
		return
	}
	switch duplicate, err := readAck(m); {
	case err == nil:
		f.settled, f.msg = true, nil
		p.count(f.label, duplicate)
	case unready(err) && f.unready < unreadyAttempts-1:
		f.unready++
		f.again = time.Now().Add(pipelineTick)
	default:
		p.fail(f, err)
	}
}

// sendAgain looks for messages whose time has come: those that the broker could not store, those that went into a
// connection which is lost, and those that nobody answers for too long. Their ids tell the store if it has them.
func (p *Pipeline) sendAgain() {
	lives, now := p.bus.conn.Stats().Reconnects, time.Now()
	for i := range p.flight {
		f := &p.flight[i]
		silent := f.again.IsZero() && (f.lives != lives || now.Sub(f.sent) >= ackTimeout)
		switch {
		case f.settled:
		case silent && f.silent >= storeAttempts-1:
			p.fail(f, jetstream.ErrAsyncPublishTimeout)
		case silent:
			f.silent++
			p.send(i)
		case !f.again.IsZero() && !now.Before(f.again):
			p.send(i)
		}
	}
}

func (p *Pipeline) fail(f *inFlight, err error) {
	err = fmt.Errorf("publish %s: %w", f.msg.Subject, err)
	if f.label != "" {
		p.bus.metrics.published.WithLabelValues(f.label, "error").Inc()
	}
	if f.settled, f.msg = true, nil; p.failed == nil {
		p.failed = err
	}
}

// count collects what is alike before it goes into the metrics.
func (p *Pipeline) count(label string, duplicate bool) {
	if c := &p.counted; c.label != label {
		if c.new > 0 {
			p.bus.metrics.published.WithLabelValues(c.label, "stored").Add(float64(c.new))
		}
		if c.double > 0 {
			p.bus.metrics.published.WithLabelValues(c.label, "duplicate").Add(float64(c.double))
		}
		*c = stored{label: label}
	}
	switch {
	case label == "":
	case duplicate:
		p.counted.double++
	default:
		p.counted.new++
	}
}
