package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Run is one run of a program, found by its directory. Its methods may be called at once by many.
type Run struct {
	dir     string
	watch   sync.Once
	free    chan struct{} // closed when nobody holds the lock any more
	failure error         // of watching; read after free
}

// Start launches a supervisor for spec, by command and the directory as its last argument, in a session of its own. The
// directory is made (mode 0700) if need be. A directory whose program was never executed may be used again; one whose
// program was, or may be yet, gives ErrAlreadyStarted. Start returns when the supervisor process exists; that the program
// could not be started is an Outcome, not an error.
func Start(command []string, dir string, spec Spec) (*Run, error) {
	return startIn(makeGroup, command, dir, spec)
}

func startIn(makeGroup func() string, command []string, dir string, spec Spec) (*Run, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if n := spec.Net; n != nil && (n.Mount == dir || !isWithin(dir, n.Mount)) {
		return nil, fmt.Errorf("spec: mount point %q is not below the run's directory", n.Mount)
	}
	lock, err := claim(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	log, err := os.OpenFile(filepath.Join(dir, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	try := func(group string) (*exec.Cmd, error) {
		if err := writeRecord(dir, specFile, plan{Spec: spec, Group: group}); err != nil {
			return nil, err
		}
		return launch(group, spec.Logon, func() *exec.Cmd {
			cmd := exec.Command(command[0], append(command[1:len(command):len(command)], dir)...)
			// The program could read its parent's environment, so nothing of the agent's is in it.
			cmd.Env = []string{}
			cmd.Dir = filepath.VolumeName(dir) + string(filepath.Separator)
			cmd.Stdin, cmd.Stderr = lock, log
			return cmd
		})
	}
	group := makeGroup()
	cmd, err := try(group)
	if err != nil && group != "" { // an older kernel, or a sandbox that forbids clone3
		removeGroup(group)
		group = ""
		cmd, err = try(group)
	}
	if err != nil {
		return nil, fmt.Errorf("start supervisor %s: %w", command[0], err)
	}
	go func() { // only so that nothing of it stays: the lock tells when the run has ended
		cmd.Wait()
		removeGroup(group)
	}()
	return attach(dir), nil
}

// Conclude writes the outcome of a run that was found impossible before any supervisor was started, so that it is found
// again like any other. The spec need not be valid. It gives ErrAlreadyStarted as Start does.
func Conclude(dir string, spec Spec, outcome Outcome) (*Run, error) {
	lock, err := claim(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	outcome.Started = false
	if err := writeRecord(dir, specFile, plan{Spec: spec}); err != nil {
		return nil, fmt.Errorf("conclude %s: %w", dir, err)
	}
	if err := writeOutcome(dir, outcome); err != nil {
		return nil, fmt.Errorf("conclude %s: %w", dir, err)
	}
	return attach(dir), nil
}

// claim takes the lock of a directory whose program was never executed.
func claim(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := takeLock(dir)
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("%w: %s", ErrAlreadyStarted, dir)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range []string{outcomeFile, startedFile} {
		found, err := exists(dir, name)
		if err == nil && found {
			err = fmt.Errorf("%w: %s", ErrAlreadyStarted, dir)
		}
		if err != nil {
			lock.Close()
			return nil, err
		}
	}
	return lock, nil
}

// Attach finds a run again. A directory that does not exist is a run that was never started.
func Attach(dir string) (*Run, error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("attach to run %s: not a directory", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return attach(dir), nil
}

func attach(dir string) *Run { return &Run{dir: dir, free: make(chan struct{})} }

// OutputPath is the file that holds the captured output; while the program runs it grows up to its first half.
func (r *Run) OutputPath() string { return filepath.Join(r.dir, outputFile) }

// Spec returns what was given to Start or Conclude; an error that wraps fs.ErrNotExist when neither got that far.
func (r *Run) Spec() (Spec, error) {
	var p plan
	if err := readRecord(r.dir, specFile, &p); err != nil {
		return Spec{}, err
	}
	return p.Spec, nil
}

// Wait returns the outcome once there is one. ErrNotStarted: the program was never executed. ErrLost: it was, and what
// became of it is unknown; both name what the supervisor said last. When ctx ends first, the run goes on.
func (r *Run) Wait(ctx context.Context) (Outcome, error) {
	r.watch.Do(func() {
		go func() { // blocked in the kernel, not polling; it ends with the supervisor
			r.failure = waitUnlocked(filepath.Join(r.dir, lockFile))
			close(r.free)
		}()
	})
	select {
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	case <-r.free:
	}
	if r.failure != nil {
		return Outcome{}, fmt.Errorf("wait for run %s: %w", r.dir, r.failure)
	}
	return r.settled()
}

// settled reads what a run without a supervisor left.
func (r *Run) settled() (Outcome, error) {
	var outcome Outcome
	err := readRecord(r.dir, outcomeFile, &outcome)
	if err == nil {
		return outcome, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Outcome{}, fmt.Errorf("%w: %w", ErrLost, err)
	}
	started, err := exists(r.dir, startedFile)
	if err != nil {
		return Outcome{}, fmt.Errorf("%w: %w", ErrLost, err)
	}
	if started {
		return Outcome{}, fmt.Errorf("%w: %s%s", ErrLost, r.dir, r.lastWords())
	}
	return Outcome{}, fmt.Errorf("%w: %s%s", ErrNotStarted, r.dir, r.lastWords())
}

// lastWords is the end of the supervisor's log as a suffix of an error text.
func (r *Run) lastWords() string {
	file, err := os.Open(filepath.Join(r.dir, logFile))
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > maxErrorText {
		file.Seek(-maxErrorText, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(file, maxErrorText))
	if text := strings.TrimSpace(strings.ToValidUTF8(string(data), "?")); text != "" {
		return ": " + text
	}
	return ""
}

// State says how far the run is. What it cannot read it calls Lost: never NotStarted, which would permit a second start.
func (r *Run) State() State {
	if ended, err := exists(r.dir, outcomeFile); err == nil && ended {
		return Ended
	}
	if err := testLock(filepath.Join(r.dir, lockFile)); errors.Is(err, errLocked) {
		return Running
	} else if err != nil {
		return Lost
	}
	switch _, err := r.settled(); { // again: the outcome may have been written just before the lock was freed
	case err == nil:
		return Ended
	case errors.Is(err, ErrNotStarted):
		return NotStarted
	}
	return Lost
}

// Supervisor is the live process that watches over the program, which lending needs to know; an error where none does.
func (r *Run) Supervisor() (pid int, err error) {
	if err := testLock(filepath.Join(r.dir, lockFile)); !errors.Is(err, errLocked) {
		return 0, errors.Join(fmt.Errorf("nobody watches over run %s", r.dir), err)
	}
	var began start
	if err := readRecord(r.dir, startedFile, &began); err != nil {
		return 0, err
	}
	identity, err := processStart(began.SupervisorPID)
	if err != nil {
		return 0, err
	}
	if identity != began.SupervisorStart {
		return 0, fmt.Errorf("process %d is not the one that watched over run %s", began.SupervisorPID, r.dir)
	}
	return began.SupervisorPID, nil
}

// InUse says whether the supervisor or the program itself is still alive, so that the directory must stay: also after an
// outcome that says StillRunning. What cannot be found out counts as in use.
func (r *Run) InUse() bool {
	if errors.Is(testLock(filepath.Join(r.dir, lockFile)), errLocked) {
		return true
	}
	var program process
	err := readRecord(r.dir, processFile, &program)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		return true
	}
	identity, err := processStart(program.PID)
	return err == nil && identity == program.Start
}

// Kill asks for the death of the whole process tree: of the supervisor if it lives (Wait then gives the outcome), else by
// what it recorded. A run that has not started yet will not. What a program that ended by itself left behind is spared.
// Without a supervisor and a group, processes that left the program's own group cannot be found any more.
func (r *Run) Kill() error {
	if err := writeSynced(r.dir, killFile, nil); err != nil {
		return fmt.Errorf("kill run %s: %w", r.dir, err)
	}
	var outcome Outcome
	err := readRecord(r.dir, outcomeFile, &outcome)
	if err == nil && !outcome.StillRunning {
		return nil
	}
	if err != nil && errors.Is(testLock(filepath.Join(r.dir, lockFile)), errLocked) {
		return nil
	}
	var began start
	if err := readRecord(r.dir, startedFile, &began); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("kill run %s: %w", r.dir, err)
	}
	var program process
	if err := readRecord(r.dir, processFile, &program); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill run %s: %w", r.dir, err)
	}
	if err := killRecorded(began.Group, program); err != nil {
		return fmt.Errorf("kill run %s: %w", r.dir, err)
	}
	return nil
}
