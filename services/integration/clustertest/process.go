package clustertest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is a child that is started again and again. Its methods may be called at once.
type Process struct {
	Command []string  // of a program that calls [EndWithParent]
	Output  io.Writer // standard output and error; nil: nowhere

	mu     sync.Mutex
	cmd    *exec.Cmd // nil: not running
	alive  io.Closer // its standard input
	paused bool
	ended  chan struct{} // closed when it has ended
}

// Start starts the process; one that runs is left alone.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	cmd := exec.Command(p.Command[0], p.Command[1:]...)
	cmd.Stdout, cmd.Stderr = p.Output, p.Output
	alive, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Command, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Command, err)
	}
	p.cmd, p.alive, p.paused, p.ended = cmd, alive, false, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait() // how it ended is no matter here
		close(ended)
	}(p.ended)
	return nil
}

// Kill ends the process as a power button would, and returns when it has ended.
func (p *Process) Kill() { p.end((*os.Process).Kill, 0) }

// Stop asks the process to end, and kills one that has not after the grace period.
func (p *Process) Stop(grace time.Duration) {
	p.end(func(o *os.Process) error { return o.Signal(os.Interrupt) }, grace)
}

// Dump ends a Go program and has it write what all of its goroutines were doing.
func (p *Process) Dump(grace time.Duration) {
	p.end(func(o *os.Process) error { return o.Signal(syscall.SIGQUIT) }, grace)
}

func (p *Process) end(ask func(*os.Process) error, grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	if p.paused && grace > 0 {
		_ = resume(p.cmd.Process)
	}
	_ = ask(p.cmd.Process) // one that has ended by itself
	if grace > 0 {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-p.ended:
		case <-timer.C:
			_ = p.cmd.Process.Kill()
		}
	}
	<-p.ended
	p.alive.Close()
	p.cmd = nil
}

// Pause stops the process without its notice, Resume lets it go on.
func (p *Process) Pause() error { return p.signal(pause, true) }

// Resume lets a paused process go on.
func (p *Process) Resume() error { return p.signal(resume, false) }

func (p *Process) signal(do func(*os.Process) error, paused bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	if err := do(p.cmd.Process); err != nil {
		return fmt.Errorf("pause or resume %s: %w", p.Command, err)
	}
	p.paused = paused
	return nil
}

// Ended is closed when the process that was started last has ended; nil before the first start.
func (p *Process) Ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}
