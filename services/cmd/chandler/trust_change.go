package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/sign"
	"chandler/events/trust"
	"chandler/services/keyring"
)

// changeFlags are those that trust add, remove, set and rotate have in common.
type changeFlags struct {
	rootKeys        []string
	out             string
	deployersNeeded int
	dryRun, yes     bool
	asked           *asking
}

func (a *app) changeFlags(cmd *cobra.Command) *changeFlags {
	f := &changeFlags{asked: a.asksPassphrase(cmd)}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.rootKeys, "root-key", nil, "root key to sign with: a file, or ssh-agent:…; repeatable (default: those in the context's trust directory)")
	flags.StringVar(&f.out, "out", "", "where too few root keys are at hand: the file for further signatures (default: in the context's trust directory)")
	flags.IntVar(&f.deployersNeeded, "deployers-needed", 0, "how many deployers must sign each deployment from now on (0: as before)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would change, and whom it would leave behind; change nothing")
	flags.BoolVar(&f.yes, "yes", false, "do not ask, also where agents or deployments would be left behind")
	return f
}

func trustAdd(a *app) *cobra.Command {
	var ref string
	var onlyPublisher, onlyDeployer bool
	cmd := &cobra.Command{
		Use: "add NAME --key KEY", Short: "Trust a further deployer and publisher", Args: cobra.ExactArgs(1),
		Example: `  chandler trust add bob --key bob.pub
  chandler trust add build --key build.pub --publisher-only
  chandler trust add carol --key carol.pub --deployers-needed 2`,
	}
	f := a.changeFlags(cmd)
	cmd.RunE = a.connected(func(cmd *cobra.Command, c *client, args []string) error {
		key, err := readPublic(ref)
		if err != nil {
			return fmt.Errorf("--key: %w", err)
		}
		key = key.Named(args[0])
		return a.changeTrust(cmd, c, f, func(b *trust.Bundle) error {
			if !onlyPublisher {
				b.Keys = append(b.Keys, key)
			}
			if !onlyDeployer {
				b.Publishers = append(b.Publishers, key)
			}
			return nil
		}, nil)
	})
	cmd.Flags().StringVar(&ref, "key", "", "the public key: a file (PEM, or a line of ssh-ed25519), or ssh-agent: and a fingerprint or comment")
	cmd.Flags().BoolVar(&onlyPublisher, "publisher-only", false, "the key signs packages, and no deployments")
	cmd.Flags().BoolVar(&onlyDeployer, "deployer-only", false, "the key signs deployments, and no packages")
	_ = cmd.MarkFlagRequired("key")
	cmd.MarkFlagsMutuallyExclusive("publisher-only", "deployer-only")
	return cmd
}

func trustRemove(a *app) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Trust a deployer or publisher no more", Args: cobra.ExactArgs(1),
		Long: `Revokes a key: nothing that it signed counts any more. Live deployments that only it signed are refused by
every agent that has not begun them; --dry-run lists them, and deployment resign signs them anew.`,
		ValidArgsFunction: a.completing(completeTrusted),
	}
	f := a.changeFlags(cmd)
	cmd.RunE = a.connected(func(cmd *cobra.Command, c *client, args []string) error {
		return a.changeTrust(cmd, c, f, func(b *trust.Bundle) error { return revokeKey(b, args[0], why, a) }, nil)
	})
	cmd.Flags().StringVar(&why, "why", "", "why, kept in the bundle for all to read")
	return cmd
}

