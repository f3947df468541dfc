package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/access"
	"chandler/services/daemon"
)

// leafReconnect is how often a leaf node looks for a hub that is away.
const leafReconnect = 2 * time.Second

// leafFlags are those of leaf, as typed.
type leafFlags struct {
	identity, listen, ca string
	hub                  []string
	tls                  tlsFlags
	log                  daemon.LogConfig
}

func newLeaf(a *app) *cobra.Command {
	var f leafFlags
	cmd := &cobra.Command{
		Use: "leaf --identity DIR --hub URL", Short: "Run a site's leaf node: its agents reach the fleet by one line", Args: cobra.NoArgs,
		Long: `Runs a broker of which agents at a site are the clients, and which passes on to the hub what they say and
back what is for them. It keeps no streams: while the hub is away agents stay connected, go on with what they
have, keep what they report, and catch up when it is back. Who was revoked it hears from the hub, at once.

--identity names the directory that ` + "`chandler user add SITE --role leaf`" + ` made; one for each leaf node. What
accounts may is kept up to date there, so that a start needs no hub. If the directory has a certificate
(--tls-name made it), that is shown to agents, and the hub must have one of the same authority.

Agents at the site are told to reach the fleet here (` + "`chandler token create --server`" + `, or "servers" in
agent.yaml) and have "domain: hub" in agent.yaml. With that they may be connected to the hub itself, too.`,
		Example: `  chandler user add oslo --role leaf --tls-name leaf.oslo.example     (where the fleet is administered)
  chandler leaf --identity oslo.leaf --hub tls://hub.example:7422 --listen 0.0.0.0:4222`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.leaf(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.identity, "identity", "", "directory that chandler user add --role leaf made")
	flags.StringSliceVar(&f.hub, "hub", nil, "where the hub takes leaf nodes: tls://host:7422, or nats:// in clear text; several of one cluster")
	flags.StringVar(&f.listen, "listen", defaultBroker, "where agents connect")
	flags.StringVar(&f.ca, "ca", "", "authority of the hub's certificate (PEM; default: DIR/tls/ca.pem, or those that this machine knows)")
	flags.StringVar(&f.tls.cert, "tls-cert", "", "serve with TLS by this certificate (PEM, with its chain)")
	flags.StringVar(&f.tls.key, "tls-key", "", "key of --tls-cert (PEM)")
	flags.StringVar(&f.tls.ca, "tls-ca", "", "authority of --tls-cert that agents pin (PEM), where not every machine knows it")
	flags.StringVar(&f.log.Level, "log-level", "warn", "debug, info, warn or error")
	flags.StringVar(&f.log.Format, "log-format", "text", "text or json")
	_, _ = cmd.MarkFlagRequired("identity"), cmd.MarkFlagRequired("hub")
	return cmd
}

func (a *app) leaf(cmd *cobra.Command, f leafFlags) error {
	log, err := daemon.NewLogger(cmd.ErrOrStderr(), f.log)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(f.identity)
	if err != nil {
		return err
	}
	shown, err := f.certificate(dir)
	if err != nil {
		return err
	}
	if f.ca == "" && present(filepath.Join(place{dir}.tls(), caName)) {
		f.ca = filepath.Join(place{dir}.tls(), caName)
	}
	unlock, err := lockDirectory(dir)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := startLeaf(cmd.Context(), leafOptions{Identity: dir, Hub: f.hub, CA: f.ca, Listen: f.listen, TLS: shown.config, Log: log})
	if err != nil {
		return err
	}
	defer l.close()
	if shown.config == nil && !loopback(f.listen) {
		note(cmd.ErrOrStderr(), "WARNING: agents connect to %s without encryption: `chandler user add --role leaf --tls-name` makes a certificate", f.listen)
	}
	note(cmd.OutOrStdout(), "leaf node %s is up: agents connect to %s, the hub is %s", l.name, l.url(), strings.Join(f.hub, ","))
	if !l.linked(cmd.Context(), a.timeout) {
		note(cmd.ErrOrStderr(), "WARNING: not all lines to the hub are there yet, and are tried again and again: does it take leaf nodes at %s, and is %s not revoked? --log-level debug tells more", strings.Join(f.hub, ","), l.name)
	}
	<-cmd.Context().Done()
	return nil
}

// certificate is the one that the flags name, or that of the directory.
func (f leafFlags) certificate(dir string) (shownCertificate, error) {
	if err := f.tls.validate(); err != nil {
		return shownCertificate{}, err
	}
	own := ownAuthority{at: place{dir}}
	switch {
	case f.tls.cert != "":
		return givenCertificate(f.tls.cert, f.tls.key, f.tls.ca)
	case present(own.serverFile()):
		return givenCertificate(own.serverFile(), own.serverKeyFile(), own.caFile())
	}
	return shownCertificate{}, nil
}

// leafOptions say what a leaf node is.
type leafOptions struct {
	Identity string      // directory of a leafIdentity, used by no other process
	Hub      []string    // URLs
	CA       string      // file of the authority of the hub's certificate; empty: those that this machine knows
	Listen   string      // host:port (port 0: any free one)
	TLS      *tls.Config // for agents; nil: clear text
	Log      *slog.Logger
}

// leaf is a leaf node in this process.
type leaf struct {
	name   string
	server *natsserver.Server
}

// startLeaf returns when agents can connect; the hub may be away.
func startLeaf(ctx context.Context, o leafOptions) (*leaf, error) {
	options, err := o.nats()
	if err != nil {
		return nil, fmt.Errorf("leaf node: %w", err)
	}
	server, err := natsserver.NewServer(options)
	if err != nil {
		options.AccountResolver.Close()
		return nil, fmt.Errorf("leaf node: %w", err)
	}
	server.SetLoggerV2(brokerLog{o.Log.With("component", "leaf")}, false, false, false)
	l := &leaf{options.ServerName, server}
	server.Start()
	for deadline := time.Now().Add(30 * time.Second); !server.ReadyForConnections(time.Second); {
		if ctx.Err() != nil || time.Now().After(deadline) {
			l.close()
			return nil, errors.Join(fmt.Errorf("leaf node: it does not listen on %s: see the log above", o.Listen), ctx.Err())
		}
	}
	return l, nil
}

// nats are the options of the nats-server; deploy/nats/leaf.conf says the same.
func (o leafOptions) nats() (*natsserver.Options, error) {
	host, port, err := listenAddress(o.Listen)
	if err != nil {
		return nil, err
	}
	hub, err := hubURLs(o.Hub)
	if err != nil {
		return nil, err
	}
	trusted, err := trustCertificate(o.CA)
	if err != nil {
		return nil, err
	}
	identity := leafIdentity{o.Identity}
	user, err := readUser(identity.credentials(access.Agents))
	if err != nil {
		return nil, err
	}
	clear(user.seed)
	if user.role != access.Leaf {
		return nil, fmt.Errorf("%s is not the directory of a leaf node: `chandler user add --role leaf` makes one", o.Identity)
	}
	options := &natsserver.Options{ServerName: user.name, Host: host, Port: port, MaxPayload: events.MaxPayload, NoSigs: true}
	if o.TLS != nil {
		options.TLS, options.TLSConfig, options.TLSTimeout = true, o.TLS.Clone(), tlsTimeout.Seconds()
	}
	options.LeafNode.ReconnectInterval = leafReconnect
	if err := (brokerOptions{Identity: o.Identity, Accounts: identity.accounts()}).authenticate(options); err != nil {
		return nil, err
	}
	fleet, err := readFleet(o.Identity)
	if err != nil {
		return nil, err
	}
	for _, account := range access.LeafAccounts() {
		if err := checkPrivate(identity.credentials(account)); err != nil {
			return nil, err
		}
		remote := &natsserver.RemoteLeafOpts{LocalAccount: fleet.Accounts[account], URLs: hub, Credentials: identity.credentials(account), IgnoreDiscoveredServers: true}
		if hub[0].Scheme == "tls" {
			remote.TLS, remote.TLSTimeout, remote.TLSConfig = true, tlsTimeout.Seconds(), &tls.Config{MinVersion: tls.VersionTLS12}
			if trusted != nil {
				remote.TLSConfig = trusted.Clone()
			}
		}
		options.LeafNode.Remotes = append(options.LeafNode.Remotes, remote)
	}
	return options, nil
}

// hubURLs reads them; either all are encrypted or none.
func hubURLs(hub []string) (all []*url.URL, err error) {
	for _, text := range hub {
		u, err := url.Parse(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("hub %q: %w", text, err)
		case u.Scheme != "tls" && u.Scheme != "nats" || u.Hostname() == "" || u.Port() == "" || u.User != nil:
			return nil, fmt.Errorf("hub %q: say tls://host:port, or nats://host:port in clear text", withoutUser(text))
		case len(all) > 0 && all[0].Scheme != u.Scheme:
			return nil, errors.New("either all addresses of the hub are tls:// or none is")
		}
		all = append(all, u)
	}
	if len(all) == 0 {
		return nil, errors.New("no hub is named")
	}
	return all, nil
}

func (l *leaf) url() string { return localURL(l.server.ClientURL()) }

// linked waits until there is a line to the hub for each account, and says whether there is.
func (l *leaf) linked(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for l.server.NumLeafNodes() < len(access.LeafAccounts()) {
		if !pause(ctx, 10*time.Millisecond) {
			return false
		}
	}
	return true
}

// close stops it in order.
func (l *leaf) close() {
	l.server.Shutdown()
	l.server.WaitForShutdown()
}
