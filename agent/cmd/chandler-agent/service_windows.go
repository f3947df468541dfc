package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/kardianos/service"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"

	"chandler/agent/enrol"
)

func serviceOptions() service.KeyValue {
	return service.KeyValue{service.StartType: service.ServiceStartAutomatic, service.OnFailure: service.OnFailureRestart, service.OnFailureDelayDuration: "5s"}
}

// redirect has the service, which is there, run another command, unless it does.
func (n native) redirect() (changed bool, err error) {
	manager, err := mgr.Connect()
	if err != nil {
		return false, err
	}
	defer manager.Disconnect()
	s, err := manager.OpenService(serviceName)
	if err != nil {
		return false, err
	}
	defer s.Close()
	there, err := commandOf(s.Handle)
	if err != nil || slices.Equal(there, n.command) {
		return false, err
	}
	line, err := windows.UTF16PtrFromString(windows.ComposeCommandLine(n.command))
	if err != nil {
		return false, err
	}
	const same = windows.SERVICE_NO_CHANGE
	return true, windows.ChangeServiceConfig(s.Handle, same, same, same, line, nil, nil, nil, nil, nil, nil)
}

// commandOf reads what a service runs; nil: what nobody can make out. The service's Config reads more, and fails where
// some of that is not supported.
func commandOf(service windows.Handle) ([]string, error) {
	var size uint32
	err := windows.QueryServiceConfig(service, nil, 0, &size)
	if !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) {
		return nil, fmt.Errorf("read its configuration: %w", err)
	}
	config := make([]windows.QUERY_SERVICE_CONFIG, 1+uintptr(size)/unsafe.Sizeof(windows.QUERY_SERVICE_CONFIG{})) // with its strings behind it
	if err := windows.QueryServiceConfig(service, &config[0], size, &size); err != nil {
		return nil, fmt.Errorf("read its configuration: %w", err)
	}
	command, err := windows.DecomposeCommandLine(windows.UTF16PtrToString(config[0].BinaryPathName))
	if err != nil {
		return nil, nil
	}
	return command, nil
}

// maxLog is how large the log may be when the service starts; then it becomes agent.log.old.
const maxLog = 16 << 20

// underManager runs the agent, as a service if the service control manager has started it: only then does the manager
// answer. A service has no standard error: it writes its log below the state directory.
func underManager(ctx context.Context, conf config, run func(context.Context, io.Writer) error) error {
	p := &program{ctx: ctx, stateDir: conf.StateDir, run: run}
	err := svc.Run(serviceName, p)
	if errors.Is(err, windows.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) {
		return run(ctx, os.Stderr)
	}
	if err != nil {
		return fmt.Errorf("speak with the service manager: %w", err)
	}
	return p.failure
}

func openLog(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "agent.log")
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// program is the agent as the service control manager sees it.
type program struct {
	ctx      context.Context
	stateDir string
	run      func(context.Context, io.Writer) error
	failure  error
}

// Execute runs the agent until the manager says stop.
func (p *program) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (specific bool, code uint32) {
	log, err := p.openLog()
	if err != nil {
		p.failure = err
		return true, 1
	}
	defer log.Close()
	ctx, stop := context.WithCancel(p.ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx, log) }()
	status <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
	for {
		select {
		case err := <-ended: // not asked to: a process that goes without a word is started again
			fmt.Fprintln(log, "chandler-agent:", err)
			os.Exit(1)
		case request := <-requests:
			switch request.Cmd {
			case svc.Interrogate:
				status <- request.CurrentStatus
			case svc.Stop, svc.Shutdown:
				status <- svc.Status{State: svc.StopPending}
				stop()
				<-ended
				return false, 0
			}
		}
	}
}

func (p *program) openLog() (*os.File, error) {
	if err := enrol.MakeDir(p.stateDir); err != nil {
		return nil, err
	}
	return openLog(filepath.Join(p.stateDir, "logs"))
}
