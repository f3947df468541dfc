package asuser

import (
	"io"
	"os"
	"os/exec"
	"time"

	"chandler/agent/execute"
)

// grace is how long a process has to end by itself when its input has, and then to die.
const grace = time.Second

// process is one of the user's.
type process struct {
	input  io.WriteCloser
	output io.ReadCloser
	kill   func() // when the input is closed; returns when it is gone, or hangs in the kernel
}

// start starts the program with what was prepared, and with nothing of the agent's: no environment, no files but two pipes.
func start(program []string, prepared execute.Prepared) (*process, error) {
	theirIn, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirIn.Close()
	output, theirOut, err := os.Pipe()
	if err != nil {
		input.Close()
		return nil, err
	}
	defer theirOut.Close()
	cmd := &exec.Cmd{Path: program[0], Args: program, Env: append([]string{}, prepared.Env...), Dir: rootDirectory(), Stdin: theirIn, Stdout: theirOut}
	if err := launch(cmd, prepared); err != nil {
		input.Close()
		output.Close()
		return nil, err
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		cmd.Wait() // how it ended means nothing
	}()
	return &process{input: input, output: output, kill: func() {
		select {
		case <-exited:
			return
		case <-time.After(grace):
		}
		cmd.Process.Kill()
		select {
		case <-exited:
		case <-time.After(grace):
		}
	}}, nil
}
