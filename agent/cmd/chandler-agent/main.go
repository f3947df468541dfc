// Command chandler-agent is Chandler on a managed machine: it installs what signed orders say.
//
// Under failure: run keeps trying to reach its broker for ever; supervise outlives a killed agent;
// status and doctor work without a broker. Exit codes: 0 done, 1 failed.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/agent/supervise"
)

func main() {
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
		installCommand(&config), uninstallCommand(), serviceCommand("start", manager.start), serviceCommand("stop", manager.stop),
		&cobra.Command{Use: "supervise DIR", Short: "watch over one run (the agent calls this itself)", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return supervise.Main(args[0]) }},
		&cobra.Command{Use: "version", Short: "print the version", Args: cobra.NoArgs,
			Run: func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), "chandler-agent", agent.Version) }},
	)
	return root
}
