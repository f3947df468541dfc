//go:build unix

package execute

import (
	"io/fs"
	"strings"
)

func splitLine(line string) ([]string, error) { return splitPOSIX(line) }

func verbatimLine(string, string) string { return "" }

func isPath(name string) bool { return strings.Contains(name, "/") }

func candidates(path string, _ []string) []string { return []string{path} }

func executable(info fs.FileInfo) bool { return info.Mode().Perm()&0o111 != 0 }

func foldName(name string) string { return name }

func temporaryNames() []string { return []string{"TMPDIR"} }

func shellProgram(shell string, _ []string) string {
	switch shell {
	case Sh:
		return "/bin/sh"
	case PowerShell:
		return "pwsh"
	}
	return shell
}

// giveDirectories: a Logon is Windows'.
func giveDirectories(string, string, string, bool) error { return nil }

// saysDenied: a code as small means anything here.
func saysDenied(int) bool { return false }
