package detect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"chandler/events"
)

// Script detects by what a script prints, by the original's rule (domain facts, section 5):
//
//	exit code not 0                           Unknown
//	0, standard output and error both empty   NotInstalled
//	0, only standard error not empty          Unknown
//	0, standard output not empty              Installed
//
// A time-out, a signal and a script that cannot be started are Unknown too.
// Output of nothing but white space counts as empty: a line ending printed by
// the way must not pass for a product. The script runs with the agent's rights, as
// a file in a new directory below Dir that is its working directory and is
// removed afterwards.
type Script struct {
	Run Run
	Dir string // for the files, writable by the agent alone; empty means the system's temporary directory
}

const maxScript = 32 << 10 // bytes, as in the original

// Detect runs rule.Script in rule.Shell: sh, cmd or powershell; by default
// powershell on Windows and sh elsewhere.
func (s Script) Detect(ctx context.Context, rule events.Detect) Result {
	if len(rule.Script) > maxScript {
		return unknown("the script has %d bytes, more than %d", len(rule.Script), maxScript)
	}
	shell, err := shellOf(rule.Shell, runtime.GOOS)
	if err != nil {
		return unknown("%v", err)
	}
	dir, err := os.MkdirTemp(s.Dir, "detect-") // 0700
	if err != nil {
		return unknown("the script cannot be kept: %v", err)
	}
	result := s.run(ctx, dir, shell, rule.Script)
	if err := os.RemoveAll(dir); err != nil {
		// A child left behind may hold it. What the script said is true all the same.
		result.Explanation += fmt.Sprintf(" (its directory stays behind: %v)", err)
	}
	return result
}

func (s Script) run(ctx context.Context, dir string, shell shell, text string) Result {
	file := filepath.Join(dir, "script"+shell.extension)
	if err := os.WriteFile(file, []byte(shell.encode(text)), 0o600); err != nil {
		return unknown("the script cannot be kept: %v", err)
	}
	out, err := s.Run(ctx, dir, append(shell.argv, file)...)
	if err != nil {
		return noOutcome("the script's shell "+shell.argv[0], err)
	}
	return judgeScript(out)
}

func judgeScript(out Output) Result {
	stdout, stderr := excerpt(out.Stdout), excerpt(out.Stderr)
	switch {
	case out.Code != 0:
		return unknown("the script failed with exit code %d: %s", out.Code, excerpt(out.Stderr+" "+out.Stdout))
	case stdout != "":
		return installed("the script printed: %s", stdout)
	case stderr != "":
		return unknown("the script printed nothing but errors: %s", stderr)
	}
	return notInstalled("the script printed nothing")
}

// shell is how a script is given to an interpreter.
type shell struct {
	argv      []string // followed by the script's file
	extension string
	encode    func(text string) string
}

func shellOf(name, goos string) (shell, error) {
	if name == "" {
		name = "sh"
		if goos == "windows" {
			name = "powershell"
		}
	}
	switch {
	case name == "sh" && goos != "windows":
		return shell{[]string{"sh"}, ".sh", unixLines}, nil
	case name == "cmd" && goos == "windows":
		// Quiet: commands that are echoed would read as output, so as Installed.
		return shell{[]string{"cmd", "/d", "/q", "/c"}, ".cmd", windowsLines}, nil
	case name == "powershell" && goos == "windows":
		// Without a byte order mark Windows PowerShell takes the file for ANSI.
		encode := func(text string) string { return "\uFEFF" + windowsLines(text) }
		return shell{[]string{"powershell", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File"}, ".ps1", encode}, nil
	case name == "powershell":
		return shell{[]string{"pwsh", "-NoProfile", "-NonInteractive", "-File"}, ".ps1", unixLines}, nil
	}
	return shell{}, fmt.Errorf("the shell %q is not for %s", name, goos)
}

func unixLines(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }

func windowsLines(text string) string { return strings.ReplaceAll(unixLines(text), "\n", "\r\n") }
