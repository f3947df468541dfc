package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/trust"
)

// pinned is the directory in which this machine remembers, for one context, the newest trust bundle that it
// accepted. What follows must be signed by the roots of that one, so that no service can hand this machine
// other keys than the agents have.
type pinned struct{ dir string }

func (p pinned) file() string { return filepath.Join(p.dir, "trust.json") }

// load gives the bundle and its envelope; the envelope is nil where none was accepted yet.
func (p pinned) load() (trust.Bundle, []byte, error) {
	envelope, err := readSmall(p.file())
	if errors.Is(err, fs.ErrNotExist) {
		return trust.Bundle{}, nil, nil
	}
	if err != nil {
		return trust.Bundle{}, nil, fmt.Errorf("read the trust bundle: %w", err)
	}
	b, err := trust.Open(envelope)
	if err != nil {
		return trust.Bundle{}, nil, fmt.Errorf("trust bundle %s: %w", p.file(), err)
	}
	return b, envelope, nil
}

// keep remembers a bundle that was accepted: the one of this version among the envelopes.
func (p pinned) keep(version int, envelopes [][]byte) error {
	for _, envelope := range envelopes {
		if b, err := trust.Open(envelope); err == nil && b.Version == version {
			return writePrivate(p.file(), envelope)
		}
	}
	return fmt.Errorf("trust bundle version %d is not among those that were read", version)
}

// trustDir is where a context's trust is kept: where trust init was told, or beside the contexts.
func (a *app) trustDir(c connection) (string, error) {
	if c.TrustDir != "" {
		return c.TrustDir, nil
	}
	home, err := a.configHome()
	return filepath.Join(home, "trust", c.Name), err
}

// trustBundles reads the signed bundles above a version from the service, oldest first. Nothing is verified.
func trustBundles(ctx context.Context, c *client, have int) ([][]byte, error) {
	var all [][]byte
	for {
		page, err := ask(ctx, c, events.TrustShow, events.TrustQuery{Have: have})
		if err != nil {
			return nil, err
		}
		all = append(all, page.Bundles...)
		if !page.More || len(page.Bundles) == 0 {
			return all, nil
		}
		last, err := trust.Open(page.Bundles[len(page.Bundles)-1])
		if err != nil {
			return nil, fmt.Errorf("the credential service gave something else than a trust bundle: %w", err)
		}
		if last.Version <= have {
			return nil, fmt.Errorf("the credential service gives trust bundle version %d again and again", last.Version)
		}
		have = last.Version
	}
}

// followTrust gives the bundle in force as this machine can vouch for it: the one it accepted last, and what
// followed that.
func (a *app) followTrust(ctx context.Context, c *client) (trust.Bundle, error) {
	dir, err := a.trustDir(c.connection)
	if err != nil {
		return trust.Bundle{}, err
	}
	b, envelope, err := pinned{dir}.load()
	if err != nil {
		return trust.Bundle{}, err
	}
	newer, err := trustBundles(ctx, c, b.Version)
	if err != nil {
		return trust.Bundle{}, err
	}
	if envelope == nil {
		return trust.Bundle{}, a.noTrust(newer)
	}
	next, err := b.Follow(newer)
	if err != nil {
		return trust.Bundle{}, fmt.Errorf("the trust bundle that the service gives does not follow the one accepted here (version %d, %s): %w", b.Version, pinned{dir}.file(), err)
	}
	if next.Version > b.Version {
		err = pinned{dir}.keep(next.Version, newer)
	}
	return next, err
}

// noTrust says what is to be done where this machine has accepted no bundle.
func (a *app) noTrust(there [][]byte) error {
	if len(there) == 0 {
		return fmt.Errorf("the fleet has no keys yet that sign orders: `%s trust init` makes them", a.self)
	}
	b, err := trust.Open(there[len(there)-1])
	if err != nil {
		return fmt.Errorf("the credential service gave something else than a trust bundle: %w", err)
	}
	return fmt.Errorf("this machine has not accepted the fleet's root keys. The service says that their fingerprint is %s. %s", b.Roots.Fingerprint(), a.comparing())
}

// comparing says how the roots are accepted. The fingerprint is not put into the command: whoever copies what
// the service says has compared nothing.
func (a *app) comparing() string {
	return "Compare it with what trust init printed (trust show says it where that was done), and then: " + a.self + " trust pin FINGERPRINT"
}

// findRoots follows the bundles from the one whose roots have a fingerprint.
func (a *app) findRoots(fingerprint string, all [][]byte) (trust.Bundle, error) {
	if err := events.ValidDigest(fingerprint); err != nil {
		return trust.Bundle{}, fmt.Errorf("nothing was accepted: fingerprint of the roots: %w", err)
	}
	known := slices.ContainsFunc(all, func(envelope []byte) bool {
		b, err := trust.Open(envelope)
		return err == nil && b.Roots.Fingerprint() == fingerprint
	})
	if !known && len(all) > 0 {
		return trust.Bundle{}, fmt.Errorf("nothing was accepted: the service has no trust bundle whose roots have the fingerprint %s. Look again at what trust init printed, and whether this is that fleet (`%s context show`); if both are right, the service hands out other keys: tell whoever runs the broker", fingerprint, a.self)
	}
	if !known {
		return trust.Bundle{}, a.noTrust(nil)
	}
	b, err := trust.Begin(fingerprint, all)
	if err != nil {
		return b, fmt.Errorf("nothing was accepted: %w", err)
	}
	return b, nil
}

func trustPin(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "pin FINGERPRINT", Short: "Accept the fleet's root keys on this machine, by their fingerprint", Args: cobra.ExactArgs(1),
		Long: `Accepts on this machine the root keys with the fingerprint that trust show says where trust init was done.
Get the fingerprint by another way than the fleet's services: it is what keeps these from handing you others.`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			dir, err := a.trustDir(c.connection)
			if err != nil {
				return err
			}
			there, envelope, err := pinned{dir}.load()
			if err != nil {
				return err
			}
			if envelope != nil && there.Roots.Fingerprint() != args[0] {
				return fmt.Errorf("other root keys are accepted here: %s (%s). Newer ones are followed by themselves; for another fleet, use another context", there.Roots.Fingerprint(), pinned{dir}.file())
			}
			all, err := trustBundles(cmd.Context(), c, 0)
			if err != nil {
				return err
			}
			b, err := a.findRoots(args[0], all)
			if err != nil {
				return err
			}
			if err := (pinned{dir}).keep(b.Version, all); err != nil {
				return err
			}
			return a.answer(cmd, b, b.Fleet, "trust bundle version %d of fleet %s is accepted here", b.Version, b.Fleet)
		}),
	}
}
