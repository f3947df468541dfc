package runnertest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"chandler/agent/execute"
	"chandler/agent/supervise/supervisetest"
)

// openCopy copies the test's own binary to where every user may execute it.
func openCopy(t *testing.T, base string) string {
	t.Helper()
	own := supervisetest.Program("exit")[0]
	from, err := os.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(openDirectory(t, base), filepath.Base(own))
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close(), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

func openDirectory(t *testing.T, base string) string {
	t.Helper()
	dir, err := os.MkdirTemp(base, "runnertest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// bench is one test's.
type bench struct {
	*testing.T
	executor   *execute.Executor
	options    Options
	executable string // the test's binary as programs can execute it; "" as it is
}

// directory is one that the program may read.
func (b *bench) directory() string {
	b.Helper()
	if b.options.Base == "" {
		return supervisetest.TempDir(b)
	}
	return openDirectory(b.T, b.options.Base)
}

// open makes the argv of a test program executable for the user that runs it.
func (b *bench) open(argv []string) []string {
	if b.executable != "" {
		argv[0] = b.executable
	}
	return argv
}

func (b *bench) program(mode string, args ...string) []string {
	return b.open(supervisetest.Program(mode, args...))
}

func (b *bench) request(argv []string) execute.Request {
	b.Helper()
	req := execute.Request{
		Job: "job1", Attempt: 1, As: underTest, Dir: filepath.Join(b.directory(), "run"), ContentDir: b.directory(),
		Command: execute.Command{Argv: argv},
	}
	if b.options.Complete != nil {
		b.options.Complete(&req)
	}
	return req
}

func (b *bench) start(req execute.Request) *execute.Execution {
	b.Helper()
	execution, err := b.executor.Start(b.Context(), req)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { // the directory goes next: nothing may write there any more
		ctx, cancel := context.WithTimeout(context.Background(), supervisetest.Patience)
		defer cancel()
		if err := execution.Kill(); err != nil {
			b.Error(err)
		}
		if _, err := execution.Wait(ctx); err != nil {
			b.Error(err)
		}
	})
	return execution
}

func (b *bench) wait(execution *execute.Execution) execute.Result {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), supervisetest.Patience)
	defer cancel()
	result, err := execution.Wait(ctx)
	if err != nil {
		b.Fatal(err)
	}
	return result
}

func (b *bench) run(req execute.Request) execute.Result {
	b.Helper()
	return b.wait(b.start(req))
}

func (b *bench) describe(req execute.Request) (supervisetest.Description, execute.Result) {
	b.Helper()
	result := b.run(req)
	output, err := os.ReadFile(result.OutputPath)
	if err != nil {
		b.Fatalf("%v after %+v", err, result)
	}
	var d supervisetest.Description
	if err := json.Unmarshal(output, &d); err != nil {
		b.Fatalf("%v in %q", err, output)
	}
	return d, result
}
