package execute

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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
	argv, line, err := Command{Line: `echo "$A" | cat`, Shell: Sh}.resolve(content, "", env)
	if diff := cmp.Diff([]string{"/bin/sh", "-c", `echo "$A" | cat`}, argv); diff != "" || line != "" || err != nil {
		t.Errorf("sh: %v; %s", err, diff)
	}
	argv, _, err = Command{Line: "é\"", Shell: PowerShell}.resolve(content, "", env)
	if err != nil || argv[0] != filepath.Join(bin, "pwsh") || argv[len(argv)-1] != "6QAiAA==" {
		t.Errorf("powershell: %q, %v", argv, err)
	}
	var refused *refusal
	if _, _, err = (Command{Line: "dir", Shell: Cmd}).resolve(content, "", env); !errors.As(err, &refused) {
		t.Errorf("cmd: %v", err)
	}
}

func TestAnArgumentIsReplacedByThePathOfTheLog(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the names are unix ones")
	}
	content := supervisetest.TempDir(t)
	program := filepath.Join(content, "setup")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	want := []string{program, "/l*v", "/run/the log", "x%CHANDLER_LOG%", "%chandler_log%", "/run/the log"}
	given := []string{"setup", "/l*v", LogPlaceholder, "x" + LogPlaceholder, "%chandler_log%", LogPlaceholder}
	argv, _, err := Command{Argv: given}.resolve(content, "/run/the log", nil)
	if diff := cmp.Diff(want, argv); diff != "" || err != nil {
		t.Errorf("a list: %v; %s", err, diff)
	}
	if given[2] != LogPlaceholder {
		t.Error("the caller's list was changed")
	}
	argv, _, err = Command{Line: `setup /l*v %CHANDLER_LOG% x%CHANDLER_LOG% %chandler_log% "%CHANDLER_LOG%"`}.resolve(content, "/run/the log", nil)
	if diff := cmp.Diff(want, argv); diff != "" || err != nil {
		t.Errorf("a line: %v; %s", err, diff)
	}
	argv, _, err = Command{Line: "echo %CHANDLER_LOG%", Shell: Sh}.resolve(content, "/run/the log", nil)
	if err != nil || argv[2] != "echo %CHANDLER_LOG%" {
		t.Errorf("a script: %q, %v", argv, err)
	}
}

func TestAnArgumentOfAWindowsLineIsReplacedAndNothingElse(t *testing.T) {
	const path = `C:\Program Data\run\program.log`
	for _, test := range []struct{ name, line, want string }{
		{"a word", `"C:\msiexec.exe"  /i a.msi /l*v %CHANDLER_LOG%  P="a b" `, `"C:\msiexec.exe"  /i a.msi /l*v "` + path + `"  P="a b" `},
		{"a word in quotes", `p "%CHANDLER_LOG%" x`, `p "` + path + `" x`},
		{"part of a word", `p "/log %CHANDLER_LOG%" X=%CHANDLER_LOG% %CHANDLER_LOG%.txt`, `p "/log %CHANDLER_LOG%" X=%CHANDLER_LOG% %CHANDLER_LOG%.txt`},
		{"the program itself", `%CHANDLER_LOG% x`, `%CHANDLER_LOG% x`},
		{"no line", "", ""},
	} {
		if got := replaceArgument(test.line, LogPlaceholder, path); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// FuzzReplaceArgument shows that a line whose placeholder is replaced is split into the same words but for that one.
func FuzzReplaceArgument(f *testing.F) {
	f.Add(`msiexec /i "a b.msi" /l*v %CHANDLER_LOG% P="x \"y\""`)
	f.Add(`"p" "%CHANDLER_LOG%"`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWindows(line)
		if err != nil {
			return
		}
		const path = `C:\a dir\b`
		for i := range words {
			if i > 0 && words[i] == LogPlaceholder {
				words[i] = path
			}
		}
		replaced := replaceArgument(strings.TrimLeft(line, windowsBlanks), LogPlaceholder, path)
		if len(replaced) > maxLine {
			return
		}
		got, err := splitWindows(replaced)
		if diff := cmp.Diff(words, got); diff != "" || err != nil {
			t.Errorf("%q became %q: %v; %s", line, replaced, err, diff)
		}
	})
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
