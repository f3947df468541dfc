package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chandler/events"
)

// connection is a context: where a fleet's broker is, who speaks to it, and where what he signs with lies. It
// holds no secret, only the names of files and directories.
type connection struct {
	Name   string `json:"name"`
	Server string `json:"server"`
	// Caller is the last token of every request, audited by the services; with credentials it is their name.
	Caller        string `json:"caller"`
	Fleet         string `json:"fleet,omitempty"`         // name of the fleet; empty: not known here
	Credentials   string `json:"credentials,omitempty"`   // file of the NATS user to connect as; empty: nobody
	CA            string `json:"ca,omitempty"`            // file of the authority that signed the fleet's certificates
	Administrator string `json:"administrator,omitempty"` // directory of the operator's keys, which make and revoke users
	Data          string `json:"data,omitempty"`          // data directory of the server, where it is on this machine
	TrustDir      string `json:"trust_dir,omitempty"`     // directory that `trust init` made
	SigningKey    string `json:"signing_key,omitempty"`   // key that signs orders: a file, or "ssh-agent:…"
}

const (
	defaultServer = "nats://127.0.0.1:4222"
	defaultCaller = "admin"
	// maxContextFile bounds what is read of a context, a trust bundle or a key.
	maxContextFile = 1 << 20
)

func (c connection) validate() error {
	if err := events.ValidToken(c.Name); err != nil {
		return fmt.Errorf("context: %w", err)
	}
	if err := events.ValidToken(c.Caller); err != nil {
		return fmt.Errorf("context %s: caller: %w", c.Name, err)
	}
	for server := range strings.SplitSeq(c.Server, ",") {
		u, err := url.Parse(server)
		if err != nil || u.Host == "" || !slices.Contains(schemes(), u.Scheme) {
			return fmt.Errorf("context %s: server %q is not an address such as %s (possible are %s)", c.Name, withoutUser(server), defaultServer, joined(schemes()))
		}
		if u.User != nil {
			return fmt.Errorf("context %s: the server's address holds a secret: leave it out", c.Name)
		}
	}
	return nil
}

// schemes of a broker's addresses.
func schemes() []string { return []string{"nats", "tls", "ws", "wss"} }

// withoutUser takes what may be a secret out of an address that is shown.
func withoutUser(server string) string {
	if i := strings.LastIndexByte(server, '@'); i >= 0 {
		return "…" + server[i:]
	}
	return server
}

// contextStore keeps contexts as files NAME.json in dir/context, and the selected name in dir/context.txt.
type contextStore struct{ dir string }

func (a *app) contexts() (contextStore, error) {
	dir, err := a.configHome()
	return contextStore{dir}, err
}

func (s contextStore) file(name string) string {
	return filepath.Join(s.dir, "context", name+".json")
}
func (s contextStore) selectedFile() string { return filepath.Join(s.dir, "context.txt") }

// save writes a context.
func (s contextStore) save(c connection) error {
	if err := c.validate(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(s.file(c.Name), append(data, '\n'))
}

// load reads one context.
func (s contextStore) load(name string) (connection, error) {
	if err := events.ValidToken(name); err != nil {
		return connection{}, fmt.Errorf("context: %w", err)
	}
	data, err := readSmall(s.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return connection{}, fmt.Errorf("there is no context %q: `chandler context ls` shows those there are", name)
	}
	if err != nil {
		return connection{}, err
	}
	var c connection
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return connection{}, fmt.Errorf("read context %s: %w", s.file(name), err)
	}
	c.Name = name
	return c, c.validate()
}

// list gives every context by name.
func (s contextStore) list() ([]connection, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "context"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list contexts: %w", err)
	}
	var all []connection
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		c, err := s.load(name)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b connection) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// selected is the name of the selected context, or "".
func (s contextStore) selected() (string, error) {
	data, err := readSmall(s.selectedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(data)), err
}

// choose selects a context that exists.
func (s contextStore) choose(name string) error {
	if _, err := s.load(name); err != nil {
		return err
	}
	return writePrivate(s.selectedFile(), []byte(name+"\n"))
}

// remove forgets a context.
func (s contextStore) remove(name string) error {
	if _, err := s.load(name); err != nil {
		return err
	}
	if err := os.Remove(s.file(name)); err != nil {
		return fmt.Errorf("remove context %s: %w", name, err)
	}
	if selected, err := s.selected(); err != nil || selected != name {
		return err
	}
	return os.Remove(s.selectedFile())
}

// current is the context that a command uses: the flag, the environment, the selected one; without any
// of them the broker on this machine.
func (a *app) current() (connection, error) {
	store, err := a.contexts()
	if err != nil {
		return connection{}, err
	}
	name := a.context
	if name == "" {
		name = a.getenv("CHANDLER_CONTEXT")
	}
	if name == "" {
		if name, err = store.selected(); err != nil {
			return connection{}, err
		}
	}
	if name == "" {
		return connection{Name: "default", Server: defaultServer, Caller: defaultCaller}, nil
	}
	return store.load(name)
}

// readSmall reads a file of at most maxContextFile bytes.
func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxContextFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxContextFile {
		return nil, fmt.Errorf("read %s: larger than %d bytes", name, maxContextFile)
	}
	return data, nil
}

// writePrivate replaces a file by a complete new one that only its owner reads, and makes its directory.
func writePrivate(name string, data []byte) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