// revokeKey moves the keys of a name, or the key of an id's beginning, to the revoked ones.
func revokeKey(b *trust.Bundle, name, why string, a *app) error {
	fits := func(k sign.PublicKey) bool {
		return k.Name == name || len(name) >= shownKey && strings.HasPrefix(k.ID(), name)
	}
	revoked := map[string]bool{}
	for _, list := range []*[]sign.PublicKey{&b.Keys, &b.Publishers} {
		for _, k := range *list {
			if fits(k) && !revoked[k.ID()] {
				revoked[k.ID()] = true
				b.Revoked = append(b.Revoked, trust.RevokedKey{PublicKey: k, At: a.now().UTC(), Why: why})
			}
		}
	}
	if len(revoked) == 0 {
		return fmt.Errorf("no deployer or publisher is named %q: `%s trust show` lists them", name, a.self)
	}
	gone := func(k sign.PublicKey) bool { return revoked[k.ID()] }
	b.Keys, b.Publishers = slices.DeleteFunc(b.Keys, gone), slices.DeleteFunc(b.Publishers, gone)
	if b.Threshold > len(b.Keys) {
		return fmt.Errorf("%s would be left, and each deployment needs %d: add another first, or lower that with trust set --deployers-needed", plural(len(b.Keys), "deployer", "deployers"), b.Threshold)
	}
	return nil
}

func trustSet(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "set [--deployers-needed N] [--pinned-references]", Short: "Change how many deployers must sign, and whether references must be pinned", Args: cobra.NoArgs,
		Long: `How many deployers must sign each deployment: raised, it makes agents refuse live deployments that too few
deployers signed and that they have not begun: --dry-run lists them, and what is to be done about each.

--pinned-references makes agents refuse programs that refer to files on external sources without saying their SHA-256,
or to whole folders; --pinned-references=false allows them again. With --dry-run it changes nothing, and lists the live
deployments that agents would refuse then; one that has ended on all its machines is only mentioned.`,
		Example: `  chandler trust set --deployers-needed 2 --dry-run
  chandler trust set --pinned-references --dry-run`,
	}
	var pinned bool
	f := a.changeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pins := cmd.Flags().Changed("pinned-references")
		if f.deployersNeeded < 1 && (!pins || cmd.Flags().Changed("deployers-needed")) {
			return fmt.Errorf("--deployers-needed %d: at least one deployer must sign", f.deployersNeeded)
		}
		return a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			return a.changeTrust(cmd, c, f, func(b *trust.Bundle) error {
				if pins {
					b.PinnedReferences = pinned
				}
				return nil
			}, nil)
		})(cmd, args)
	}
	cmd.Flags().Lookup("deployers-needed").Usage = "how many deployers must sign each deployment from now on"
	cmd.Flags().BoolVar(&pinned, "pinned-references", false, "agents refuse programs whose references name no sha256")
	cmd.MarkFlagsOneRequired("deployers-needed", "pinned-references")
	return cmd
}

// shownKey is how much of a key's id is shown, and the least that is understood.
const shownKey = 12

func trustRotate(a *app) *cobra.Command {
	var roots, needed int
	var encrypt bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Replace the root keys by new ones, which are made here", Args: cobra.NoArgs,
		Long: `Makes new root keys in the context's trust directory. Agents follow them because the old ones sign the
bundle too; after that the old ones count for nothing. Take the new ones off this machine.`,
	}
	f := a.changeFlags(cmd)
	cmd.RunE = a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
		dir, err := a.trustDir(c.connection)
		if err != nil {
			return err
		}
		var passphrase []byte
		if encrypt && !f.dryRun {
			if passphrase, err = f.asked.newPassphrase(forNewKeys); err != nil {
				return err
			}
			defer clear(passphrase)
		}
		fresh := newRoots{dir: dir, n: roots, needed: needed, passphrase: passphrase}
		defer fresh.wipe()
		if err := a.changeTrust(cmd, c, f, fresh.into, fresh.write); err != nil || f.dryRun || !people(a.output) {
			return err
		}
		note(cmd.OutOrStdout(), "TAKE THE NEW ROOT KEYS OFF THIS MACHINE: %s", filepath.Join(dir, "root-v*.key"))
		return nil
	})
	cmd.Flags().IntVar(&roots, "roots", 0, "how many root keys to make (0: as many as before)")
	cmd.Flags().IntVar(&needed, "roots-needed", 0, "how many of them must sign a trust bundle (0: as many as before)")
	cmd.Flags().BoolVar(&encrypt, "encrypt", false, "encrypt the new keys by a passphrase")
	return cmd
}

