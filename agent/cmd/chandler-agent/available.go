package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chandler/agent/local"
)

// defaultSocket is where local users find the agent whose state is in a directory: the machine's own agent in a place that
// everybody knows, any other one beside its state.
func defaultSocket(stateDir string) string {
	if stateDir != defaultStateDir() {
		absolute, err := filepath.Abs(stateDir)
		if err != nil {
			absolute = stateDir
		}
		return filepath.Join(absolute, "local.sock")
	}
	switch runtime.GOOS {
	case "linux":
		return "/run/chandler/agent.sock"
	case "darwin":
		return "/var/run/chandler/agent.sock"
	}
	return "" // where nothing says who asks
}

// socketOf is the socket of the configured agent, or of the one whose state is in a directory. Users who may not read its
// configuration ask the machine's own agent.
func socketOf(file, socket, stateDir string) string {
	if socket != "" {
		return socket
	}
	conf, err := readConfig(file, stateDirGiven(stateDir))
	switch {
	case err != nil && stateDir != "":
		return defaultSocket(stateDir)
	case err != nil:
		return defaultSocket(defaultStateDir())
	}
	return conf.socket()
}

func (c config) socket() string {
	if c.LocalSocket != "" {
		return c.LocalSocket
	}
	return defaultSocket(c.StateDir)
}

func availableCommand(file *string) *cobra.Command {
	var output, socket, stateDir string
	c := &cobra.Command{Use: "available", Short: "list what a user of this machine may start", Args: cobra.NoArgs}
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	c.Flags().StringVar(&socket, "socket", "", "socket of the agent, instead of the configured one's")
	stateDirFlag(c, &stateDir)
	c.RunE = func(c *cobra.Command, _ []string) error {
		items, err := local.List(c.Context(), socketOf(*file, socket, stateDir))
		if err != nil {
			return err
		}
		if output == "json" {
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(items)
		}
		if len(items) == 0 {
			fmt.Fprintln(c.OutOrStdout(), "nothing is available here now")
			return nil
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tPACKAGE\tPROGRAM\tBY ITSELF\tUNTIL\tCOMMENT")
		for _, i := range items {
			fmt.Fprintf(w, "%s\t%s %s\t%s\t%s\t%s\t%s\n", i.Deployment, i.Package, i.Version, i.Program, orDash(i.Starts), orDash(i.Until), i.Comment)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), "`chandler-agent install NAME` starts it now")
		return nil
	}
	return c
}

func orDash(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.Local().Format(time.DateTime)
}

// startAvailable is install with a name: it asks the agent of this machine, as the user who calls it.
func startAvailable(ctx context.Context, c *cobra.Command, socket, name string) error {
	words, err := local.Start(ctx, socket, name)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", name, words)
	return nil
}
