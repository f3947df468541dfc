// Package supervisetest lets the tests of everything that runs programs do so with real processes on every system, without
// a compiler, a shell, or waiting for time to pass.
//
// A test binary whose TestMain begins with Main is also the supervisor (Supervisor) and the programs that it runs
// (Program): it starts itself again with a marker. A program in mode "guest" calls the test back over loopback and does
// what it is told; the end of its connection is the end of the process. Under failure it promises only that no guest
// outlives its test: each ends when its connection does.
package supervisetest

import (
	"fmt"
	"os"

	"chandler/agent/supervise"
	"chandler/events/resource"
)

const (
	asSupervisor = "supervisetest-supervise"
	asReader     = "supervisetest-supervise-reading"
	asProgram    = "supervisetest-program"
)

// Main returns unless this process was started by Supervisor or Program; then it is that, and exits.
func Main() {
	if len(os.Args) < 3 {
		return
	}
	switch os.Args[1] {
	case asSupervisor:
		end(supervise.Main(os.Args[2], nil))
	case asReader:
		end(supervise.Main(os.Args[3], supervise.Sources{resource.SMB: folders{os.Args[2]}}))
	case asProgram:
		os.Exit(program(os.Args[2], os.Args[3:]))
	}
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// SupervisorReading is Supervisor with a source of smb addresses: smb://HOST/SHARE/PATH is root/HOST/SHARE/PATH, which
// User reads by Secret, but for files of mode 0. Each opening is a line of the file root/opened.
func SupervisorReading(root string) []string { return []string{self(), asReader, root} }

// Supervisor is the command for supervise.Start.
func Supervisor() []string { return []string{self(), asSupervisor} }

// Program is the argv of a test program:
//
//	exit CODE            exits at once
//	describe ANYTHING…   prints a Description of itself as JSON
//	flood BYTES          writes that many bytes, at least 3: lines of ten, and END at the end
//	guest ADDRESS NAME   calls the Meeting at the address and obeys
func Program(mode string, args ...string) []string {
	return append([]string{self(), asProgram, mode}, args...)
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err) // only where the operating system cannot name the running binary
	}
	return path
}