// newRoots are root keys that take the place of others.
type newRoots struct {
	dir        string
	n, needed  int // 0: as before
	passphrase []byte
	keys       []sign.Key
	names      []string
}

// into makes the keys and puts them into a bundle. Their names bear its version, so that the files of no others
// are in the way.
func (r *newRoots) into(b *trust.Bundle) error {
	n, needed := cmp.Or(r.n, len(b.Roots.Keys)), cmp.Or(r.needed, b.Roots.Threshold)
	if n < 1 || needed < 1 || needed > n {
		return fmt.Errorf("--roots %d --roots-needed %d: at least one root is needed, and no more than there are", n, needed)
	}
	b.Roots = trust.Roots{Threshold: needed}
	for i := range n {
		key, err := freshKey()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("root-v%d-%d", b.Version, i+1)
		r.keys, r.names = append(r.keys, key), append(r.names, name)
		b.Roots.Keys = append(b.Roots.Keys, key.Public().Named(name))
	}
	return nil
}

// write keeps the keys in files, and gives them to sign with.
func (r *newRoots) write() (signers []sign.Signer, err error) {
	for i, key := range r.keys {
		file := filepath.Join(r.dir, r.names[i]+".key")
		if err := keyring.Write(file, key, r.passphrase); err != nil {
			return nil, fmt.Errorf("%w: if another rotation was begun, send its bundle (chandler trust send), or remove its keys", err)
		}
		signers = append(signers, key)
	}
	return signers, nil
}

func (r *newRoots) wipe() {
	for _, key := range r.keys {
		key.Wipe()
	}
}

// changeTrust makes the next bundle out of the one in force, tells what that does, signs it with the root keys
// at hand, and sends it; with too few of them it is written to a file for others to sign. further, which may be
// nil, gives other keys to sign with, once it is decided.
func (a *app) changeTrust(cmd *cobra.Command, c *client, f *changeFlags, change func(*trust.Bundle) error, further func() ([]sign.Signer, error)) error {
	present, err := a.followTrust(cmd.Context(), c)
	if err != nil {
		return err
	}
	next := present
	next.Version, next.Issued = present.Version+1, a.now().UTC()
	next.Keys, next.Publishers, next.Revoked = slices.Clone(present.Keys), slices.Clone(present.Publishers), slices.Clone(present.Revoked)
	if f.deployersNeeded > 0 {
		next.Threshold = f.deployersNeeded
	}
	if err := change(&next); err != nil {
		return err
	}
	if err := next.Validate(); err != nil {
		return fmt.Errorf("the trust bundle would be wrong: %w", err)
	}
	if err := a.weighTrust(cmd, c, f, present, next); err != nil || f.dryRun {
		return err
	}
	roots, err := a.rootKeys(c.connection, f.rootKeys, f.asked, present)
	if err != nil {
		return err
	}
	if further != nil {
		more, err := further()
		if err != nil {
			return err
		}
		roots = append(roots, more...)
	}
	envelope, err := trust.Sign(next, roots...)
	if err != nil {
		return err
	}
	return a.handOver(cmd, c, f.out, present, envelope)
}

// weighTrust shows what a bundle changes and what that does, and asks where somebody is left behind.
func (a *app) weighTrust(cmd *cobra.Command, c *client, f *changeFlags, present, next trust.Bundle) error {
	weighed, err := a.weigh(cmd.Context(), c, present, next)
	if err != nil {
		return err
	}
	if f.dryRun && !people(a.output) {
		return writeDetail(cmd.OutOrStdout(), a.output, weighed, next.Fleet, nil)
	}
	w := cmd.ErrOrStderr()
	if f.dryRun {
		w = cmd.OutOrStdout()
	}
	if err := a.tellImpact(w, weighed); err != nil || f.dryRun || weighed.harmless() {
		return err
	}
	return a.agree(cmd, "This leaves behind what is listed above.", f.yes)
}

