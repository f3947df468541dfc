package supervise

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// exit code of what the job object kills
const killedCode = 1

// tree is a job object without limits: it is only there to be terminated, and its processes outlive its handle.
type tree struct{ job windows.Handle }

func makeGroup() string  { return "" }
func removeGroup(string) {}
func closeGroup(string)  {}

func newTree(string) (*tree, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("create job object: %w", err)
	}
	return &tree{job: job}, nil
}

func (t *tree) groupName() string { return "" }

// start creates the program suspended, so that nothing of it escapes the job before it is assigned.
func (t *tree) start(cmd *exec.Cmd, spec Spec) error {
	if spec.Credential != nil {
		return errors.New("a unix credential on Windows")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		CmdLine:       spec.CommandLine,
		CreationFlags: windows.CREATE_SUSPENDED | windows.CREATE_NO_WINDOW | windows.CREATE_NEW_PROCESS_GROUP,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var failed error
	err := cmd.Process.WithHandle(func(handle uintptr) {
		failed = windows.AssignProcessToJobObject(t.job, windows.Handle(handle))
	})
	if err = errors.Join(err, failed); err == nil {
		err = resume(uint32(cmd.Process.Pid))
	}
	if err != nil { // it has not run an instruction yet
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("put program in its job object: %w", err)
	}
	return nil
}

func resume(pid uint32) error {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPTHREAD, 0)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(snapshot)
	thread := windows.ThreadEntry32{Size: uint32(unsafe.Sizeof(windows.ThreadEntry32{}))}
	for err = windows.Thread32First(snapshot, &thread); err == nil; err = windows.Thread32Next(snapshot, &thread) {
		if thread.OwnerProcessID != pid {
			continue
		}
		handle, err := windows.OpenThread(windows.THREAD_SUSPEND_RESUME, false, thread.ThreadID)
		if err != nil {
			return err
		}
		_, err = windows.ResumeThread(handle)
		windows.CloseHandle(handle)
		return err // a suspended process has this one thread
	}
	return fmt.Errorf("find thread of process %d: %w", pid, err)
}

func (t *tree) kill() error { return windows.TerminateJobObject(t.job, killedCode) }

// killRecorded terminates the program and its descendants, after a check that the process id was not given to another.
// The job object cannot be found again without the supervisor.
func killRecorded(_ string, program process) error {
	if identity, err := processStart(program.PID); err != nil || identity != program.Start {
		return nil
	}
	below, err := descendants(uint32(program.PID))
	if err != nil {
		return err
	}
	for _, pid := range append(below, uint32(program.PID)) {
		err = errors.Join(err, terminate(pid))
	}
	return err
}

func terminate(pid uint32) error {
	handle, err := windows.OpenProcess(windows.PROCESS_TERMINATE, false, pid)
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
		return nil // it has ended
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer windows.CloseHandle(handle)
	return windows.TerminateProcess(handle, killedCode)
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

// launch starts the supervisor without a console and, where the agent's own job object allows it, outside that job.
func launch(_ string, command func() *exec.Cmd) (*exec.Cmd, error) {
	const flags = windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP
	cmd := command()
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: flags | windows.CREATE_BREAKAWAY_FROM_JOB}
	err := cmd.Start()
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		cmd = command()
		cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: flags}
		err = cmd.Start()
	}
	return cmd, err
}
