package main

import (
	"os"
	"path/filepath"
	"strings"
)

// Commands as people type them, in hints.
const (
	installedSelf  = "chandler"
	installedAgent = "chandler-agent"
	sourceSelf     = "go run ./services/cmd/chandler"
	sourceAgent    = "go run ./agent/cmd/chandler-agent"
)

// hintCommands are the commands that hints name: who runs this from source has no program of that name.
func hintCommands() (self, agent string) {
	executable, err := os.Executable()
	if err == nil && runFromSource(executable) {
		return sourceSelf, sourceAgent
	}
	return installedSelf, installedAgent
}

// runFromSource says whether `go run` made the program: then it lies in the go command's temporary or cache
// directory.
func runFromSource(executable string) bool {
	slashed := filepath.ToSlash(executable)
	return strings.Contains(slashed, "/go-build") && !strings.HasSuffix(strings.TrimSuffix(slashed, ".exe"), ".test")
}
