package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/sign"
	"chandler/events/trust"
	"chandler/services/keyring"
)

// initFlags are those of trust init, as typed.
type initFlags struct {
	fleet, dir, deployerKey             string
	roots, rootsNeeded, deployersNeeded int
	deployers                           []string // NAME=KEY of others
	encrypt                             bool
}

func trustInit(a *app) *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use: "init", Short: "Make the keys that the fleet's agents will trust", Args: cobra.NoArgs,
		Long: `Makes root keys and a key that signs packages and deployments, on this machine, and hands the first trust
bundle to the fleet. Done once for a fleet.

Root keys sign nothing but trust bundles. Take them off this machine: each to another place that is not
connected to anything, such as two sticks in two safes.`,
		Example: `  chandler trust init
  chandler trust init --deployer-key ssh-agent:ada@ws-1 --encrypt
  chandler trust init --deployers-needed 2 --deployer bob=bob.pub`,
	}
	asked := a.asksPassphrase(cmd)
	cmd.RunE = a.connected(func(cmd *cobra.Command, c *client, _ []string) error { return a.initTrust(cmd, c, f, asked) })
	flags := cmd.Flags()
	flags.StringVar(&f.fleet, "fleet", "", "name of the fleet (default: what chandler up named it)")
	flags.IntVar(&f.roots, "roots", 3, "how many root keys to make")
	flags.IntVar(&f.rootsNeeded, "roots-needed", 2, "how many of them must sign a trust bundle")
	flags.IntVar(&f.deployersNeeded, "deployers-needed", 1, "how many deployers must sign each deployment")
	flags.StringArrayVar(&f.deployers, "deployer", nil, "a further deployer and publisher: NAME=KEY, a public key's file or ssh-agent:…; repeatable")
	flags.StringVar(&f.dir, "dir", "", "directory for the keys (default: trust/CONTEXT beside the contexts)")
	flags.BoolVar(&f.encrypt, "encrypt", false, "encrypt the keys by a passphrase")
	flags.StringVar(&f.deployerKey, "deployer-key", "", "your key that signs deployments: a file, or ssh-agent: and a fingerprint or comment (default: one is made)")
	return cmd
}

func (a *app) initTrust(cmd *cobra.Command, c *client, f initFlags, asked *asking) error {
	there, err := trustBundles(cmd.Context(), c, 0)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("the fleet has its keys already: `%s trust show`; they are changed by trust add, remove, set and rotate", a.self)
	}
	plan, err := a.trustPlan(c.connection, f)
	if err != nil {
		return err
	}
	_, envelope, err := pinned{plan.dir}.load()
	if err != nil {
		return err
	}
	if envelope != nil {
		return fmt.Errorf("%s holds the keys of a fleet, but this fleet has none: if it is the same one and was restored from an old copy, hand it back with `%s trust send %s`; for another, say --dir", plan.dir, a.self, pinned{plan.dir}.file())
	}
	if f.deployerKey != "" {
		if plan.ownRef, err = keyReference(f.deployerKey); err != nil {
			return err
		}
		if plan.own, err = asked.open(plan.ownRef); err != nil {
			return err
		}
	}
	if f.encrypt {
		if plan.passphrase, err = asked.newPassphrase(forNewKeys); err != nil {
			return err
		}
		defer clear(plan.passphrase)
	}
	bundle, err := a.beginTrust(cmd.Context(), c, plan)
	if err != nil && !errors.Is(err, errUnsure) {
		return err
	}
	if saving := a.rememberTrust(c.connection); err != nil || saving != nil {
		return errors.Join(err, saving)
	}
	return a.tellInit(cmd, c, plan, bundle)
}

// trustPlan is what keys are to be made.
type trustPlan struct {
	dir, fleet                          string
	roots, rootsNeeded, deployersNeeded int
	name                                string           // of the own key
	own                                 sign.Signer      // nil: it is made
	ownRef                              string           // how contexts name own; an absolute path, or ssh-agent:…
	others                              []sign.PublicKey // further deployers
	passphrase                          []byte
	now                                 time.Time
}

