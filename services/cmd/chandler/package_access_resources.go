package main

import (
	"fmt"
	"slices"
	"strings"

	"chandler/agent/identity"
	"chandler/events"
	"chandler/events/advice"
	"chandler/events/manifest"
	"chandler/events/resource"
	"chandler/events/scope"
)

// resourceAccess is who would read one resource on an external source.
type resourceAccess struct {
	Resource string        `json:"resource"`
	When     string        `json:"when"` // content or reference
	Optional bool          `json:"optional,omitempty"`
	Identity identity.Who  `json:"identity,omitempty"` // "": nobody
	Account  string        `json:"account,omitempty"`
	User     string        `json:"user,omitempty"`
	Reason   events.Reason `json:"reason,omitempty"` // it would not be read, before anybody tries
	Why      string        `json:"why,omitempty"`
	Fix      string        `json:"fix,omitempty"`
}

// resources are those of the content, by its reader, and then the program's references, by who is met on the network.
func (d accessDecision) resources(p events.Program, decided identity.Answer) []resourceAccess {
	var all []resourceAccess
	for _, address := range contentResources(d.manifest) {
		all = append(all, d.resource(resourceAccess{Resource: address, When: events.AccessContent, Identity: decided.Reader}, p))
	}
	for _, r := range p.References {
		all = append(all, d.resource(resourceAccess{Resource: r.URL, When: events.AccessReference, Optional: r.Optional, Identity: decided.Network}, p))
	}
	return all
}

// contentResources are where a package's files lie on external sources: those of a program without references.
func contentResources(m events.Manifest) []string { return manifest.Resources(m, "") }

// resource says by which account somebody would read it.
func (d accessDecision) resource(r resourceAccess, p events.Program) resourceAccess {
	query := scope.Query{Resource: r.Resource, Collection: d.collection, Domain: d.domain}
	var account events.AccountNotice
	var none *scope.None
	switch r.Identity {
	case identity.NetworkAccess:
		account, none = scope.Choose(d.accounts, query)
	case identity.Installation:
		account.Account = p.InstallationAccount
		if named := d.named(p.InstallationAccount); named != nil {
			account, none = *named, scope.Admits(*named, query)
			break
		}
		r.Fix = fmt.Sprintf("`chandler account set %s --kind %s --user USER` makes it", account.Account, events.SoftwareInstallation)
		none = &scope.None{Reason: events.CredentialDenied, Why: "there is no account " + account.Account}
	case identity.Nobody:
		none = &scope.None{Reason: events.NoNetworkIdentity, Why: "the account that runs the program has no identity on the network"}
	}
	r.Account, r.User = account.Account, account.User
	switch {
	case none != nil:
		r.Reason, r.Why = none.Reason, none.Why
	case d.suspended[account.Account] != "":
		r.Reason, r.Why = events.CredentialRejected, d.suspended[account.Account]
	default:
		return r
	}
	switch {
	case r.Fix != "":
	case r.Reason == events.CredentialDenied && r.Identity == identity.Installation:
		r.Fix = "set the account again with that in its scope"
	case r.Reason == events.NetworkAccessAccountMissing || r.Reason == events.NoNetworkIdentity: // the others say it
		r.Fix = advice.For(events.Access{Resource: r.Resource, Identity: string(r.Identity), Reason: r.Reason})
	}
	return r
}

// accessLines tell it, the programs in order.
func accessLines(v accessView) []string {
	lines := []string{fmt.Sprintf("package %s@%s, content on %s", v.Package, v.Version, map[identity.Place]string{identity.OnDP: "distribution points", identity.External: "an external source"}[v.Place])}
	if v.Agent != "" {
		lines[0] += fmt.Sprintf(", on %s (%s)", cellOr(v.Host, "agent"), v.Agent)
	}
	for _, p := range v.Programs {
		title := fmt.Sprintf("program %s, run %s", p.Program, p.Run)
		if p.InstallationAccount != "" {
			title += ", installation account " + p.InstallationAccount
		}
		lines = append(lines, "", title)
		for _, c := range p.Clients {
			lines = append(lines, "  "+c.Client)
			for _, line := range clientLines(c) {
				lines = append(lines, "    "+line)
			}
		}
	}
	return lines
}

func clientLines(c clientAccess) []string {
	if c.Reason != "" {
		return []string{fmt.Sprintf("fails: %s: %s", c.Reason, c.Why)}
	}
	runs := whoText(c.Executor)
	if c.Elevated {
		runs += ", elevated while it runs"
	}
	lines := []string{"reads the content: " + whoText(c.Reader), "runs the program: " + runs, "met on the network: " + whoText(c.Network)}
	for _, r := range c.Resources {
		lines = append(lines, resourceLines(r)...)
	}
	if c.Note != "" {
		lines = append(lines, "note: "+c.Note)
	}
	return lines
}

func whoText(w identity.Who) string {
	if w == identity.Nobody {
		return "nobody"
	}
	return strings.ReplaceAll(string(w), "-", " ")
}

func resourceLines(r resourceAccess) []string {
	what := r.When
	if r.Optional {
		what = "optional " + what
	}
	what += " " + resource.Shown(r.Resource) + ": "
	if r.Reason == events.NoReason {
		return []string{what + "read by " + advice.Who(events.Access{Identity: string(r.Identity), Account: r.Account, User: r.User})}
	}
	fails := "fails"
	if r.Optional {
		fails = "is missing"
	}
	return slices.DeleteFunc([]string{what + fails + ": " + string(r.Reason) + ": " + r.Why, "  advice: " + r.Fix}, func(line string) bool { return line == "  advice: " })
}
