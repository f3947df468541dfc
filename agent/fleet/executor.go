package fleet

import (
	"fmt"
	"os/exec"
	"sync"
	"time"

	"chandler/events"
)

// Run is one start of a program, as the executor recorded it.
type Run struct {
	Agent, Job, Deployment string
	Revision               uint64
	Attempt                int
	At                     time.Time
	Ended                  time.Time // zero: it runs
	Killed                 bool      // it was ended before its time
	Act                    Act
}

// programs starts programs and finds those that were started.
type programs interface {
	start(r Run) *program
	find(job string, attempt int) *program // the last start; nil: there was none
}

// forksAtOnce bounds the real processes that are made at the same time.
const forksAtOnce = 64

// executor runs the programs of all members by the script and records every start, also one that must never be. As the
// real supervisors it outlives the agents.
type executor struct {
	f     *Fleet
	path  string        // of the program that is forked; "": none is
	forks chan struct{} // a place for each that is under way

	forking sync.WaitGroup

	mu      sync.Mutex
	all     []*program
	latest  map[attemptKey]*program
	stopped bool // nothing ends by itself any more
}

type attemptKey struct {
	job     string
	attempt int
}

// program is one that was started.
type program struct {
	x     *executor
	run   Run // guarded by x.mu
	timer *time.Timer
	ended chan struct{} // closed when it has ended
}

func newExecutor(f *Fleet) (*executor, error) {
	x := &executor{f: f, forks: make(chan struct{}, forksAtOnce), latest: map[attemptKey]*program{}}
	if f.Script.Fork {
		path, err := exec.LookPath("true")
		if err != nil {
			return nil, fmt.Errorf("find the program to fork: %w", err)
		}
		x.path = path
	}
	return x, nil
}

// start starts a program. That it was not started before is the caller's to know.
func (x *executor) start(r Run) *program {
	r.At, r.Act = x.f.Clock(), x.f.Script.Of(r.Job, r.Attempt)
	p := &program{x: x, run: r, ended: make(chan struct{})}
	x.mu.Lock()
	x.all = append(x.all, p)
	x.latest[attemptKey{r.Job, r.Attempt}] = p
	lasts := x.path == "" && r.Act.Took > 0
	if lasts && !x.stopped {
		p.timer = time.AfterFunc(r.Act.Took, func() { p.end(false) })
	}
	x.mu.Unlock()
	x.f.counts.started.Add(1)
	x.f.Observe(r.observation(ProgramStarted, r.At))
	switch {
	case x.path != "":
		x.forking.Go(func() { p.fork(r.Act.Took) })
	case !lasts:
		p.end(false)
	}
	return p
}

// fork makes a real process, and lets the rest of the program's time pass.
func (p *program) fork(took time.Duration) {
	x, began := p.x, time.Now()
	x.forks <- struct{}{}
	err := exec.Command(x.path).Run()
	<-x.forks
	x.mu.Lock()
	if err != nil {
		p.run.Act = Act{Exit: -1, Reason: events.CouldNotStart}
		took = 0
	}
	rest := took - time.Since(began)
	if rest > 0 && p.run.Ended.IsZero() && !x.stopped {
		p.timer = time.AfterFunc(rest, func() { p.end(false) })
	}
	x.mu.Unlock()
	if rest <= 0 {
		p.end(false)
	}
}

// end notes the program's end; the first counts.
func (p *program) end(killed bool) {
	x := p.x
	x.mu.Lock()
	if !p.run.Ended.IsZero() || x.stopped && !killed {
		x.mu.Unlock()
		return
	}
	p.run.Ended, p.run.Killed = x.f.Clock(), killed
	if p.timer != nil {
		p.timer.Stop()
	}
	o := p.run.observation(ProgramEnded, p.run.Ended)
	x.mu.Unlock()
	x.f.counts.ended.Add(1)
	x.f.Observe(o)
	close(p.ended)
}

func (r Run) observation(what Kind, at time.Time) Observation {
	return Observation{What: what, Agent: r.Agent, Job: r.Job, Deployment: r.Deployment, Attempt: r.Attempt, At: at}
}

// record is what the executor knows of the program now.
func (p *program) record() Run {
	p.x.mu.Lock()
	defer p.x.mu.Unlock()
	return p.run
}

func (x *executor) find(job string, attempt int) *program {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.latest[attemptKey{job, attempt}]
}

// stop leaves the programs that run as they are: nobody will ask for them any more, and nobody is told that they end.
func (x *executor) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stopped = true
	for _, p := range x.all {
		if p.timer != nil && p.run.Ended.IsZero() {
			p.timer.Stop()
		}
	}
}

// Runs is the executor's own record, in the order of the starts; it survives Kill.
func (f *Fleet) Runs() []Run {
	x := f.executor
	x.mu.Lock()
	defer x.mu.Unlock()
	all := make([]Run, len(x.all))
	for i, p := range x.all {
		all[i] = p.run
	}
	return all
}
