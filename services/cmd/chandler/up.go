package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/services/daemon"
)

const (
	defaultBroker = "127.0.0.1:4222"
	defaultHTTP   = "127.0.0.1:4280"
)

// upFlags are those of up, as typed.
type upFlags struct {
	data, administrator, listen, leafListen, http, advertise, metrics string
	keys                                                              keyEncryption
	tls                                                               tlsFlags
	log                                                               daemon.LogConfig
}

func newUp(a *app) *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use: "up", Short: "Run the broker and every service in this process", Args: cobra.NoArgs,
		Long: `Runs an embedded broker and every service until interrupted, and writes a context, so that the next
commands need no flags.

The first start makes the fleet's identities: an operator, its accounts, a user for each service and one for
you. The broker lets nobody in without one. What services need of it is in DATA/identity; the keys that make
and revoke users are in DATA/administrator, or where --administrator-dir says, and no later start needs them but
the first of another version: move that directory to where you administer the fleet from.

The secrets of accounts are encrypted by a keyset in DATA/keys, and that by a key which lies beside DATA, in
DATA-key: a copy of DATA alone gives no secret away. Keep a copy of DATA-key too, in another place than those of
DATA: without it every account's secret has to be set again.

With --tls, broker, content and metrics show certificates of an authority that is made for this fleet; with
--tls-cert and --tls-key those of yours.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.up(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "directory of everything that is kept (default: the user's state directory, or /var/lib/chandler for root)")
	flags.StringVar(&f.administrator, "administrator-dir", "", "directory of the keys that make users (default: DATA/administrator)")
	flags.StringVar(&f.keys.current, "key-encryption", "", usageKeyEncryption+" (default: file:DATA-key/accounts.key)")
	flags.StringVar(&f.keys.former, "former-key-encryption", "", usageFormerKeyEncryption)
	flags.StringVar(&f.listen, "listen", defaultBroker, "where the broker listens")
	flags.StringVar(&f.leafListen, "leaf-listen", "", "where the broker takes sites' leaf nodes, for chandler leaf (host:7422; default: nowhere)")
	flags.StringVar(&f.http, "http", defaultHTTP, "where package content is served")
	flags.StringVar(&f.advertise, "advertise", "", "address of --http as agents reach it, if another (https://files.example:4280)")
	flags.StringVar(&f.metrics, "metrics", daemon.DefaultListen, "where /metrics and /healthz are served")
	flags.BoolVar(&f.tls.on, "tls", false, "serve with TLS, by an authority made for this fleet")
	flags.BoolVar(&f.tls.off, "no-tls", false, "serve in clear text, also where there was TLS before: agents that were told to trust its authority do not connect")
	flags.StringSliceVar(&f.tls.names, "tls-name", nil, "further name or address by which this machine is reached, for its certificate")
	flags.StringVar(&f.tls.cert, "tls-cert", "", "serve with TLS by this certificate (PEM, with its chain)")
	flags.StringVar(&f.tls.key, "tls-key", "", "key of --tls-cert (PEM)")
	flags.StringVar(&f.tls.ca, "tls-ca", "", "authority of --tls-cert that agents pin (PEM), where not every machine knows it")
	flags.StringVar(&f.log.Level, "log-level", "warn", "debug, info, warn or error")
	flags.StringVar(&f.log.Format, "log-format", "text", "text or json")
	return cmd
}

// place is where a server keeps its files.
type place struct{ data string }

func (p place) broker() string        { return filepath.Join(p.data, "broker") }
func (p place) identity() string      { return filepath.Join(p.data, partIdentity) }
func (p place) accounts() string      { return filepath.Join(p.data, partAccounts) }
func (p place) administrator() string { return filepath.Join(p.data, administration) }
func (p place) tls() string           { return filepath.Join(p.data, "tls") }
func (p place) keys() string          { return filepath.Join(p.data, "keys") }

func (a *app) up(cmd *cobra.Command, f upFlags) error {
	if err := f.tls.validate(); err != nil {
		return err
	}
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
	// Before a fleet is made, of which only this start tells:
	listens := []listener{{What: "--listen", Address: f.listen}, {What: "--http", Address: f.http}, {What: "--metrics", Address: f.metrics}}
	if f.leafListen != "" {
		listens = append(listens, listener{What: "--leaf-listen", Address: f.leafListen})
	}
	if err := checkListens(listens); err != nil {
		return err
	}
	at := place{data}
	if _, _, err := f.keys.parse(at); err != nil {
		return err
	}
	if err := f.tls.checkMeant(at); err != nil {
		return err
	}
	administrator, err := f.administratorDirectory(at)
	if err != nil {
		return err
	}
	made, err := openFleet(cmd, at, administrator)
	if err != nil {
		return err
	}
	shown, err := f.tls.certificate(at, administrator, namesOf(f.listening(), f.advertise), a.now())
	if err != nil {
		return err
	}
	s, err := startServer(cmd.Context(), f.options(data, shown.config, log))
	if err != nil && errors.Is(cmd.Context().Err(), context.Canceled) {
		note(cmd.ErrOrStderr(), "stopped before it was up")
		return nil
	}
	if err != nil {
		return err
	}
	written, err := a.writeContext(shown.reached(s.URL), shown.ca, at, administrator)
	if err != nil {
		return fmt.Errorf("write a context: %w", joinClose(err, s))
	}
	if err := a.registerUsers(cmd.Context(), written.connection, at); err != nil {
		note(cmd.ErrOrStderr(), "note: the first users were not entered into the list of users, which the next start does again: %v", err)
	}
	warnOpen(cmd, f, at, shown, s.Content)
	a.tellUp(cmd, f, at, s, written, made)
	return s.wait()
}

// openFleet makes the fleet's identities, or sees to it that they are what this version needs.
func openFleet(cmd *cobra.Command, at place, administrator string) (made bool, err error) {
	if made, err = ensureIdentities(at, administrator); err != nil {
		return made, err
	}
	advice, err := renewAccounts(at, administrator)
	if advice != "" { // now: the start may fail of it
		note(cmd.ErrOrStderr(), "%s", advice)
	}
	return made, err
}

// registerUsers enters the users that the first start made into the list of users, so that they can be
// revoked like others. It needs the first administrator's credentials.
func (a *app) registerUsers(ctx context.Context, where connection, at place) error {
	if !present(where.Credentials) || filepath.Base(where.Credentials) != adminCreds {
		return nil
	}
	c, err := dial(where, a.timeout)
	if err != nil {
		return err
	}
	defer c.bus.Conn().Close()
	listed, err := ask(ctx, c, events.UserList, events.Nothing{})
	if err != nil {
		return err
	}
	made := identities{dir: at.identity()}
	files := []string{where.Credentials, made.provisioner()}
	for _, name := range services() {
		files = append(files, made.service(name))
	}
	for _, file := range files {
		user, err := readUser(file)
		if err != nil {
			return err
		}
		clear(user.seed)
		if slices.ContainsFunc(listed.Users, func(u events.UserNotice) bool { return u.User == user.name }) {
			continue
		}
		if _, err := ask(ctx, c, events.UserAdd, events.UserNotice{User: user.name, Role: string(user.role), Key: user.key}); err != nil {
			return err
		}
	}
	return nil
}

// administratorDirectory is where the keys that make users are.
func (f upFlags) administratorDirectory(at place) (string, error) {
	if f.administrator == "" {
		return at.administrator(), nil
	}
	return filepath.Abs(f.administrator)
}

// joinClose stops the server after an error and adds what that says.
func joinClose(err error, s *server) error {
	if closing := s.close(); closing != nil {
		return fmt.Errorf("%w; and while stopping: %w", err, closing)
	}
	return err
}

// listening are the addresses of all listeners.
func (f upFlags) listening() []string {
	all := []string{f.listen, f.http, f.metrics}
	if f.leafListen != "" {
		all = append(all, f.leafListen)
	}
	return all
}

func (f upFlags) options(data string, config *tls.Config, log *slog.Logger) serverOptions {
	return serverOptions{Data: data, Identity: place{data}.identity(), Listen: f.listen, LeafListen: f.leafListen, HTTP: f.http, Advertise: f.advertise, Metrics: f.metrics,
		KeyEncryption: f.keys, TLS: config, Services: services(), Replicas: 1, Log: log}
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

// warnOpen says what others on the network can read.
func warnOpen(cmd *cobra.Command, f upFlags, at place, shown shownCertificate, content string) {
	for _, n := range shown.notes {
		note(cmd.ErrOrStderr(), "note: %s", n)
	}
	if shown.config != nil {
		if !shown.isFor(hostOf(content)) {
			note(cmd.ErrOrStderr(), "WARNING: agents are told to fetch packages from %s, and the certificate is not for that name: say --advertise with one that it is for", content)
		}
		return
	}
	if there, err := exists(filepath.Join(at.tls(), caName)); err == nil && there {
		note(cmd.ErrOrStderr(), "WARNING: this fleet has an authority for certificates, and this is clear text: agents that were told to trust it do not connect")
	}
	for _, l := range []struct{ what, address string }{{"the broker", f.listen}, {"the broker (for leaf nodes)", f.leafListen}, {"content", f.http}, {"metrics", f.metrics}} {
		if l.address != "" && !loopback(l.address) {
			note(cmd.ErrOrStderr(), "WARNING: %s listens on %s without encryption: start with --tls", l.what, l.address)
		}
	}
}

// tellUp says where everything is, and what to do next.
func (a *app) tellUp(cmd *cobra.Command, f upFlags, at place, s *server, c writtenContext, made bool) {
	out := cmd.OutOrStdout()
	web := "http"
	if f.tls.on || f.tls.cert != "" {
		web = "https"
	}
	note(out, "chandler is up: broker %s, content %s, metrics %s://%s/metrics, data %s", s.URL, s.Content, web, s.Metrics, at.data)
	if made {
		note(out, "This is a new fleet, %s. The keys that make and revoke its users are in %s: move that directory to where you administer it from, then: %s context add %s --administrator NEW-PLACE",
			c.Fleet, c.Administrator, a.self, c.Name)
	}
	for _, n := range c.notes {
		note(out, "%s", n)
	}
	note(out, "Context %q is selected. Next:", c.Name)
	if c.TrustDir == "" {
		note(out, "  %s trust init           (once: makes the keys that sign what agents run)", a.self)
	}
	note(out, "  %s token create first   (prints the command that makes a machine an agent)", a.self)
	if !loopback(f.listen) {
		note(out, "    (other machines reach the broker at %s, if not by another address)", agentURL(s.URL, f.listen))
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
	scheme, address, _ := strings.Cut(url, "://")
	if _, port, err := net.SplitHostPort(address); err == nil && unspecified(address) {
		return scheme + "://" + net.JoinHostPort("127.0.0.1", port)
	}
	return url
}