func (a *app) trustPlan(c connection, f initFlags) (trustPlan, error) {
	p := trustPlan{fleet: f.fleet, roots: f.roots, rootsNeeded: f.rootsNeeded, deployersNeeded: f.deployersNeeded, name: c.Caller, now: a.now()}
	switch {
	case f.roots < 1 || f.rootsNeeded < 1 || f.rootsNeeded > f.roots:
		return p, fmt.Errorf("--roots %d --roots-needed %d: at least one root is needed, and no more than there are", f.roots, f.rootsNeeded)
	case f.deployersNeeded < 1 || f.deployersNeeded > len(f.deployers)+1:
		return p, fmt.Errorf("--deployers-needed %d: there would be %s; name others with --deployer NAME=KEY, or raise it later with trust set", f.deployersNeeded, plural(len(f.deployers)+1, "deployer", "deployers"))
	}
	for _, text := range f.deployers {
		name, ref, ok := strings.Cut(text, "=")
		if !ok {
			return p, fmt.Errorf("--deployer %q: write it as NAME=KEY", text)
		}
		key, err := readPublic(ref)
		if err != nil {
			return p, fmt.Errorf("--deployer %s: %w", name, err)
		}
		p.others = append(p.others, key.Named(name))
	}
	var err error
	if p.fleet == "" {
		if p.fleet, err = fleetOf(c); err != nil {
			return p, err
		}
	}
	if f.dir != "" {
		c.TrustDir = f.dir
	}
	if p.dir, err = a.trustDir(c); err != nil {
		return p, err
	}
	p.dir, err = filepath.Abs(p.dir)
	return p, err
}

// fleetOf is the name that the fleet got when its identities were made. A broker that asks nobody who they
// are has none.
func fleetOf(c connection) (string, error) {
	switch {
	case c.Fleet != "":
		return c.Fleet, nil
	case c.Credentials != "":
		return "", fmt.Errorf("context %s does not know the fleet's name: say --fleet with what fleet.json in the administrator's directory says", c.Name)
	}
	return newFleetName(), nil
}

// errUnsure: the fleet may or may not have what was sent.
var errUnsure = errors.New("whether the fleet has the trust bundle is not known")

// beginTrust makes the keys, accepts the bundle here and hands it over. The connection's context is changed to
// sign with the new key, and not yet saved. Where the fleet refuses the bundle the keys are removed again;
// with errUnsure they are kept, and the bundle can be sent again.
func (a *app) beginTrust(ctx context.Context, c *client, p trustPlan) (trust.Bundle, error) {
	envelope, made, err := p.make()
	if err == nil {
		made = append(made, pinned{p.dir}.file())
		err = writePrivate(pinned{p.dir}.file(), envelope)
	}
	if err != nil {
		return trust.Bundle{}, errors.Join(err, removeAll(made))
	}
	_, err = ask(ctx, c, events.TrustSet, events.TrustRequest{Bundle: envelope})
	if _, refused := errors.AsType[*bus.RequestError](err); refused {
		return trust.Bundle{}, errors.Join(fmt.Errorf("hand the trust bundle to the fleet: %w", err), removeAll(made))
	}
	c.TrustDir = p.dir
	if p.own == nil {
		c.SigningKey = p.ownFile()
	} else if p.ownRef != "" {
		c.SigningKey = p.ownRef
	}
	if err != nil {
		return trust.Bundle{}, fmt.Errorf("%w: %w; the keys are in %s: `%s trust send %s` sends it again", errUnsure, err, p.dir, a.self, pinned{p.dir}.file())
	}
	return trust.Open(envelope)
}

