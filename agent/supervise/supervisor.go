package supervise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"chandler/agent/netfs"
)

const (
	killPoll    = 200 * time.Millisecond // how often the files "kill" and "withdrawn" are looked for
	outputGrace = 500 * time.Millisecond // for what is still in the pipe when the program has ended
	killGrace   = 30 * time.Second       // for a killed program to be gone
)

// Main is the whole supervisor process; sources are those of programs' references, and may be nil. It returns when nothing is left to do: with nil if an outcome was written. The
// directory is one that Start prepared; standard input is its lock.
func Main(dir string, sources Sources) error {
	// Caught and dropped rather than ignored: an ignored signal would stay ignored in the program.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)

	lock, err := inheritedLock(dir)
	if err != nil {
		return err
	}
	s := &supervisor{dir: dir, sources: sources, withdrawn: withdrawals{dir: dir}}
	if err := s.run(); err != nil {
		return err
	}
	if err := lock.Close(); err != nil {
		return err
	}
	s.drain(signals)
	return nil
}

// supervisor is the state of Main.
type supervisor struct {
	dir       string
	sources   Sources
	plan      plan
	tree      *tree
	net       *netfs.FS // nil: the program has no references
	withdrawn withdrawals
	cmd       *exec.Cmd
	exited    chan struct{} // closed when cmd.ProcessState is there
	output    *recorder
	drawn     chan struct{} // closed when every holder of the output pipe has gone
}

// run returns nil once an outcome is on the disk.
func (s *supervisor) run() error {
	if found, err := exists(s.dir, startedFile); err != nil || found {
		return errors.Join(err, fmt.Errorf("%w: %s", ErrAlreadyStarted, s.dir))
	}
	if err := readRecord(s.dir, specFile, &s.plan); err != nil {
		return err
	}
	if err := s.plan.Validate(); err != nil {
		return err
	}
	if err := reserveOutcome(s.dir); err != nil {
		return err
	}
	if s.killRequested() {
		return writeOutcome(s.dir, Outcome{Killed: true, ExitCode: -1, Error: "stopped before it was started"})
	}
	if kind, err := refuse(s.plan.Spec); err != nil {
		return writeOutcome(s.dir, Outcome{ExitCode: -1, ErrorKind: kind, Error: err.Error()})
	}
	var err error
	if s.tree, err = newTree(s.plan.Group); err != nil {
		return err
	}
	if s.plan.Net != nil {
		if err := s.mountNet(); err != nil {
			return writeOutcome(s.dir, Outcome{ExitCode: -1, ErrorKind: NoNetworkMount, Error: err.Error()})
		}
	}
	outcome, err := s.launch()
	if !outcome.Started {
		s.closeNet()
	}
	if err != nil {
		return err
	}
	if outcome.Started {
		s.watch(&outcome)
	}
	return writeOutcome(s.dir, outcome)
}

// launch executes the program. An error means that nothing was executed and no outcome is due.
func (s *supervisor) launch() (Outcome, error) {
	file, err := os.OpenFile(filepath.Join(s.dir, outputFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return Outcome{}, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return Outcome{}, err
	}
	s.output = newRecorder(file, s.plan.OutputLimit)
	s.cmd = &exec.Cmd{
		Path: s.plan.Argv[0], Args: s.plan.Argv, Dir: s.plan.Dir,
		Env:    append([]string{}, s.plan.Env...), // nil would be the supervisor's own environment
		Stdout: write, Stderr: write,
	}
	own, err := processStart(os.Getpid())
	if err != nil {
		return Outcome{}, err
	}
	began := start{SupervisorPID: os.Getpid(), SupervisorStart: own, Group: s.tree.groupName(), At: time.Now()}
	if err := writeRecord(s.dir, startedFile, began); err != nil {
		return Outcome{}, err
	}
	err = s.startProgram()
	write.Close()
	if err != nil {
		read.Close()
		return Outcome{ExitCode: -1, ErrorKind: errorKind(err), Error: err.Error()}, nil
	}
	outcome := Outcome{Started: true, PID: s.cmd.Process.Pid, StartedAt: time.Now()}
	s.exited, s.drawn = make(chan struct{}), make(chan struct{})
	go func() {
		io.Copy(s.output, read)
		close(s.drawn)
	}()
	identity, err := processStart(outcome.PID)
	go func() {
		s.cmd.Wait()
		close(s.exited)
	}()
	if err == nil {
		err = writeRecord(s.dir, processFile, process{PID: outcome.PID, Start: identity})
	}
	if err != nil { // only Kill without a supervisor needs it
		fmt.Fprintf(os.Stderr, "record process %d: %v\n", outcome.PID, err)
	}
	return outcome, nil
}

// watch waits for the end of the program, its time or a kill, and completes the outcome.
func (s *supervisor) watch(outcome *Outcome) {
	var limit <-chan time.Time
	if s.plan.MaxRunTime > 0 {
		limit = time.After(s.plan.MaxRunTime)
	}
	tick := time.NewTicker(killPoll)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-s.exited:
			done = true
		case <-limit:
			done = true
			if outcome.TimedOut = !s.ended(); outcome.TimedOut && s.plan.OnTimeout != StopMonitoring {
				s.kill(outcome)
			}
		case <-tick.C:
			s.endLeases()
			if s.killRequested() && !s.ended() {
				s.kill(outcome)
				done = true
			}
		}
	}
	outcome.EndedAt, outcome.ExitCode = time.Now(), -1
	if s.ended() {
		s.closeNet()
		outcome.ExitCode, outcome.Signal = exitStatus(s.cmd.ProcessState)
		s.awaitOutput()
	} else {
		outcome.StillRunning = true
	}
	outcome.OutputBytes, outcome.OutputDropped = s.output.finish()
}

// ended goes before time and kill: what a program that ended by itself left behind is not killed.
func (s *supervisor) ended() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

func (s *supervisor) kill(outcome *Outcome) {
	outcome.Killed = true
	freed := make(chan struct{})
	go func() { // meanwhile: who waits for a file could not die before it is answered
		s.closeNet()
		close(freed)
	}()
	if err := s.tree.kill(); err != nil {
		outcome.Error = err.Error()
	}
	<-freed
	select {
	case <-s.exited:
	case <-time.After(killGrace):
	}
}

// awaitOutput lets the recorder take what the program wrote last, without waiting for a daemon that holds the pipe.
func (s *supervisor) awaitOutput() {
	select {
	case <-s.drawn:
	case <-time.After(outputGrace):
	}
}

func (s *supervisor) killRequested() bool {
	found, err := exists(s.dir, killFile)
	return err == nil && found
}

// drain reads on, keeping nothing, while anybody holds the output, until a service manager ends it.
func (s *supervisor) drain(signals <-chan os.Signal) {
	defer closeGroup(s.plan.Group)
	if s.drawn == nil {
		return
	}
	os.Stderr.Close() // Windows would not let the directory be removed
	select {
	case <-signals: // one from before
	default:
	}
	for _, gone := range []<-chan struct{}{s.exited, s.drawn} {
		select {
		case <-gone:
			s.closeNet()
		case <-signals:
			return
		}
	}
}
