package execute

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
)

func TestAProgramIsFoundInTheContentFirstAndThenOnThePath(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the names are unix ones")
	}
	content, bin, sbin := supervisetest.TempDir(t), supervisetest.TempDir(t), supervisetest.TempDir(t)
	for path, mode := range map[string]os.FileMode{
		filepath.Join(content, "setup"): 0o755, filepath.Join(bin, "setup"): 0o755,
		filepath.Join(content, "data"): 0o644, filepath.Join(bin, "data"): 0o755,
		filepath.Join(bin, "tool"): 0o644, filepath.Join(sbin, "tool"): 0o755,
		filepath.Join(content, "sub", "run"): 0o755,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(content, "tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=relative:" + bin + ":" + sbin}
	for _, test := range []struct{ name, program, want string }{
		{"a file of the content goes before the path", "setup", filepath.Join(content, "setup")},
		{"also one that cannot be executed", "data", filepath.Join(content, "data")},
		{"a directory of the content does not, nor what is not executable", "tool", filepath.Join(sbin, "tool")},
		{"a path is in the content", "sub/run", filepath.Join(content, "sub", "run")},
		{"also with a dot", "./setup", filepath.Join(content, "setup")},
		{"an absolute path is itself", "/no/such", "/no/such"},
		{"a path out of the content is refused", "../x", ""},
		{"a path does not come from the path", "bin/tool", ""},
		{"a name found nowhere is refused", "nothing", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := find(test.program, content, env)
			var refused *refusal
			if got != test.want || (test.want == "") != errors.As(err, &refused) {
				t.Errorf("%q, %v, want %q", got, err, test.want)
			}
			if refused != nil && refused.kind != supervise.NotFound {
				t.Errorf("kind %s", refused.kind)
			}
		})
	}
}

func TestAShellIsExplicitAndNotFromTheContent(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the names are unix ones")
	}
	content, bin := supervisetest.TempDir(t), supervisetest.TempDir(t)
	for _, path := range []string{filepath.Join(content, "pwsh"), filepath.Join(bin, "pwsh")} {
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=" + bin}
	argv, line, err := Command{Line: `echo "$A" | cat`, Shell: Sh}.resolve(content, env)
	if diff := cmp.Diff([]string{"/bin/sh", "-c", `echo "$A" | cat`}, argv); diff != "" || line != "" || err != nil {
		t.Errorf("sh: %v; %s", err, diff)
	}
	argv, _, err = Command{Line: "é\"", Shell: PowerShell}.resolve(content, env)
	if err != nil || argv[0] != filepath.Join(bin, "pwsh") || argv[len(argv)-1] != "6QAiAA==" {
		t.Errorf("powershell: %q, %v", argv, err)
	}
	var refused *refusal
	if _, _, err = (Command{Line: "dir", Shell: Cmd}).resolve(content, env); !errors.As(err, &refused) {
		t.Errorf("cmd: %v", err)
	}
}

func TestACommandIsValidated(t *testing.T) {
	for _, test := range []struct {
		name    string
		command Command
		ok      bool
	}{
		{"a list", Command{Argv: []string{"a", ""}}, true},
		{"a string", Command{Line: "a b"}, true},
		{"a script", Command{Line: "if", Shell: Sh}, true},
		{"nothing", Command{}, false},
		{"blanks", Command{Line: " "}, false},
		{"blanks as script", Command{Line: " ", Shell: Sh}, false},
		{"a list and a string", Command{Argv: []string{"a"}, Line: "b"}, false},
		{"a list for a shell", Command{Argv: []string{"a"}, Shell: Sh}, false},
		{"an unnamed program", Command{Argv: []string{""}}, false},
		{"an unnamed program in a string", Command{Line: `"" a`}, false},
		{"an open quote", Command{Line: `"a`}, false},
		{"an unknown shell", Command{Line: "a", Shell: "fish"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.command.Validate(); (err == nil) != test.ok {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestTheMeaningOfAnExitCode(t *testing.T) {
	own := merged(map[int]Meaning{1618: Failure, 5: Success, 2147942405: Retry, -1: Success})
	for _, test := range []struct {
		name    string
		outcome supervise.Outcome
		want    Meaning
	}{
		{"0 is success", supervise.Outcome{Started: true}, Success},
		{"3010 asks for a restart", supervise.Outcome{Started: true, ExitCode: 3010}, SoftReboot},
		{"3011 too", supervise.Outcome{Started: true, ExitCode: 3011}, SoftReboot},
		{"1641 restarts", supervise.Outcome{Started: true, ExitCode: 1641}, HardReboot},
		{"1707 is success", supervise.Outcome{Started: true, ExitCode: 1707}, Success},
		{"what is in no table is failure", supervise.Outcome{Started: true, ExitCode: 1603}, Failure},
		{"the program's table goes before ours", supervise.Outcome{Started: true, ExitCode: 1618}, Failure},
		{"and adds to it", supervise.Outcome{Started: true, ExitCode: 5}, Success},
		{"a code may be written unsigned", supervise.Outcome{Started: true, ExitCode: -2147024891}, Retry},
		{"a signal is failure", supervise.Outcome{Started: true, ExitCode: -1, Signal: "SIGSEGV"}, Failure},
		{"a kill is failure", supervise.Outcome{Started: true, Killed: true}, Failure},
		{"still running is failure", supervise.Outcome{Started: true, StillRunning: true}, Failure},
		{"not started is failure", supervise.Outcome{}, Failure},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := meaningOf(test.outcome, own); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	if got := DefaultReturnCodes()[1618]; got != Retry {
		t.Errorf("1618 by default is %s", got)
	}
}
