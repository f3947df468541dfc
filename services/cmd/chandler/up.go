package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"chandler/services/daemon"
)

const (
	defaultBroker = "127.0.0.1:4222"
	defaultHTTP   = "127.0.0.1:4280"
)

// upFlags are those of up, as typed.
type upFlags struct {
	data, listen, http, advertise, metrics string
	log                                    daemon.LogConfig
}

func newUp(a *app) *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use: "up", Short: "Run the broker and every service in this process", Args: cobra.NoArgs,
		Long: `Runs an embedded broker and every service until interrupted, and writes a context, so that the next
commands need no flags. At its first start it makes a key that signs orders, and the trust bundle that
agents are given.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.up(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "directory of everything that is kept (default: the user's state directory, or /var/lib/chandler for root)")
	flags.StringVar(&f.listen, "listen", defaultBroker, "where the broker listens")
	flags.StringVar(&f.http, "http", defaultHTTP, "where package content is served")
	flags.StringVar(&f.advertise, "advertise", "", "address of --http as agents reach it, if another (http://files.example:4280)")
	flags.StringVar(&f.metrics, "metrics", daemon.DefaultListen, "where /metrics and /healthz are served")
	flags.StringVar(&f.log.Level, "log-level", "warn", "debug, info, warn or error")
	flags.StringVar(&f.log.Format, "log-format", "text", "text or json")
	return cmd
}

// place is where a server keeps its files.
type place struct{ data string }

func (p place) key() string   { return filepath.Join(p.data, "keys", "order.key") }
func (p place) trust() string { return filepath.Join(p.data, "trust.json") }

func (a *app) up(cmd *cobra.Command, f upFlags) error {
	data, err := a.dataDirectory(f.data)
	if err != nil {
		return err
	}
	log, err := daemon.NewLogger(cmd.ErrOrStderr(), f.log)
	if err != nil {
		return err
	}
	unlock, err := lockDirectory(data)
	if err != nil {
		return err
	}
	defer unlock()
	at := place{data}
	if err := refuseLostTrust(at); err != nil {
		return err
	}
	if _, err := makeKeys(at.key(), at.trust()); err != nil {
		return fmt.Errorf("make the fleet's keys: %w", err)
	}
	trust, err := readTrust(at.trust())
	if err != nil {
		return err
	}
	warnOpen(cmd, f)
	s, err := startServer(cmd.Context(), f.options(data, trust.Fleet, log))
	if err != nil && errors.Is(cmd.Context().Err(), context.Canceled) {
		note(cmd.ErrOrStderr(), "stopped before it was up")
		return nil
	}
	if err != nil {
		return err
	}
	written, err := a.writeContext(s.URL, at)
	if err != nil {
		return fmt.Errorf("write a context: %w", joinClose(err, s))
	}
	a.tellUp(cmd, f, at, s, written)
	return s.wait()
}

// refuseLostTrust keeps a start from making a second fleet out of the first one's data: agents obey only
// the keys of the bundle that they were given.
func refuseLostTrust(at place) error {
	trusted, err := exists(at.trust())
	if err != nil || trusted {
		return err
	}
	stored, err := exists(filepath.Join(at.data, "broker", "jetstream"))
	if err != nil || !stored {
		return err
	}
	return fmt.Errorf("%s holds what a fleet stored, but its trust bundle %s is missing: put it back (every agent was given a copy, and so was whoever holds the signing key); "+
		"for a new fleet, say another --data", at.data, at.trust())
}

// joinClose stops the server after an error and adds what that says.
func joinClose(err error, s *server) error {
	if closing := s.close(); closing != nil {
		return fmt.Errorf("%w; and while stopping: %w", err, closing)
	}
	return err
}

func (f upFlags) options(data, fleet string, log *slog.Logger) serverOptions {
	return serverOptions{Data: data, Listen: f.listen, HTTP: f.http, Advertise: f.advertise, Metrics: f.metrics, Services: services(), Fleet: fleet, Replicas: 1, Log: log}
}

// dataDirectory makes the directory, for this user alone.
func (a *app) dataDirectory(given string) (string, error) {
	data := given
	switch home, err := os.UserHomeDir(); {
	case data != "":
	case os.Geteuid() == 0:
		data = "/var/lib/chandler"
	case a.getenv("XDG_STATE_HOME") != "":
		data = filepath.Join(a.getenv("XDG_STATE_HOME"), "chandler")
	case err != nil:
		return "", fmt.Errorf("find a directory to keep things in: %w; say --data", err)
	default:
		data = filepath.Join(home, ".local", "state", "chandler")
	}
	data, err := filepath.Abs(data)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return "", fmt.Errorf("make data directory: %w", err)
	}
	return data, nil
}

// warnOpen says what others on the network can do.
func warnOpen(cmd *cobra.Command, f upFlags) {
	if !loopback(f.listen) {
		note(cmd.ErrOrStderr(), "WARNING: the broker listens on %s and has no authentication yet: whoever reaches it can speak as an administrator. "+
			"They cannot make machines run anything (that takes the signing key), but they can stop and read everything.", f.listen)
	}
	for _, address := range []string{f.http, f.metrics} {
		if !loopback(address) {
			note(cmd.ErrOrStderr(), "note: %s can be reached from other machines, without encryption", address)
		}
	}
}

// tellUp says where everything is, and what to do next.
func (a *app) tellUp(cmd *cobra.Command, f upFlags, at place, s *server, c writtenContext) {
	out := cmd.OutOrStdout()
	note(out, "chandler is up: broker %s, content %s, metrics http://%s/metrics, data %s", s.URL, s.Content, s.Metrics, at.data)
	if there, err := exists(at.key()); err == nil && there {
		note(out, "The key that signs orders: %s", at.key())
		note(out, "The signing key lies beside the services only until it is moved away: whoever has this machine can install anything on every agent.")
		note(out, "  Move it to where deployments are created, then: %s context add %s --server %s --trust %s --signing-key NEW-PLACE", a.self, c.Name, s.URL, at.trust())
	}
	for _, n := range c.notes {
		note(out, "%s", n)
	}
	note(out, "Context %q is selected. Next:", c.Name)
	note(out, "  %s run --servers %s --trust %s", a.agentSelf, agentURL(s.URL, f.listen), at.trust())
	if !loopback(f.listen) {
		note(out, "    (on other machines with a copy of that file; say another address where they do not reach this machine by it)")
		a.tellContent(cmd, f, s)
	}
	note(out, "  %s agent ls", a.self)
	note(out, "  %s package publish PATH", a.self)
}

// tellContent says from where agents on other machines fetch packages.
func (a *app) tellContent(cmd *cobra.Command, f upFlags, s *server) {
	switch {
	case f.advertise == "" && loopback(f.http):
		note(cmd.ErrOrStderr(), "WARNING: agents on other machines are told to fetch packages from %s, which only this machine reaches: start with --http 0.0.0.0:4280 too, or say --advertise URL", s.Content)
	case f.advertise == "":
		note(cmd.OutOrStdout(), "    Agents are told to fetch packages from %s; where they do not reach it by that name, start with --advertise URL", s.Content)
	}
}

// localURL is the address under which this machine reaches a broker that listens on every address.
func localURL(url string) string {
	for _, every := range []string{"0.0.0.0", "[::]"} {
		if rest, found := strings.CutPrefix(url, "nats://"+every+":"); found {
			return "nats://" + net.JoinHostPort("127.0.0.1", rest)
		}
	}
	return url
}
