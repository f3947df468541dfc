package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

const (
	killedCode = 1   // exit code of what is killed
	killRounds = 100 // of looking for descendants
)

// tree is a job object without limits: it is only there to be terminated, and its processes outlive its handle.
type tree struct {
	job     windows.Handle
	machine machine
	program uint32 // process id of a program that the job did not take; 0: it did
}

func makeGroup() string  { return "" }
func removeGroup(string) {}
func closeGroup(string)  {}

func newTree(string) (*tree, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("create job object: %w", err)
	}
	return &tree{job: job, machine: windowsItself{}}, nil
}

func (t *tree) groupName() string { return "" }

// start creates the program suspended, so that nothing of it escapes the job before it is assigned.
func (t *tree) start(cmd *exec.Cmd, spec Spec, _ func() error) error {
	if spec.Credential != nil {
		return errors.New("a unix credential on Windows")
	}
	token, err := t.token(spec.Logon)
	if err != nil {
		return &logonError{err}
	}
	if token != 0 {
		defer token.Close()
	}
	created, err := t.machine.Create(creationOf(cmd, spec, token))
	if err != nil {
		return &fs.PathError{Op: "start", Path: cmd.Path, Err: err}
	}
	defer windows.CloseHandle(created.Process)
	defer windows.CloseHandle(created.Thread)
	if err := t.admit(cmd, spec.Logon, created); err != nil { // it has not run an instruction yet
		return errors.Join(fmt.Errorf("put program in its job object: %w", err), windows.TerminateProcess(created.Process, killedCode))
	}
	return nil
}

// token is that of the program; 0: this process's own.
func (t *tree) token(logon *Logon) (windows.Token, error) {
	switch {
	case logon == nil:
		return 0, nil
	case logon.Token == 0:
		token, err := t.machine.UserToken(logon.Session)
		if err != nil {
			return 0, fmt.Errorf("user of session %d: %w", logon.Session, err)
		}
		return token, nil
	}
	token := windows.Token(logon.Token)
	if err := windows.SetHandleInformation(windows.Handle(token), windows.HANDLE_FLAG_INHERIT, 0); err != nil {
		return 0, fmt.Errorf("inherited token: %w", err)
	}
	var kind, size uint32
	err := windows.GetTokenInformation(token, windows.TokenType, (*byte)(unsafe.Pointer(&kind)), uint32(unsafe.Sizeof(kind)), &size)
	if err != nil || kind != windows.TokenPrimary {
		return 0, errors.Join(errors.New("what was inherited is not a primary token"), err)
	}
	return token, nil
}

// admit assigns the new process to the job and lets it run. A job takes only processes of the session that it was made
// in, so that of a user may have to be killed by descent.
func (t *tree) admit(cmd *exec.Cmd, logon *Logon, created windows.ProcessInformation) error {
	err := t.machine.Assign(t.job, created.Process)
	if logon != nil && errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		t.program, err = created.ProcessId, nil
	}
	if err != nil {
		return err
	}
	if cmd.Process, err = os.FindProcess(int(created.ProcessId)); err != nil { // the id is not another's while we have a handle
		return err
	}
	_, err = windows.ResumeThread(created.Thread)
	return err
}

func (t *tree) kill() error {
	if t.program != 0 {
		return killFamily(t.program)
	}
	return windows.TerminateJobObject(t.job, killedCode)
}

// killRecorded terminates the program and its descendants, after a check that the process id was not given to another.
// The job object cannot be found again without the supervisor.
func killRecorded(_ string, program process) error {
	if identity, err := processStart(program.PID); err != nil || identity != program.Start {
		return nil
	}
	return killFamily(uint32(program.PID))
}

// killFamily terminates a process and its descendants. It looks again until it meets nobody new, because a process may
// start another between being listed and being terminated.
func killFamily(program uint32) error {
	met := map[uint32]bool{}
	for range killRounds {
		below, err := descendants(program)
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range append(below, program) {
			if !met[pid] {
				met[pid], fresh = true, true
				err = errors.Join(err, terminate(pid))
			}
		}
		if !fresh || err != nil {
			return err
		}
	}
	return fmt.Errorf("process %d starts others faster than they are killed", program)
}

func terminate(pid uint32) error {
	handle, err := windows.OpenProcess(windows.PROCESS_TERMINATE|windows.SYNCHRONIZE, false, pid)
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
		return nil // it has ended
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer windows.CloseHandle(handle)
	err = windows.TerminateProcess(handle, killedCode)
	if event, _ := windows.WaitForSingleObject(handle, 0); event == windows.WAIT_OBJECT_0 {
		return nil // what has ended already cannot be terminated
	}
	return err
}

// descendants lists the processes below root, leaving out a "child" that is older than its parent: Windows keeps the id
// of a parent that has ended, and gives that id to others.
func descendants(root uint32) ([]uint32, error) {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer windows.CloseHandle(snapshot)
	children := map[uint32][]uint32{}
	one := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(snapshot, &one); err == nil; err = windows.Process32Next(snapshot, &one) {
		children[one.ParentProcessID] = append(children[one.ParentProcessID], one.ProcessID)
	}
	var found []uint32
	seen := map[uint32]bool{root: true}
	for next := []uint32{root}; len(next) > 0; {
		parent := next[0]
		next = next[1:]
		began, err := created(parent)
		if err != nil {
			continue
		}
		for _, child := range children[parent] {
			if at, err := created(child); err == nil && at >= began && !seen[child] {
				seen[child] = true
				found, next = append(found, child), append(next, child)
			}
		}
	}
	return found, nil
}

// processStart is the creation time.
func processStart(pid int) (string, error) {
	at, err := created(uint32(pid))
	return strconv.FormatInt(at, 10), err
}

// created is in nanoseconds since 1970.
func created(pid uint32) (int64, error) {
	handle, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer windows.CloseHandle(handle)
	var creation, exit, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(handle, &creation, &exit, &kernel, &user); err != nil {
		return 0, err
	}
	return creation.Nanoseconds(), nil
}

// launch starts the supervisor without a console and, where the agent's own job object allows it, outside that job. It
// inherits the token of the logon.
func launch(_ string, logon *Logon, command func() *exec.Cmd) (*exec.Cmd, error) {
	const flags = windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP
	var inherited []syscall.Handle
	if logon != nil && logon.Token != 0 {
		token := windows.Handle(logon.Token)
		if err := windows.SetHandleInformation(token, windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT); err != nil {
			return nil, fmt.Errorf("let the token be inherited: %w", err)
		}
		defer windows.SetHandleInformation(token, windows.HANDLE_FLAG_INHERIT, 0)
		inherited = []syscall.Handle{syscall.Handle(token)}
	}
	cmd := command()
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: flags | windows.CREATE_BREAKAWAY_FROM_JOB, AdditionalInheritedHandles: inherited}
	err := cmd.Start()
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		cmd = command()
		cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: flags, AdditionalInheritedHandles: inherited}
		err = cmd.Start()
	}
	return cmd, err
}
