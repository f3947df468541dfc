package report

import (
	"context"
	"fmt"
	"sync"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// A chunk goes out when its text reaches chunkBytes, when its attempt ends, or after chunkTime: most jobs
// end sooner, and whoever looks at a longer one need not wait for its end. At most queueChunks wait.
const (
	chunkBytes  = 32 << 10
	chunkTime   = 10 * time.Second
	queueChunks = 64
)

// JobRef names the attempt that log lines belong to.
type JobRef struct {
	Job, Deployment string
	Attempt         int
	Trace           string // of the job; may be empty
}

// logSpool gathers the lines of each running attempt into chunks and publishes them.
type logSpool struct {
	Options
	mu    sync.Mutex
	open  map[JobRef]*openLog
	queue chan *tracedLog
	due   *time.Timer // runs while anything is open: thousands of idle agents in one process are to cost nothing
}

// tracedLog is a chunk on its way.
type tracedLog struct {
	events.JobLog
	trace string
}

type openLog struct {
	chunk, bytes, dropped int
	lines                 []events.LogLine
}

func newLogSpool(o Options) *logSpool {
	s := &logSpool{Options: o, open: map[JobRef]*openLog{}, queue: make(chan *tracedLog, queueChunks), due: time.NewTimer(chunkTime)}
	s.due.Stop()
	return s
}

// Line adds a log line to its attempt's chunk.
func (r *Reporter) Line(ref JobRef, line events.LogLine) {
	s := r.logs
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.open[ref]
	if l == nil {
		if len(s.open) == 0 {
			s.due.Reset(chunkTime)
		}
		l = &openLog{}
		s.open[ref] = l
	}
	l.lines = append(l.lines, line)
	if l.bytes += len(line.Text); l.bytes >= chunkBytes {
		s.cut(ref, l)
	}
}

// EndLog sends what is left of an attempt's lines.
func (r *Reporter) EndLog(ref JobRef) {
	s := r.logs
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.open[ref]; l != nil {
		s.cut(ref, l)
		delete(s.open, ref)
	}
}

// cut queues the open chunk; with a full queue its lines are dropped and counted in the next one.
func (s *logSpool) cut(ref JobRef, l *openLog) {
	if len(l.lines) == 0 {
		return
	}
	chunk := events.JobLog{Agent: s.Agent, Job: ref.Job, Deployment: ref.Deployment, Attempt: ref.Attempt, Chunk: l.chunk, Dropped: l.dropped, Lines: l.lines}
	select {
	case s.queue <- &tracedLog{chunk, ref.Trace}:
		l.dropped = 0
	default:
		l.dropped += len(l.lines)
		s.Metrics.droppedLines.Add(float64(len(l.lines)))
	}
	l.chunk++
	l.bytes, l.lines = 0, nil
}

// run publishes chunks one after the other; a chunk that the broker does not take within a minute is
// dropped, so that logs never hold up statuses for long or grow without bound.
func (s *logSpool) run(ctx context.Context) {
	defer s.due.Stop()
	for {
		select {
		case chunk := <-s.queue:
			s.publish(ctx, chunk)
		case <-s.due.C:
			s.cutAll()
		case <-ctx.Done():
			s.flush(ctx)
			return
		}
	}
}

func (s *logSpool) cutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) > 0 {
		s.due.Reset(chunkTime)
	}
	for ref, l := range s.open {
		s.cut(ref, l)
	}
}

// flush says what is left when the agent stops, as far as a second reaches.
func (s *logSpool) flush(ctx context.Context) {
	s.cutAll()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for {
		select {
		case chunk := <-s.queue:
			s.publish(last, chunk)
		default:
			return
		}
	}
}

func (s *logSpool) publish(ctx context.Context, chunk *tracedLog) {
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	first := chunk.Lines[0]
	id := events.DeriveID("log", chunk.Job, fmt.Sprint(chunk.Attempt), fmt.Sprint(chunk.Chunk), fmt.Sprint(first.At.UnixNano()))
	e := events.Event[events.JobLog]{ID: id, Subject: s.Agent, Time: first.At, Trace: chunk.trace, Data: chunk.JobLog}
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		_, err := bus.Publish(limit, s.Bus, events.JobLogged, e)
		if err == nil {
			return
		}
		select {
		case <-limit.Done():
			s.Metrics.droppedLines.Add(float64(len(chunk.Lines)))
			s.Log.DebugContext(ctx, "log chunk dropped", "job", chunk.Job, "error", err)
			return
		case <-time.After(pause):
		}
	}
}
