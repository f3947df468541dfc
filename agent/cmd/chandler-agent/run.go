package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/services/daemon"
)

func runCommand(file *string) *cobra.Command {
	flags := map[string]*string{}
	c := &cobra.Command{Use: "run", Short: "run the agent until it is told to stop", Args: cobra.NoArgs}
	for name, help := range map[string]string{
		"servers": "broker URLs, comma separated", "state-dir": "directory for everything the agent keeps", "trust": "trust bundle file",
		"site": "site of this machine", "tags": "tags of this machine, comma separated", "metrics": "address of /metrics and /healthz", "hostname": "name to show instead of the machine's own",
	} {
		flags[name] = c.Flags().String(name, "", help)
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		given := map[string]string{}
		for name, value := range flags {
			if c.Flags().Changed(name) {
				given[name] = *value
			}
		}
		conf, err := readConfig(*file, given)
		if err != nil {
			return err
		}
		return run(c, conf)
	}
	return c
}

func run(c *cobra.Command, conf config) error {
	log, err := daemon.NewLogger(os.Stderr, conf.Log)
	if err != nil {
		return err
	}
	options, err := conf.options()
	if err != nil {
		return err
	}
	registry := daemon.NewRegistry()
	options.Registerer, options.Log = registry, log
	a, err := agent.New(options)
	if err != nil {
		return err
	}
	monitor, err := daemon.NewMonitor(conf.Metrics, log, registry, map[string]daemon.Check{"broker": a.Healthy})
	if err != nil {
		a.Close()
		return err
	}
	ctx, stop := daemon.UntilSignal(c.Context())
	defer stop()
	fmt.Fprintf(c.ErrOrStderr(), "chandler-agent %s: agent %s\n", agent.Version, a.ID())
	return daemon.Run(ctx, daemon.RunOptions{Log: log}, daemon.Part{Name: "agent", Run: a.Run}, daemon.Part{Name: "monitor", Run: monitor.Run})
}
