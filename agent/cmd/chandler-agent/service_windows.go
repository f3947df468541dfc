package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kardianos/service"

	"chandler/agent/enrol"
)

func serviceOptions() service.KeyValue {
	return service.KeyValue{service.StartType: service.ServiceStartAutomatic, service.OnFailure: service.OnFailureRestart, service.OnFailureDelayDuration: "5s"}
}

// maxLog is how large the log may be when the service starts; then it becomes agent.log.old.
const maxLog = 16 << 20

// underManager runs the agent, as a service if the service control manager has started it. A service has no
// standard error: it writes its log below the state directory.
func underManager(ctx context.Context, conf config, run func(context.Context, io.Writer) error) error {
	if service.Interactive() {
		return run(ctx, os.Stderr)
	}
	if err := enrol.MakeDir(conf.StateDir); err != nil {
		return err
	}
	log, err := openLog(filepath.Join(conf.StateDir, "logs"))
	if err != nil {
		return err
	}
	defer log.Close()
	s, err := service.New(&program{ctx: ctx, log: log, run: run, done: make(chan struct{})}, &service.Config{Name: serviceName})
	if err != nil {
		return fmt.Errorf("speak with the service manager: %w", err)
	}
	return s.Run()
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
	ctx  context.Context
	log  io.Writer
	run  func(context.Context, io.Writer) error
	stop context.CancelFunc
	done chan struct{}
}

func (p *program) Start(service.Service) error {
	ctx, stop := context.WithCancel(p.ctx)
	p.stop = stop
	go func() {
		err := p.run(ctx, p.log)
		if ctx.Err() == nil { // not asked to end: a process that goes without a word is started again
			fmt.Fprintln(p.log, "chandler-agent:", err)
			os.Exit(1)
		}
		close(p.done)
	}()
	return nil
}

func (p *program) Stop(service.Service) error {
	p.stop()
	<-p.done
	return nil
}
