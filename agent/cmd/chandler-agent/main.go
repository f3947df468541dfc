// Command chandler-agent is Chandler on a managed machine: it installs what signed orders say.
//
// Under failure: run keeps trying to reach its broker for ever; supervise outlives a killed agent;
// status and doctor work without a broker. Exit codes: 0 done, 1 failed.
package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/agent/source/asuser"
	"chandler/agent/supervise"
	"chandler/services/daemon"
)

func main() {
	// Nobody asks for a heap profile, and the table for it is a tenth of an idle agent's heap.
	runtime.MemProfileRate = 0
	if err := daemon.KeepMemoryPrivate(); err != nil { // in each process: it does not survive an exec
		fmt.Fprintln(os.Stderr, "note: secrets in memory may end in a core dump:", err)
	}
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "chandler-agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var config string
	root := &cobra.Command{Use: "chandler-agent", Short: "installs what signed orders say", SilenceUsage: true, SilenceErrors: true}
	root.PersistentFlags().StringVarP(&config, "config", "c", defaultConfigFile(), "configuration file")
	root.AddCommand(
		runCommand(&config), enrolCommand(&config), statusCommand(&config), doctorCommand(&config),
		installCommand(&config), availableCommand(&config), uninstallCommand(), serviceCommand("start", manager.start), serviceCommand("stop", manager.stop),
		superviseCommand(), readCommand(),
		&cobra.Command{Use: "version", Short: "print the version", Args: cobra.NoArgs,
			Run: func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), "chandler-agent", agent.Version) }},
	)
	return root
}

// superviseCommand has all that it needs in its arguments: the configuration may have changed since the agent read it.
func superviseCommand() *cobra.Command {
	var ca string
	c := &cobra.Command{Use: "supervise DIR", Short: "watch over one run (the agent calls this itself)", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return supervise.Main(args[0], external(ca)) }}
	c.Flags().StringVar(&ca, "external-ca", "", "file with certificate authorities of external sources")
	return c
}

// readCommand is the process that reads as a logged-on user. The certificate authorities are in a file that the user can
// read, or the system's own are all.
func readCommand() *cobra.Command {
	var ca string
	c := &cobra.Command{Use: "read", Short: "read external sources as the user it runs as (the agent calls this itself)", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return asuser.Main(os.Stdin, os.Stdout, external(ca)) }}
	c.Flags().StringVar(&ca, "external-ca", "", "file with certificate authorities of external sources")
	return c
}
