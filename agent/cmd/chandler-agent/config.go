package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/agent/elevate"
	"chandler/agent/enrol"
	"chandler/agent/installers"
	"chandler/agent/logon"
	"chandler/agent/restart"
	"chandler/events"
	"chandler/services/daemon"
)

// config is the agent's one configuration file. Flags and environment (CHANDLER_SERVERS …) override it.
type config struct {
	Servers    []string `yaml:"servers"` // instead of the token's
	Domain     string   `yaml:"domain"`
	StateDir   string   `yaml:"state-dir"`
	Hostname   string   `yaml:"hostname"`
	Site       string   `yaml:"site"`
	Tags       []string `yaml:"tags"`
	ClientKind string   `yaml:"client-kind"`
	// TokenAccount is the local account that a legacy client makes for its programs.
	TokenAccount string `yaml:"token-account"`
	CacheSize    string `yaml:"cache-size"` // 5GiB
	Bandwidth    string `yaml:"bandwidth"`  // 10MiB, per second
	// ExternalCA is a file with further certificate authorities of external sources over https.
	ExternalCA  string           `yaml:"external-ca"`
	Environment []string         `yaml:"environment"`
	LocalSocket string           `yaml:"local-socket"` // where users of this machine ask for what is available
	Metrics     string           `yaml:"metrics"`      // listen address
	Log         daemon.LogConfig `yaml:"log"`
}

func defaultConfigFile() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("ProgramData"), "Chandler", "agent.yaml")
	}
	return "/etc/chandler/agent.yaml"
}

func defaultStateDir() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("ProgramData"), "Chandler", "agent")
	}
	return "/var/lib/chandler-agent"
}

// readConfig reads the file; a missing one is an error only where it was named.
func readConfig(file string, flags map[string]string) (config, error) {
	c := config{StateDir: defaultStateDir(), Metrics: "127.0.0.1:9651"}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) && file == defaultConfigFile() {
		file = ""
	}
	if err := daemon.ReadConfig(&c, daemon.Sources{File: file, Environment: os.Environ(), Flags: flags}); err != nil {
		return c, withKnownKeys(err)
	}
	return c, c.validate()
}

// withKnownKeys adds the keys that there are to an error about one that there is not.
func withKnownKeys(err error) error {
	if unknown, ok := errors.AsType[*yaml.UnknownFieldError](err); !ok || unknown == nil {
		return err
	}
	var known []string
	t := reflect.TypeFor[config]()
	for i := range t.NumField() {
		known = append(known, t.Field(i).Tag.Get("yaml"))
	}
	return fmt.Errorf("%w\nknown keys: %s", err, strings.Join(known, ", "))
}

// stateDirFlag is for commands that look at an agent's state, which may not be where the configuration says.
func stateDirFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "state-dir", "", "directory of what the agent keeps, as it was given to run")
}

func stateDirGiven(dir string) map[string]string {
	if dir == "" {
		return nil
	}
	return map[string]string{"state-dir": dir}
}

// validate checks everything, so that a mistake is told before anything is done.
func (c config) validate() error {
	if _, err := c.sizes(); err != nil {
		return err
	}
	if c.Site != "" {
		if err := events.ValidToken(c.Site); err != nil {
			return fmt.Errorf("site: %w", err)
		}
	}
	if kind := events.ClientKind(c.ClientKind); kind != "" && kind != events.Advanced && kind != events.Legacy {
		return fmt.Errorf("client kind %q must be advanced or legacy", kind)
	}
	return nil
}

// sizes are what the configuration says in words, in bytes; 0: not said.
type sizes struct{ cache, bandwidth int64 }

func (c config) sizes() (s sizes, err error) {
	if s.cache, err = parseSize(c.CacheSize); err != nil {
		return s, fmt.Errorf("cache-size: %w", err)
	}
	if s.bandwidth, err = parseSize(c.Bandwidth); err != nil {
		return s, fmt.Errorf("bandwidth: %w", err)
	}
	return s, nil
}

// options turns the configuration and the machine's identity into the agent's options, with the tables of
// everything it can do.
func (c config) options(identity *enrol.Keeper, log *slog.Logger) (agent.Options, error) {
	limits, err := c.sizes()
	if err != nil {
		return agent.Options{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return agent.Options{}, fmt.Errorf("find own program: %w", err)
	}
	secure, err := identity.TLS()
	if err != nil {
		return agent.Options{}, err
	}
	scripts := filepath.Join(c.StateDir, "scripts")
	if err := os.MkdirAll(scripts, 0o700); err != nil {
		return agent.Options{}, fmt.Errorf("make directory of scripts: %w", err)
	}
	kept, err := filepath.Abs(filepath.Join(c.StateDir, "rights"))
	if err != nil {
		return agent.Options{}, fmt.Errorf("find state directory: %w", err)
	}
	rights, err := elevate.New(elevate.Options{Dir: kept, Log: log})
	if err != nil {
		return agent.Options{}, err
	}
	run, err := runners(rights, c.TokenAccount)
	if err != nil {
		return agent.Options{}, err
	}
	if c.ExternalCA != "" {
		if c.ExternalCA, err = filepath.Abs(c.ExternalCA); err != nil { // other processes read it too
			return agent.Options{}, fmt.Errorf("external-ca: %w", err)
		}
		if _, err := authorities(c.ExternalCA); err != nil {
			return agent.Options{}, err
		}
	}
	return agent.Options{
		External: external(c.ExternalCA), UserSources: asUser(self, c.ExternalCA), Enrolment: identity, StateDir: c.StateDir, Servers: c.Servers, Domain: c.Domain, Hostname: c.Hostname, Site: c.Site, Tags: c.Tags,
		ClientKind: events.ClientKind(c.ClientKind), Environment: c.Environment, CacheSize: limits.cache, Bandwidth: limits.bandwidth,
		Supervisor: []string{self, "supervise", "--external-ca", c.ExternalCA},
		Runners:    run, Rights: rights,
		Logon:      logon.New(logon.Options{Driver: logon.System(), Log: log}),
		LockHolder: installers.LockHolder,
		Restart:    restart.Machine, LocalSocket: c.socket(),
		Sources: sources(secure),
		Kinds:   kinds(c.Environment, scripts),
	}, nil
}
