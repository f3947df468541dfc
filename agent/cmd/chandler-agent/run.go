package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/agent/enrol"
	"chandler/services/daemon"
)

func runCommand(file *string) *cobra.Command {
	var from string
	flags := map[string]*string{}
	c := &cobra.Command{Use: "run", Short: "run the agent until it is told to stop", Args: cobra.NoArgs}
	for name, help := range map[string]string{
		"servers": "broker URLs, comma separated", "state-dir": "directory for everything the agent keeps", "site": "site of this machine", "tags": "tags of this machine, comma separated", "metrics": "address of /metrics and /healthz", "hostname": "name to show instead of the machine's own",
	} {
		flags[name] = c.Flags().String(name, "", help)
	}
	c.Flags().StringVar(&from, "token-file", "", "file with the token to enrol with, if this machine has not enrolled (else $"+tokenVariable+")")
	c.RunE = func(c *cobra.Command, _ []string) error {
		source, err := tokenFrom(from, c.InOrStdin(), c.ErrOrStderr(), false)
		if err != nil {
			return err
		}
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
		return underManager(c.Context(), conf, func(ctx context.Context, log io.Writer) error { return run(ctx, conf, source, log) })
	}
	return c
}

func run(ctx context.Context, conf config, source tokenSource, output io.Writer) error {
	ctx, stop := daemon.UntilSignal(ctx)
	defer stop()
	log, err := daemon.NewLogger(output, conf.Log)
	if err != nil {
		return err
	}
	keeper, err := ownIdentity(ctx, conf, source, log)
	if err != nil {
		return err
	}
	options, err := conf.options(keeper, log)
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
		if inUse(err) {
			return fmt.Errorf("%w: another agent of this machine may serve there; give this one its own by --metrics ADDRESS, such as 127.0.0.1:0", err)
		}
		return err
	}
	warnHidden(log, conf.socket())
	fmt.Fprintf(output, "chandler-agent %s: agent %s\n", agent.Version, a.ID())
	return daemon.Run(ctx, daemon.RunOptions{Log: log}, daemon.Part{Name: "agent", Run: a.Run}, daemon.Part{Name: "monitor", Run: monitor.Run}, daemon.Part{Name: "footprint", Run: staySmall})
}

// ownIdentity opens the machine's identity; one that has none enrols, if it was given a token, for as long as it takes.
func ownIdentity(ctx context.Context, conf config, source tokenSource, log *slog.Logger) (*enrol.Keeper, error) {
	k, facts, err := conf.keeper(ctx, log)
	if err != nil {
		return nil, err
	}
	if k.Enrolled() {
		return k, nil
	}
	err = untilThere(ctx, log, firstPause, func() error { return enrolWith(ctx, k, source, facts) })
	if errors.Is(err, errNoToken) {
		return nil, fmt.Errorf("this machine has not enrolled; `chandler-agent enrol` does it: %w", err)
	}
	if err != nil && !k.Enrolled() { // else it waits for approval, as it says in its log
		return nil, err
	}
	return k, nil
}

// Pauses between attempts to enrol.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// untilThere asks again while nobody answers, in pauses that grow from first and are drawn at random: at boot the
// agent may be there before its network, or before its broker.
func untilThere(ctx context.Context, log *slog.Logger, first time.Duration, ask func() error) error {
	for pause := first; ; pause = min(2*pause, longestPause) {
		err := ask()
		if err == nil || !enrol.Away(err) {
			return err
		}
		wait := pause/2 + rand.N(pause)
		log.WarnContext(ctx, "not enrolled yet, trying again", "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}
