// Command msiprobe is what the tests of MSI run on Windows: the parts of the agent that run a program and find out what came
// of it, without an order. Under the name of msiexec it is a Windows Installer that ends as it is told.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"chandler/agent/detect"
	"chandler/agent/execute"
	"chandler/agent/execute/systemrunner"
	"chandler/agent/msilog"
	"chandler/agent/supervise"
	"chandler/events"
)

// task is what is to be run, and answer what came of it; both are JSON on standard input and output.
type task struct {
	Dir, Content string
	Program      events.Program
	Product      string // whose registration is to be looked at; without a command that is all
}

type answer struct {
	Code        int
	Meaning     execute.Meaning
	Error       string
	Log         bool
	Explanation string
	Lines       []string
	Detected    string
	OwnProfile  bool
}

func main() {
	err := errors.New("usage: msiprobe [supervise DIR]")
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "supervise":
		err = supervise.Main(args[1], nil)
	case len(args) == 0:
		err = probe()
	case slices.Contains(args, "/i"):
		var code int
		if code, err = pretend(args); err == nil {
			os.Exit(code)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func probe() error {
	var t task
	if err := json.NewDecoder(os.Stdin).Decode(&t); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var a answer
	if !t.Program.Command.Empty() {
		if err := run(ctx, t, &a); err != nil {
			return err
		}
	}
	var err error
	if a.OwnProfile, err = detect.OwnProfile(t.Product); err != nil {
		return err
	}
	a.Detected = detect.MSI{}.Detect(ctx, events.Detect{MSI: t.Product}).State.String()
	return json.NewEncoder(os.Stdout).Encode(a)
}

func run(ctx context.Context, t task, a *answer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	executor, err := execute.New(execute.Options{Supervisor: []string{self, "supervise"}, Runners: map[string]execute.Runner{"system": systemrunner.New()}})
	if err != nil {
		return err
	}
	codes := map[int]execute.Meaning{}
	for code, meaning := range t.Program.ReturnCodes {
		codes[code] = execute.Meaning(meaning)
	}
	c := t.Program.Command
	x, err := executor.Start(ctx, execute.Request{
		Job: "job", Attempt: 1, As: "system", Dir: t.Dir, ContentDir: t.Content, ReturnCodes: codes,
		Command: execute.Command{Argv: c.Argv, Line: c.Line, Shell: t.Program.Shell},
	})
	if err != nil {
		return err
	}
	result, err := x.Wait(ctx)
	if err != nil {
		return err
	}
	a.Code, a.Meaning, a.Error = result.Outcome.ExitCode, result.Meaning, result.Outcome.Error
	if a.Log = result.LogPath != ""; !a.Log {
		return nil
	}
	report, err := msilog.Read(result.LogPath, 4<<10)
	a.Explanation, a.Lines = report.Explanation, report.Lines
	return err
}

// pretend ends with the number behind EXIT=, after it has written a log as msiexec writes them.
func pretend(args []string) (code int, err error) {
	for _, arg := range args {
		if text, ok := strings.CutPrefix(arg, "EXIT="); ok {
			if code, err = strconv.Atoi(text); err != nil {
				return 0, err
			}
		}
	}
	at := slices.Index(args, "/l*v")
	if at < 0 || at+1 == len(args) {
		return code, nil
	}
	log := "=== Verbose logging started: 1/2/2027  10:00:00  Build type: SHIP UNICODE 5.00.10011.00 ===\r\n"
	if code == 1603 {
		log += "Error 1304. Error writing to file: C:\\Program Files\\Example\\a.dll.\r\nAction ended 10:00:01: InstallFiles. Return value 3.\r\n"
	}
	log += fmt.Sprintf("MSI (c) (A4:C8) [10:00:02:123]: MainEngineThread is returning %d\r\n", code)
	data := []byte{0xFF, 0xFE}
	for _, unit := range utf16.Encode([]rune(log)) {
		data = binary.LittleEndian.AppendUint16(data, unit)
	}
	return code, os.WriteFile(args[at+1], data, 0o600)
}
