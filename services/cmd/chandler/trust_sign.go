package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"chandler/events/sign"
	"chandler/events/trust"
)

func trustSign(a *app) *cobra.Command {
	var yes bool
	var rootKeys []string
	cmd := &cobra.Command{
		Use: "sign FILE --root-key KEY", Short: "Sign a trust bundle that needs further root keys", Args: cobra.ExactArgs(1),
		Long: `Shows what the bundle in FILE says, and adds signatures to it. Needs no connection: it can be done on a machine
that has none.`,
	}
	asked := a.asksPassphrase(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		envelope, err := readSmall(args[0])
		if err != nil {
			return err
		}
		b, err := trust.Open(envelope)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		before, err := a.acceptedBefore(b)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if err := a.tellBundle(cmd, before, b); err != nil {
			return err
		}
		signers, err := openEither(rootKeys, asked, before, b)
		if err != nil {
			return err
		}
		if err := a.agree(cmd, "Every agent of the fleet will obey these keys.", yes); err != nil {
			return err
		}
		for _, signer := range signers {
			if envelope, err = sign.Add(envelope, signer); err != nil {
				return err
			}
		}
		if err := writePrivate(args[0], envelope); err != nil {
			return err
		}
		if before.Version == 0 { // as far as can be seen here: with the roots that it had before
			before = b
			before.Version--
		}
		if complete, missing := trust.Missing(&before, envelope); !complete {
			return a.answer(cmd, b, args[0], "%s is signed, and not complete: %s. Where such a key is: %s trust sign %s --root-key KEY", args[0], missing, a.self, args[0])
		}
		return a.answer(cmd, b, args[0], "%s is signed; where the fleet can be reached: %s trust send %s", args[0], a.self, args[0])
	}
	cmd.Flags().StringArrayVar(&rootKeys, "root-key", nil, "root key to sign with: a file, or ssh-agent:…; repeatable")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("root-key")
	return cmd
}

// openEither opens root keys of the bundle before or of the one that follows; version 0 of the former: any.
func openEither(refs []string, asked *asking, before, next trust.Bundle) (signers []sign.Signer, err error) {
	for _, ref := range refs {
		signer, err := asked.open(ref)
		if err != nil {
			return nil, fmt.Errorf("--root-key: %w", err)
		}
		if key := signer.Public(); before.Version > 0 && !isRoot(before, key) && !isRoot(next, key) {
			return nil, fmt.Errorf("--root-key %s: key %.12s is no root of this bundle, nor of version %d, which is accepted here", ref, key.ID(), before.Version)
		}
		signers = append(signers, signer)
	}
	return signers, nil
}

// tellBundle shows what a root key is about to sign: the changes, where this machine knows what was before.
func (a *app) tellBundle(cmd *cobra.Command, before, b trust.Bundle) error {
	out := cmd.ErrOrStderr()
	note(out, "trust bundle version %d of fleet %s: %d of %s sign each deployment, %d of %s a trust bundle", b.Version, b.Fleet,
		b.Threshold, plural(len(b.Keys), "deployer", "deployers"), b.Roots.Threshold, plural(len(b.Roots.Keys), "root", "roots"))
	if err := keyColumns.write(out, formTable, keyRows(b)); err != nil {
		return err
	}
	if before.Version == 0 {
		return nil
	}
	note(out, "\nAgainst version %d, which is accepted here:", before.Version)
	for _, line := range trust.Difference(before, b).Lines() {
		note(out, "  %s", line)
	}
	return nil
}

// acceptedBefore is the bundle of the same fleet that this machine accepted last; version 0: none. One that does
// not follow it is refused: no agent would take it.
func (a *app) acceptedBefore(b trust.Bundle) (trust.Bundle, error) {
	where, err := a.current()
	if err != nil {
		return trust.Bundle{}, err
	}
	dir, err := a.trustDir(where)
	if err != nil {
		return trust.Bundle{}, err
	}
	before, _, err := pinned{dir}.load()
	switch {
	case err != nil || before.Fleet != b.Fleet:
		return trust.Bundle{}, err
	case before.Version >= b.Version:
		return trust.Bundle{}, fmt.Errorf("it is version %d, and version %d is accepted here: nothing was signed; %s", b.Version, before.Version, changeAgain)
	}
	return before, nil
}

// changeAgain is what is to be done with a bundle that another one overtook.
const changeAgain = "make the change again, so that it follows the bundle in force"

func trustSend(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "send FILE", Short: "Hand a signed trust bundle to the fleet", Args: cobra.ExactArgs(1),
		Long: `Hands over a bundle that enough root keys signed: one from trust add, remove or rotate, or, where the
service was restored from an old copy, the one that was accepted here.`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			envelope, err := readSmall(args[0])
			if err != nil {
				return err
			}
			b, err := trust.Open(envelope)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			present, err := a.followTrust(cmd.Context(), c)
			if err != nil {
				return err
			}
			switch {
			case b.Version < present.Version:
				return fmt.Errorf("%s is version %d, and version %d is accepted here: nothing goes back; %s", args[0], b.Version, present.Version, changeAgain)
			case b.Version == present.Version:
				if err := a.sameBundle(c.connection, envelope); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
			default:
				if complete, missing := trust.Missing(&present, envelope); !complete {
					return fmt.Errorf("%s is not complete: %s", args[0], missing)
				}
			}
			return a.sendTrust(cmd, c, b, envelope)
		}),
	}
}

// sameBundle refuses another bundle of the version that is accepted here.
func (a *app) sameBundle(c connection, envelope []byte) error {
	dir, err := a.trustDir(c)
	if err != nil {
		return err
	}
	b, accepted, err := pinned{dir}.load()
	if err != nil {
		return err
	}
	if _, err := sign.Merge(accepted, envelope); err != nil {
		return fmt.Errorf("another bundle of version %d is in force: %s", b.Version, changeAgain)
	}
	return nil
}
