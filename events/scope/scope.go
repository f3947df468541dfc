// Package scope chooses the account by which a resource on an external source is read: the one place of that rule, for
// the service that lends accounts and for whoever wants to know beforehand.
//
// It is pure: accounts in, one account or the reason for none out. There is never a second choice: who is chosen is tried,
// and nobody else after them. Where accounts serve a resource equally well nobody is chosen: an administrator would not know
// who was tried.
package scope

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/resource"
)

// Query is what is to be read, and for whom.
type Query struct {
	Resource   string // address
	Collection string // of the deployment; "": of none, which only accounts without collections serve
	Domain     string // of the machine, as it says itself; "": of none, which only accounts without a domain serve
}

// None is why there is no account.
type None struct {
	Reason events.Reason
	Why    string
}

func (n *None) Error() string { return n.Why }

// Choose chooses the network access account for a resource, out of accounts of any kind: of those that may be used for the
// collection and in the domain, the one whose resources cover it most closely; of equals, one that names the collection,
// then one that names the domain. Either there is an account or the error is not nil; its reason is
// NetworkAccessAccountMissing, or CredentialDenied where several are equal in all of that. Compare it with nil before it
// becomes an error.
func Choose(accounts []events.AccountNotice, q Query) (events.AccountNotice, *None) {
	var barred []string
	var fit []events.AccountNotice
	for _, a := range accounts {
		if a.Kind != events.NetworkAccess || resource.Longest(a.Resources, q.Resource) == "" {
			continue
		}
		if why := bars(a, q); why != "" {
			barred = append(barred, why)
			continue
		}
		fit = append(fit, a)
	}
	if len(fit) > 0 {
		return closest(fit, q)
	}
	why := fmt.Sprintf("no network access account covers %s", resource.Shown(q.Resource))
	if len(barred) > 0 {
		slices.Sort(barred)
		why = fmt.Sprintf("no network access account may be used for %s: %s", resource.Shown(q.Resource), strings.Join(barred, "; "))
	}
	return events.AccountNotice{}, &None{events.NetworkAccessAccountMissing, why}
}

// Admits says whether one account, which was chosen by its name, may be used for the query; nil: it may. An installation
// account without resources may be used for every resource. The reason is CredentialDenied.
func Admits(a events.AccountNotice, q Query) *None {
	everything := a.Kind == events.SoftwareInstallation && len(a.Resources) == 0
	if _, err := resource.Parse(q.Resource); err != nil {
		return &None{events.CredentialDenied, "the resource cannot be read as an address"}
	}
	if !everything && resource.Longest(a.Resources, q.Resource) == "" {
		return &None{events.CredentialDenied, fmt.Sprintf("account %s does not cover %s", a.Account, resource.Shown(q.Resource))}
	}
	return Serves(a, q)
}

// Serves says whether an account may be used for a collection and in a domain at all, whatever the resource; nil: it may.
// The reason is CredentialDenied.
func Serves(a events.AccountNotice, q Query) *None {
	if why := bars(a, q); why != "" {
		return &None{events.CredentialDenied, why}
	}
	return nil
}

// bars says why an account that covers the resource may not be used; "" if it may.
func bars(a events.AccountNotice, q Query) string {
	switch {
	case len(a.Collections) > 0 && !slices.Contains(a.Collections, q.Collection):
		asked := "this deployment is to " + q.Collection
		if q.Collection == "" {
			asked = "no collection is named"
		}
		return fmt.Sprintf("account %s is for deployments to %s only, and %s", a.Account, strings.Join(a.Collections, ", "), asked)
	case a.Domain != "" && !strings.EqualFold(a.Domain, q.Domain):
		asked := "this one is of " + q.Domain
		if q.Domain == "" {
			asked = "the machine names none"
		}
		return fmt.Sprintf("account %s is for machines of domain %s only, and %s", a.Account, a.Domain, asked)
	}
	return ""
}

// closest is the one account that comes before all others.
func closest(fit []events.AccountNotice, q Query) (events.AccountNotice, *None) {
	first := slices.MinFunc(fit, func(a, b events.AccountNotice) int { return closer(a, b, q.Resource) })
	var equals []string
	for _, a := range fit {
		if closer(a, first, q.Resource) == 0 {
			equals = append(equals, a.Account)
		}
	}
	if len(equals) == 1 {
		return first, nil
	}
	slices.Sort(equals)
	return events.AccountNotice{}, &None{events.CredentialDenied, fmt.Sprintf("accounts %s serve %s equally well, and none is tried in another's stead: "+
		"`chandler account set` gives one of them a longer resource, a collection or a domain", strings.Join(equals, ", "), resource.Shown(q.Resource))}
}

// closer orders accounts that may all be used, the one to choose first; 0: neither comes before the other.
func closer(a, b events.AccountNotice, address string) int {
	named := func(yes bool) int {
		if yes {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(depth(b, address), depth(a, address)),
		cmp.Compare(named(len(a.Collections) > 0), named(len(b.Collections) > 0)),
		cmp.Compare(named(a.Domain != ""), named(b.Domain != "")))
}

// depth is how closely an account covers an address. Patterns that cover the same address lie one below the other, so that
// the longer is the closer one.
func depth(a events.AccountNotice, address string) int {
	r, err := resource.ParsePattern(resource.Longest(a.Resources, address))
	if err != nil {
		return -1
	}
	return len(r.Path)
}
