package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// version of this program and of the services in it.
const version = "0.1.0"

// app is what every command shares: the surroundings of the process, and the flags of all commands.
type app struct {
	getenv     func(string) string
	now        func() time.Time
	zone       *time.Location // in which times are shown
	isTerminal func(any) bool // whether a stream is a terminal
	self       string         // this program and the agent, as hints name them
	agentSelf  string

	context string
	output  string
	timeout time.Duration
}

func newApp() *app {
	self, agent := hintCommands()
	return &app{getenv: os.Getenv, now: time.Now, zone: time.Local, isTerminal: isTerminal, self: self, agentSelf: agent}
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:     "chandler",
		Short:   "Supplies software to fleets of computers",
		Version: version,
		Long: `Chandler installs software on fleets of computers: publish a package, say which machines get it,
and every machine installs it and says what happened.

Begin with "chandler up" on one machine, then "chandler package publish" and "chandler deployment create".`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.context, "context", "", "context to use instead of the selected one (CHANDLER_CONTEXT)")
	flags.StringVarP(&a.output, "output", "o", "table", "form of the answer: table, wide, json, yaml, name or csv")
	flags.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long to wait for each answer")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := cmd.ValidateRequiredFlags(); err != nil {
			return fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())
		}
		return validFormat(a.output)
	}
	_ = root.RegisterFlagCompletionFunc("context", a.completeContext)
	completeWords(root, "output", formats()...)
	root.AddCommand(groups(a)...)
	prepare(root)
	return root
}

// streams are those of a process.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run executes one command line and gives the exit code.
func (a *app) run(ctx context.Context, std streams, args []string) int {
	root := newRoot(a)
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var outcome exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &outcome):
		return int(outcome)
	}
	note(std.err, "chandler: %v", err)
	return 1
}

// exitCode is an outcome that has been told already and only sets the exit code.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// The outcomes of a deployment besides success.
const (
	exitPartlyFailed exitCode = 2
	exitStopped      exitCode = 3
)

// isTerminal takes any stream, as commands see only io.Reader and io.Writer.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// interactive says whether a question can be asked: it is shown on standard error, so that standard
// output can be redirected.
func (a *app) interactive(cmd *cobra.Command) bool {
	return a.isTerminal(cmd.InOrStdin()) && a.isTerminal(cmd.ErrOrStderr())
}

// configHome is the directory of contexts.
func (a *app) configHome() (string, error) {
	if dir := a.getenv("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "chandler"), nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find where contexts are kept: %w; set XDG_CONFIG_HOME", err)
	}
	return filepath.Join(dir, "chandler"), nil
}

// note writes one line for people to standard error.
func note(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, printable(fmt.Sprintf(format, args...)))
}