func removeAll(files []string) (err error) {
	for _, file := range files {
		if gone := os.Remove(file); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

func (p trustPlan) ownFile() string { return filepath.Join(p.dir, "deployer.key") }

// make writes the new keys and gives the first bundle, signed by its roots. made are the files written so far,
// also after an error.
func (p trustPlan) make() (envelope []byte, made []string, err error) {
	fresh := func(file string) (sign.Key, error) {
		key, err := writeNewKey(file, p.passphrase)
		if err == nil {
			made = append(made, file)
		}
		return key, err
	}
	b := trust.Bundle{Fleet: p.fleet, Version: 1, Threshold: p.deployersNeeded, Issued: p.now, Roots: trust.Roots{Threshold: p.rootsNeeded}}
	var roots []sign.Signer
	for i := range p.roots {
		name := fmt.Sprintf("root-%d", i+1)
		key, err := fresh(filepath.Join(p.dir, name+".key"))
		if err != nil {
			return nil, made, err
		}
		defer key.Wipe()
		roots = append(roots, key)
		b.Roots.Keys = append(b.Roots.Keys, key.Public().Named(name))
	}
	own := p.own
	if own == nil {
		key, err := fresh(p.ownFile())
		if err != nil {
			return nil, made, err
		}
		defer key.Wipe()
		own = key
	}
	b.Keys = append([]sign.PublicKey{own.Public().Named(p.name)}, p.others...)
	b.Publishers = slices.Clone(b.Keys)
	envelope, err = trust.Sign(b, roots...)
	return envelope, made, err
}

// freshKey makes a key.
func freshKey() (sign.Key, error) {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	defer clear(seed)
	return sign.NewKey(seed)
}

// writeNewKey makes a key in a file that is not there.
func writeNewKey(file string, passphrase []byte) (sign.Key, error) {
	key, err := freshKey()
	if err != nil {
		return sign.Key{}, err
	}
	return key, keyring.Write(file, key, passphrase)
}

// keyReference makes a file's path absolute, as contexts name keys.
func keyReference(ref string) (string, error) {
	if strings.HasPrefix(ref, keyring.AgentPrefix) {
		return ref, nil
	}
	return filepath.Abs(ref)
}

// makeKeyFile makes a key that may be encrypted.
func makeKeyFile(file string, encrypt bool, asked *asking) error {
	var passphrase []byte
	var err error
	if encrypt {
		if passphrase, err = asked.newPassphrase(forNewKeys); err != nil {
			return err
		}
		defer clear(passphrase)
	}
	key, err := writeNewKey(file, passphrase)
	if err == nil {
		key.Wipe()
	}
	return err
}

// readPublic reads a public key: of a file, or one that the SSH agent holds.
func readPublic(ref string) (sign.PublicKey, error) {
	if strings.HasPrefix(ref, keyring.AgentPrefix) {
		signer, err := keyring.Open(ref, nil)
		if err != nil {
			return sign.PublicKey{}, err
		}
		return signer.Public(), nil
	}
	data, err := readSmall(ref)
	if err != nil {
		return sign.PublicKey{}, err
	}
	key, err := keyring.ParsePublic(data)
	if err != nil {
		return sign.PublicKey{}, fmt.Errorf("%s: %w", ref, err)
	}
	return key, nil
}

// rememberTrust saves a context whose trust was made, and selects it if there is no other.
func (a *app) rememberTrust(c connection) error {
	store, err := a.contexts()
	if err != nil {
		return err
	}
	if err := store.save(c); err != nil {
		return err
	}
	selected, err := store.selected()
	if err == nil && selected == "" {
		err = store.choose(c.Name)
	}
	return err
}

func (a *app) tellInit(cmd *cobra.Command, c *client, p trustPlan, b trust.Bundle) error {
	if !people(a.output) {
		return writeDetail(cmd.OutOrStdout(), a.output, b, b.Roots.Fingerprint(), nil)
	}
	out := cmd.OutOrStdout()
	note(out, "fleet %s trusts its first keys: %s, of which %d sign trust bundles; %s, of which %d sign each deployment", b.Fleet,
		plural(len(b.Roots.Keys), "root", "roots"), b.Roots.Threshold, plural(len(b.Keys), "deployer", "deployers"), b.Threshold)
	note(out, "fingerprint of the roots: %s", b.Roots.Fingerprint())
	note(out, "context %s signs with %s", c.Name, c.SigningKey)
	note(out, "\nTAKE THE ROOT KEYS OFF THIS MACHINE: %s", filepath.Join(p.dir, "root-*.key"))
	note(out, "Whoever has %d of them decides what every machine runs. Keep each in another place that is not connected", b.Roots.Threshold)
	note(out, "to anything; they are needed only by trust add, remove, set and rotate. Without %d of them nobody can change", b.Roots.Threshold)
	note(out, "whom the agents trust, ever: keep them well.")
	note(out, "\nThen: %s package publish PATH · %s token create", a.self, a.self)
	return nil
}
