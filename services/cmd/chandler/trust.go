package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/sign"
	"chandler/events/trust"
	"chandler/services/keyring"
)

func newTrust(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "trust", Short: "Whose orders the fleet's agents obey",
		Long: `Agents obey orders that deployers signed, and run packages that publishers signed. Who these are says the
trust bundle, which root keys sign. Root keys are needed for nothing else: keep them off every machine.`}
	cmd.AddCommand(trustInit(a), trustShow(a), trustPin(a), trustAdd(a), trustRemove(a), trustSet(a), trustRotate(a), trustSign(a), trustSend(a), trustKey(a))
	return cmd
}

// trustView is what trust show tells.
type trustView struct {
	Bundle      trust.Bundle `json:"bundle"`
	Fingerprint string       `json:"fingerprint"` // of the root keys
	// Accepted: this machine followed the bundle from root keys that were made or accepted here. Otherwise it is
	// what the service says.
	Accepted bool          `json:"accepted"`
	Service  int           `json:"service_version"` // newest that the service has
	Agents   map[int]int   `json:"agents"`          // how many hold each version; 0: none, or they do not say
	Behind   []behindAgent `json:"behind"`          // those that hold another version
}

// behindAgent is an agent that holds another version than the newest.
type behindAgent struct {
	Agent    string    `json:"agent"`
	Hostname string    `json:"hostname"`
	Trust    int       `json:"trust"`
	LastSeen time.Time `json:"last_seen"`
	Why      string    `json:"why,omitempty"`
}

func trustShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the bundle in force, its keys, and which agents do not have it yet", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			view, err := a.viewTrust(cmd.Context(), c)
			if err != nil {
				return err
			}
			if !people(a.output) {
				return writeDetail(cmd.OutOrStdout(), a.output, view, view.Fingerprint, nil)
			}
			return a.writeTrust(cmd, view)
		}),
	}
}

func (a *app) viewTrust(ctx context.Context, c *client) (trustView, error) {
	all, err := trustBundles(ctx, c, 0)
	if err != nil {
		return trustView{}, err
	}
	view := trustView{Agents: map[int]int{}, Behind: []behindAgent{}}
	for _, envelope := range all {
		b, err := trust.Open(envelope)
		if err != nil {
			return view, fmt.Errorf("the credential service gave something else than a trust bundle: %w", err)
		}
		if b.Version > view.Service {
			view.Bundle, view.Service = b, b.Version
		}
	}
	dir, err := a.trustDir(c.connection)
	if err != nil {
		return view, err
	}
	_, envelope, err := pinned{dir}.load()
	switch {
	case err != nil:
		return view, err
	case envelope != nil:
		if view.Bundle, err = a.followTrust(ctx, c); err != nil {
			return view, err
		}
		view.Accepted = true
	case len(all) == 0:
		return view, a.noTrust(nil)
	}
	view.Fingerprint = view.Bundle.Roots.Fingerprint()
	found, err := ask(ctx, c, events.AgentList, events.AgentQuery{})
	if err != nil {
		return view, err
	}
	for _, v := range found.Agents {
		view.Agents[v.Facts.Trust]++
		if v.Facts.Trust != view.Bundle.Version {
			view.Behind = append(view.Behind, behindAgent{Agent: v.Facts.ID, Hostname: v.Facts.Hostname, Trust: v.Facts.Trust, LastSeen: v.LastSeen})
		}
	}
	return view, nil
}

// keyRow is a key of a bundle as people see it.
type keyRow struct {
	role, note string
	key        sign.PublicKey
}

func keyRows(b trust.Bundle) (rows []keyRow) {
	for _, k := range b.Keys {
		rows = append(rows, keyRow{"deployer", "", k})
	}
	for _, k := range b.Publishers {
		rows = append(rows, keyRow{"publisher", "", k})
	}
	for _, k := range b.Roots.Keys {
		rows = append(rows, keyRow{"root", "", k})
	}
	for _, k := range b.Revoked {
		rows = append(rows, keyRow{"revoked", k.Why, k.PublicKey})
	}
	return rows
}

