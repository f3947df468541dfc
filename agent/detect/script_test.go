package detect

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"chandler/events"
	"github.com/google/go-cmp/cmp"
)

func TestTheTruthTableOfScripts(t *testing.T) {
	tests := []struct {
		name        string
		out         Output
		state       State
		explanation string
	}{
		{"a failure claims nothing", Output{Code: 1}, Unknown, "exit code 1"},
		{"a failure claims nothing whatever it prints", Output{Code: 2, Stdout: "yes", Stderr: "oops"}, Unknown, "exit code 2: oops yes"},
		{"silence means not installed", Output{}, NotInstalled, "printed nothing"},
		{"only errors claim nothing", Output{Stderr: "cannot open\n"}, Unknown, "cannot open"},
		{"output means installed", Output{Stdout: "2.10\n"}, Installed, "2.10"},
		{"output means installed in spite of errors", Output{Stdout: "2.10", Stderr: "warning"}, Installed, "2.10"},
		{"an empty line is no output", Output{Stdout: "\r\n"}, NotInstalled, "printed nothing"},
		{"output is shown without control characters", Output{Stdout: "a\x1b[2Jb"}, Installed, "a\uFFFD[2Jb"},
		{"long output is shown in part", Output{Stdout: strings.Repeat("x", maxOutput)}, Installed, " …"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := judgeScript(tt.out)
			want(t, got, tt.state, tt.explanation)
			if len(got.Explanation) > 500 {
				t.Errorf("the explanation has %d bytes", len(got.Explanation))
			}
		})
	}
}

func TestShells(t *testing.T) {
	tests := []struct {
		name, shell, goos string
		argv              string // empty: refused
		text              string // of "a\nb"
	}{
		{"sh is the default on Linux", "", "linux", "sh", "a\nb"},
		{"and on macOS", "", "darwin", "sh", "a\nb"},
		{"powershell is the default on Windows", "", "windows", "powershell -NoProfile -NonInteractive -ExecutionPolicy Bypass -File", "\uFEFFa\r\nb"},
		{"cmd echoes nothing", "cmd", "windows", "cmd /d /q /c", "a\r\nb"},
		{"powershell is called pwsh elsewhere", "powershell", "linux", "pwsh -NoProfile -NonInteractive -File", "a\nb"},
		{"cmd is for Windows", "cmd", "linux", "", ""},
		{"sh is not for Windows", "sh", "windows", "", ""},
		{"an unknown shell is refused", "perl", "linux", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := shellOf(tt.shell, tt.goos)
			if (err == nil) != (tt.argv != "") {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(tt.argv, strings.Join(got.argv, " ")); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.text, got.encode("a\nb")); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRealScripts(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the scripts are for sh")
	}
	t.Setenv("CHANDLER_SECRET", "leaked")
	t.Setenv("NATS_CREDS", "leaked")
	t.Setenv("FOO", "inherited")
	tests := []struct {
		name, script string
		state        State
		explanation  string
	}{
		{"a script that prints is installed", "echo version 2", Installed, "version 2"},
		{"a silent one is not", "true", NotInstalled, "printed nothing"},
		{"a syntax error claims nothing", "if", Unknown, "exit code"},
		{"a script that begins with a dash is a script", "-x 2>/dev/null || echo ran", Installed, "ran"},
		{"a script that kills itself claims nothing", "kill -9 $$", Unknown, "killed"},
		{"a script gets no input", "cat; echo end", Installed, "end"},
		{"a script gets the configured environment", `echo "$FOO $BAR"`, Installed, "inherited configured"},
		{"a script does not get the agent's settings", `echo "$CHANDLER_SECRET$NATS_CREDS"`, NotInstalled, "printed nothing"},
		{"a script runs in a directory of its own", "ls", Installed, "script.sh"},
		{"output without end is bounded", "head -c 10000000 /dev/zero | tr '\\0' x", Installed, "xxx"},
		{"a script over the limit is not run", "#" + strings.Repeat("x", maxScript), Unknown, "bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d := newDetector(t, Options{Kinds: map[string]Kind{KindScript: Script{Run: Exec([]string{"BAR=configured"}), Dir: dir}}})
			want(t, d.Detect(t.Context(), []events.Detect{{Script: tt.script}}), tt.state, tt.explanation)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestAScriptThatIsStoppedIsKilledWithItsChildren(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the script is for sh")
	}
	dir := t.TempDir()
	fifo := filepath.Join(dir, "alive")
	mustRun(t, "mkfifo", fifo)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	dead := make(chan error, 1)
	go func() {
		f, err := os.Open(fifo) // returns when the child has opened its end
		stop()
		if err == nil {
			_, err = io.ReadAll(f) // returns when the child no longer holds it
			f.Close()
		}
		dead <- err
	}()
	d := newDetector(t, Options{Kinds: map[string]Kind{KindScript: Script{Run: Exec(nil), Dir: dir}}})
	want(t, d.Detect(ctx, []events.Detect{{Script: fmt.Sprintf("echo yes; sleep 600 3>%s & wait", fifo)}}), Unknown, "canceled")
	select {
	case err := <-dead:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the child is still alive")
	}
}

func TestAScriptThatHangsIsUnknown(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the script is for sh")
	}
	d := newDetector(t, Options{Timeout: 50 * time.Millisecond, Kinds: map[string]Kind{KindScript: Script{Run: Exec(nil), Dir: t.TempDir()}}})
	want(t, d.Detect(t.Context(), []events.Detect{{Script: "echo yes; sleep 600"}}), Unknown, "time limit")
}

func TestAChildThatKeepsTheOutputOpenDoesNotHangTheAgent(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the script is for sh")
	}
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	_, err := Exec(nil)(t.Context(), dir, "sh", "-c", "sleep 600 & echo $! > "+pidFile)
	if err == nil || !strings.Contains(err.Error(), "keeps its output open") {
		t.Errorf("got %v, want an error about the output", err)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, "kill", "-9", strings.TrimSpace(string(pid))) // only a time-out kills a script's children
}

func TestAMissingShellIsSaid(t *testing.T) {
	missing := func(context.Context, string, ...string) (Output, error) {
		return Output{}, fmt.Errorf("start pwsh: %w", exec.ErrNotFound)
	}
	shell := "powershell"
	want(t, Script{Run: missing, Dir: t.TempDir()}.Detect(t.Context(), events.Detect{Script: "x", Shell: shell}), Unknown, "is not on this machine")
}

func TestAScriptThatCannotBeKeptIsUnknown(t *testing.T) {
	run := answering(Output{Stdout: "yes"}, nil)
	want(t, Script{Run: run, Dir: filepath.Join(t.TempDir(), "gone")}.Detect(t.Context(), events.Detect{Script: "x"}), Unknown, "cannot be kept")
}
