package supervise

import (
	"os"
	"testing"
)

// StartWithoutGroup is Start on a machine where no cgroup can be made.
func StartWithoutGroup(command []string, dir string, spec Spec) (*Run, error) {
	return startIn(func() string { return "" }, command, dir, spec)
}

// SupervisorOf returns the process of the supervisor of a program that was started.
func SupervisorOf(t *testing.T, dir string) *os.Process {
	t.Helper()
	var began start
	if err := readRecord(dir, startedFile, &began); err != nil {
		t.Fatal(err)
	}
	found, err := os.FindProcess(began.SupervisorPID)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// GroupOf returns the cgroup of a program that was started, "" when it has none.
func GroupOf(t *testing.T, dir string) string {
	t.Helper()
	var began start
	if err := readRecord(dir, startedFile, &began); err != nil {
		t.Fatal(err)
	}
	return began.Group
}

// Record is what a run recorded of a program, for tests that forge one.
type Record = process

// WriteProcess forges process.json.
func WriteProcess(t *testing.T, dir string, forged Record) {
	t.Helper()
	if err := writeRecord(dir, processFile, forged); err != nil {
		t.Fatal(err)
	}
}