var keyColumns = listing[keyRow]{
	columns: []column[keyRow]{
		{"ROLE", false, func(r keyRow) any { return r.role }},
		{"NAME", false, func(r keyRow) any { return r.key.Name }},
		{"ID", false, func(r keyRow) any { return r.key.ID() }},
		{"WHY", false, func(r keyRow) any { return r.note }},
	},
}

func (a *app) writeTrust(cmd *cobra.Command, v trustView) error {
	out := cmd.OutOrStdout()
	b := v.Bundle
	accepted := "yes"
	if !v.Accepted {
		accepted = "no, it is what the service says. " + a.comparing()
	}
	versions := ""
	for _, version := range slices.Sorted(maps.Keys(v.Agents)) {
		if versions != "" {
			versions += ", "
		}
		versions += fmt.Sprintf("%s with version %d", plural(v.Agents[version], "agent", "agents"), version)
	}
	if err := writeDetail(out, a.output, v, v.Fingerprint, []field{
		{"Fleet", b.Fleet}, {"Version", b.Version}, {"Issued", a.longTime(b.Issued)}, {"Accepted here", accepted}, {"Fingerprint of the roots", v.Fingerprint},
		{"An order needs", fmt.Sprintf("%d of %s", b.Threshold, plural(len(b.Keys), "deployer", "deployers"))},
		{"References", map[bool]string{true: "must be pinned", false: "may be unpinned"}[b.PinnedReferences]},
		{"A trust bundle needs", fmt.Sprintf("%d of %s", b.Roots.Threshold, plural(len(b.Roots.Keys), "root", "roots"))}, {"Agents", versions},
	}); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if err := keyColumns.write(out, a.output, keyRows(b)); err != nil {
		return err
	}
	if v.Service < b.Version {
		note(cmd.ErrOrStderr(), "WARNING: the service has version %d only: it was set back. Send the newer one again: %s trust send FILE", v.Service, a.self)
	}
	if len(v.Behind) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	return a.behindColumns().write(out, a.output, v.Behind)
}

func (a *app) behindColumns() listing[behindAgent] {
	return listing[behindAgent]{
		columns: []column[behindAgent]{
			{"BEHIND", false, func(r behindAgent) any { return r.Hostname }},
			{"ID", false, func(r behindAgent) any { return r.Agent }},
			{"TRUST", false, func(r behindAgent) any { return countCell(r.Trust) }},
			{"SEEN", false, func(r behindAgent) any { return a.agoCell(r.LastSeen) }},
			{"WHY", false, func(r behindAgent) any { return r.Why }},
		},
	}
}

func trustKey(a *app) *cobra.Command {
	var fresh, encrypt bool
	cmd := &cobra.Command{
		Use: "key KEY", Short: "Print the public half of a key, for an administrator to add to the bundle", Args: cobra.ExactArgs(1),
		Long: `KEY is a file, or ssh-agent: and a key's fingerprint or comment. With --new the file is made first. What is
printed is no secret: an administrator adds it with trust add.`,
		Example: `  chandler trust key ~/.config/chandler/my.key --new --encrypt > bob.pub
  chandler trust key ssh-agent:bob@ws-1 > bob.pub`,
	}
	asked := a.asksPassphrase(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if encrypt && !fresh {
			return errors.New("--encrypt is for a key that is made here: say --new too")
		}
		if fresh {
			if err := makeKeyFile(args[0], encrypt, asked); err != nil {
				return err
			}
		}
		signer, err := asked.open(args[0])
		if err != nil {
			return err
		}
		public, err := keyring.MarshalPublic(signer.Public())
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(public)
		note(cmd.ErrOrStderr(), "key %s", signer.Public().ID())
		return err
	}
	cmd.Flags().BoolVar(&fresh, "new", false, "make the key, in a new file")
	cmd.Flags().BoolVar(&encrypt, "encrypt", false, "encrypt the new file by a passphrase")
	return cmd
}