// rootKeys opens the root keys that are named, or those that lie in the trust directory.
func (a *app) rootKeys(c connection, refs []string, asked *asking, present trust.Bundle) ([]sign.Signer, error) {
	named := len(refs) > 0
	if !named {
		dir, err := a.trustDir(c)
		if err != nil {
			return nil, err
		}
		if refs, err = rootFiles(dir); err != nil {
			return nil, err
		}
	}
	return openRoots(refs, asked, present, named)
}

// rootFiles are the root keys in a trust directory.
func rootFiles(dir string) (files []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "root-") && strings.HasSuffix(e.Name(), ".key") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, err
}

// openRoots opens keys; one that is no root of the bundle is an error where it was named.
func openRoots(refs []string, asked *asking, b trust.Bundle, named bool) ([]sign.Signer, error) {
	var opened []sign.Signer
	for _, ref := range refs {
		signer, err := asked.open(ref)
		if err != nil {
			return nil, err
		}
		switch key := signer.Public(); {
		case isRoot(b, key):
			opened = append(opened, signer)
		case named:
			return nil, fmt.Errorf("--root-key %s: key %.12s is no root of trust bundle version %d", ref, key.ID(), b.Version)
		}
	}
	return opened, nil
}

func isRoot(b trust.Bundle, key sign.PublicKey) bool {
	return slices.ContainsFunc(b.Roots.Keys, func(k sign.PublicKey) bool { return k.ID() == key.ID() })
}

// handOver sends a bundle that is signed by enough roots. One that others must sign first, or that could not
// be sent, it writes to a file.
func (a *app) handOver(cmd *cobra.Command, c *client, out string, present trust.Bundle, envelope []byte) error {
	next, err := trust.Open(envelope)
	if err != nil {
		return err
	}
	if out == "" {
		dir, err := a.trustDir(c.connection)
		if err != nil {
			return err
		}
		out = filepath.Join(dir, fmt.Sprintf("trust-v%d.json", next.Version))
	}
	complete, missing := trust.Missing(&present, envelope)
	if complete {
		sending := a.sendTrust(cmd, c, next, envelope)
		if sending == nil {
			return nil
		}
		if err := writeNew(out, envelope); err != nil {
			return errors.Join(sending, err)
		}
		return fmt.Errorf("%w; the signed bundle is in %s: `%s trust send %s` sends it again", sending, out, a.self, out)
	}
	if err := writeNew(out, envelope); err != nil {
		return fmt.Errorf("%w: another change waits for signatures there: send it, or remove that file", err)
	}
	return a.answer(cmd, next, out, "trust bundle version %d is not in force: %s.\nIt is in %s. Where such a key is: %s trust sign %s --root-key KEY; and then: %s trust send %s",
		next.Version, missing, out, a.self, out, a.self, out)
}

// sendTrust hands a bundle to the service, unless that has it, and accepts it here.
func (a *app) sendTrust(cmd *cobra.Command, c *client, b trust.Bundle, envelope []byte) error {
	there, err := trustBundles(cmd.Context(), c, b.Version-1)
	if err != nil {
		return err
	}
	if len(there) == 0 || !bytes.Equal(there[0], envelope) {
		if _, err := ask(cmd.Context(), c, events.TrustSet, events.TrustRequest{Bundle: envelope}); err != nil {
			return err
		}
	}
	dir, err := a.trustDir(c.connection)
	if err != nil {
		return err
	}
	if err := writePrivate(pinned{dir}.file(), envelope); err != nil {
		return err
	}
	return a.answer(cmd, b, b.Fleet, "trust bundle version %d is in force; agents that are connected get it within a minute: %s trust show", b.Version, a.self)
}
