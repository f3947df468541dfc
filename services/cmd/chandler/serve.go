package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"chandler/services/daemon"
)

// serveConfig is the configuration file of serve, with its defaults. Flags and the environment
// (CHANDLER_HTTP_LISTEN for http.listen) override it.
type serveConfig struct {
	Server      []string `yaml:"server"`
	Identity    string   `yaml:"identity"`    // directory of the fleet's identities
	Credentials string   `yaml:"credentials"` // file of a NATS user, for one service
	CA          string   `yaml:"ca"`          // file of the authority that signed the broker's certificate
	Data        string   `yaml:"data"`
	Key         struct { // of credentials
		Encryption string `yaml:"encryption"`
	} `yaml:"key"`
	Former struct {
		Key struct {
			Encryption string `yaml:"encryption"`
		} `yaml:"key"`
	} `yaml:"former"`
	HTTP struct {
		Listen    string `yaml:"listen"`
		Advertise string `yaml:"advertise"`
	} `yaml:"http"`
	Metrics struct {
		Listen string `yaml:"listen"`
	} `yaml:"metrics"`
	TLS struct {
		Cert string `yaml:"cert"` // files; both, or neither
		Key  string `yaml:"key"`
		CA   string `yaml:"ca"`
	} `yaml:"tls"`
	Replicas int              `yaml:"replicas"`
	Log      daemon.LogConfig `yaml:"log"`
}

func defaultServe() serveConfig {
	c := serveConfig{Server: []string{defaultServer}, Replicas: 1, Log: daemon.LogConfig{Level: "info", Format: "text"}}
	c.HTTP.Listen, c.Metrics.Listen = defaultHTTP, daemon.DefaultListen
	return c
}

func newServe(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "serve SERVICE…", Short: "Run services against a broker that runs elsewhere", Args: cobra.MinimumNArgs(1), ValidArgs: services(),
		Long: `Runs one or several services (scheduling, content, credentials, execution) until interrupted. Several
processes may run scheduling or execution: they share the work. Content and credentials keep files that every
request must find (blobs, the keyset of accounts): run each of them once. What encrypts the keyset, which every
replica of credentials needs, is said with --key-encryption.

Each service speaks to the broker as its own user. --identity names a directory as ` + "`chandler up`" + ` makes it
in DATA/identity: fleet.json, provisioner.creds, services/SERVICE.creds, and for credentials agent-signing.nk
and enrolment.jwt; leave out what belongs to services that run elsewhere. A single service may be given no more
than its user with --credentials (` + "`chandler user add --role service-scheduling`" + ` makes that); streams and
buckets must be there then.

What is not said by a flag is taken from the environment (CHANDLER_HTTP_LISTEN for --http-listen), then
from the file of --config.`,
		Example: `  chandler serve scheduling execution --server nats://broker.example:4222 --replicas 3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			config := defaultServe()
			if err := daemon.ReadConfig(&config, daemon.Sources{File: file, Environment: os.Environ(), Flags: configFlags(cmd.Flags())}); err != nil {
				return err
			}
			return a.serve(cmd, args, config)
		},
	}
	d := defaultServe()
	flags := cmd.Flags()
	flags.StringVar(&file, "config", "", "configuration file (YAML)")
	for _, f := range []struct{ name, value, usage string }{
		{"server", strings.Join(d.Server, ","), "address of the broker, or several separated by commas"},
		{"identity", "", "directory of the fleet's identities: each service's user, and that which makes streams"},
		{"credentials", "", "file with the NATS user to connect as, for a single service"},
		{"ca", "", "file with the authority that signed the broker's certificate"},
		{"data", "", "directory of what is kept here: content's bytes, the encrypted keyset of accounts"},
		{"key-encryption", "", "for credentials: " + usageKeyEncryption + " (default: file:DATA-key/accounts.key)"},
		{"former-key-encryption", "", "for credentials: " + usageFormerKeyEncryption},
		{"http-listen", d.HTTP.Listen, "where package content is served"},
		{"http-advertise", "", "address of that as agents reach it, if another"},
		{"metrics-listen", d.Metrics.Listen, "where /metrics and /healthz are served"},
		{"tls-cert", "", "serve content and metrics with TLS, by this certificate (PEM, with its chain)"},
		{"tls-key", "", "key of --tls-cert (PEM)"},
		{"tls-ca", "", "authority of --tls-cert that agents pin (PEM), where not every machine knows it"},
		{"replicas", strconv.Itoa(d.Replicas), "replicas of each stream when it is made: 1, 3 or 5"},
		{"log-level", d.Log.Level, "debug, info, warn or error"},
		{"log-format", d.Log.Format, "text or json"},
	} {
		flags.String(f.name, f.value, f.usage)
	}
	return cmd
}

// configFlags gives the flags that were given by their keys in the configuration: http-listen is
// http.listen.
func configFlags(flags *pflag.FlagSet) map[string]string {
	given := map[string]string{}
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "config", "context", "output", "timeout":
		default:
			given[strings.ReplaceAll(f.Name, "-", ".")] = f.Value.String()
		}
	})
	return given
}

func (a *app) serve(cmd *cobra.Command, names []string, c serveConfig) error {
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		return fmt.Errorf("%d replicas: there can be 1, 3 or 5", c.Replicas)
	}
	if len(c.Server) == 0 {
		return errors.New("say where the broker is: --server")
	}
	if c.Identity != "" && c.Credentials != "" {
		return errors.New("--identity has a user for each service: leave --credentials out")
	}
	if c.Credentials != "" && len(names) > 1 {
		return errors.New("--credentials is one user, and each service is another: run them by themselves, or say --identity")
	}
	shown, err := tlsFlags{cert: c.TLS.Cert, key: c.TLS.Key, ca: c.TLS.CA}.certificate(place{}, "", serverNames{}, a.now())
	if err != nil {
		return err
	}
	data, err := a.dataDirectory(c.Data)
	if err != nil {
		return err
	}
	log, err := daemon.NewLogger(cmd.ErrOrStderr(), c.Log)
	if err != nil {
		return err
	}
	s, err := startServer(cmd.Context(), serverOptions{
		Data: data, Identity: c.Identity, Server: c.Server, Credentials: c.Credentials, CA: c.CA, HTTP: c.HTTP.Listen, Advertise: c.HTTP.Advertise,
		KeyEncryption: keyEncryption{c.Key.Encryption, c.Former.Key.Encryption},
		Metrics:       c.Metrics.Listen, TLS: shown.config, Services: names, Replicas: c.Replicas, Log: log,
	})
	if err != nil {
		return err
	}
	log.Info("services answer", "services", names, "broker", s.URL, "metrics", s.Metrics)
	return s.wait()
}
