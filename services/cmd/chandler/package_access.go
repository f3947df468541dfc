package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/agent/identity"
	"chandler/events"
	"chandler/events/manifest"
)

// accessFlags say for whom access is decided, as typed.
type accessFlags struct{ agent, program, collection, domain string }

func packageAccess(a *app) *cobra.Command {
	var f accessFlags
	cmd := &cobra.Command{
		Use: "access NAME[@VERSION]", Short: "Say who would read, who would run, and who would be met on the network", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeArguments(completePackages),
		Long: `Says for each program and each kind of client who would read the content, by whose account the program
would run, and who would be met on the network while it runs; and for each resource on an external source which account
would be lent, or why none would be. Nothing is tried: "chandler account test" does that.

Accounts that are limited to collections or to a domain count only where --collection or --domain names them. With
--agent it is decided for the kind and the domain of that machine.`,
		Example: `  chandler package access hello@2.10-3 --collection workstations
  chandler package access hello --agent ws-0412 --program install`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			if err := a.only(formTable, formWide, formJSON, formYAML); err != nil {
				return err
			}
			view, err := decideAccess(cmd, c, args[0], f)
			if err != nil {
				return err
			}
			if !people(a.output) {
				return writeData(cmd.OutOrStdout(), a.output, view)
			}
			for _, line := range accessLines(view) {
				note(cmd.OutOrStdout(), "%s", line)
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&f.agent, "agent", "", "for this machine (id or host name), instead of for each kind of client")
	cmd.Flags().StringVar(&f.program, "program", "", "only this program")
	cmd.Flags().StringVar(&f.collection, "collection", "", "as it would be deployed to this collection")
	cmd.Flags().StringVar(&f.domain, "domain", "", "on machines of this domain")
	cmd.MarkFlagsMutuallyExclusive("agent", "domain")
	a.completeFlag(cmd, "agent", completeAgents)
	a.completeFlag(cmd, "program", completePrograms)
	a.completeFlag(cmd, "collection", completeCollections)
	return cmd
}

// accessView is what package access tells.
type accessView struct {
	Package    string          `json:"package"`
	Version    string          `json:"version"`
	Place      identity.Place  `json:"place"`                // of the content
	Agent      string          `json:"agent,omitempty"`      // it was decided for
	Host       string          `json:"host,omitempty"`       // of that agent
	Collection string          `json:"collection,omitempty"` // it was decided for
	Domain     string          `json:"domain,omitempty"`
	Programs   []programAccess `json:"programs"`
}

type programAccess struct {
	Program             string         `json:"program"`
	Run                 events.RunMode `json:"run"`
	InstallationAccount string         `json:"installation_account,omitempty"`
	Clients             []clientAccess `json:"clients"`
}

// clientAccess is the answer for one kind of client. Where it is refused there is no other answer.
type clientAccess struct {
	Client    string           `json:"client"`
	Reader    identity.Who     `json:"reader,omitempty"`
	Executor  identity.Who     `json:"executor,omitempty"`
	Network   identity.Who     `json:"network,omitempty"` // "": nobody
	Elevated  bool             `json:"elevated,omitempty"`
	Note      string           `json:"note,omitempty"`
	Reason    events.Reason    `json:"reason,omitempty"` // it is refused
	Why       string           `json:"why,omitempty"`
	Resources []resourceAccess `json:"resources,omitempty"`
}

// machineKind is what of a machine decides.
type machineKind struct {
	name             string
	client           events.ClientKind
	domainController bool
}

func machineKinds() []machineKind {
	return []machineKind{{"advanced", events.Advanced, false}, {"legacy", events.Legacy, false}, {"legacy domain controller", events.Legacy, true}}
}

// decideAccess asks for what the answer depends on, and decides.
func decideAccess(cmd *cobra.Command, c *client, name string, f accessFlags) (accessView, error) {
	name, version, _ := strings.Cut(name, "@")
	found, err := ask(cmd.Context(), c, events.ContentShow, events.Named{Name: name, Version: version})
	if err != nil {
		return accessView{}, err
	}
	m, err := manifest.Open(found.Envelope) // what was signed, not what is said of it
	if err != nil {
		return accessView{}, fmt.Errorf("read the manifest of %s: %w", packageName(found), err)
	}
	accounts, err := ask(cmd.Context(), c, events.AccountList, events.Nothing{})
	if err != nil {
		return accessView{}, err
	}
	view := accessView{Package: m.Package, Version: m.Version, Place: identity.OnDP, Collection: f.collection, Domain: f.domain, Programs: []programAccess{}}
	if manifest.External(m) {
		view.Place = identity.External
	}
	kinds := machineKinds()
	if f.agent != "" {
		agent, err := resolveAgent(cmd.Context(), c, f.agent)
		if err != nil {
			return view, err
		}
		facts := agent.Facts
		view.Agent, view.Host, view.Domain = facts.ID, facts.Hostname, facts.Domain
		kinds = []machineKind{kindOf(facts)}
	}
	deciding := accessDecision{manifest: m, place: view.Place, collection: f.collection, domain: view.Domain}
	deciding.know(accounts.Accounts)
	for _, program := range programNames(m) {
		if f.program == "" || f.program == program {
			view.Programs = append(view.Programs, deciding.program(program, kinds))
		}
	}
	if len(view.Programs) == 0 {
		return view, fmt.Errorf("%s has no program %s: it has %s", packageName(found), f.program, strings.Join(programNames(m), ", "))
	}
	return view, nil
}

// kindOf is what the machine says of itself; one that says nothing is an advanced one.
func kindOf(facts events.Facts) machineKind {
	kind := machineKind{client: cmp.Or(facts.ClientKind, events.Advanced), domainController: facts.DomainController}
	for _, known := range machineKinds() {
		if known.client == kind.client && known.domainController == kind.domainController {
			kind.name = known.name
		}
	}
	kind.name = cmp.Or(kind.name, string(kind.client)+" domain controller")
	return kind
}

// accessDecision is what the answers for one package depend on.
type accessDecision struct {
	manifest           events.Manifest
	place              identity.Place
	accounts           []events.AccountNotice
	suspended          map[string]string // accounts that are lent no more, and why
	collection, domain string
}

func (d *accessDecision) know(accounts []events.AccountView) {
	d.suspended = map[string]string{}
	for _, v := range accounts {
		d.accounts = append(d.accounts, v.AccountNotice)
		d.suspended[v.Account] = v.Suspended
	}
}

func (d accessDecision) program(name string, kinds []machineKind) programAccess {
	p := d.manifest.Programs[name]
	answer := programAccess{Program: name, Run: p.Run, InstallationAccount: p.InstallationAccount}
	for _, kind := range kinds {
		answer.Clients = append(answer.Clients, d.client(p, kind))
	}
	return answer
}

func (d accessDecision) client(p events.Program, kind machineKind) clientAccess {
	question := identity.Question{Client: kind.client, Run: p.Run, Content: d.place, InstallationAccount: p.InstallationAccount, DomainController: kind.domainController}
	if named := d.named(p.InstallationAccount); named != nil {
		question.AccountKind = named.Kind
	}
	decided, refused := identity.Decide(question)
	if refused != nil {
		return clientAccess{Client: kind.name, Reason: refused.Reason, Why: refused.Text}
	}
	return clientAccess{Client: kind.name, Reader: decided.Reader, Executor: decided.Executor, Network: decided.Network, Elevated: decided.Elevated, Note: decided.Note,
		Resources: d.resources(p, decided)}
}

// named is the account of a name, or nil.
func (d accessDecision) named(name string) *events.AccountNotice {
	i := slices.IndexFunc(d.accounts, func(a events.AccountNotice) bool { return a.Account == name })
	if i < 0 {
		return nil
	}
	return &d.accounts[i]
}
