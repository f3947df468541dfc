package credentials

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"chandler/events"
	"chandler/events/lease"
	"chandler/events/resource"
)

// Limits of one account.
const (
	maxSecret      = lease.MaxSecret
	maxUser        = 256
	maxDomain      = 256
	maxResources   = 64
	maxCollections = 64
	maxKeep        = 30 * 24 * time.Hour
)

// checkAccount says what is wrong with a request, never quoting the secret, and gives what is kept of it, with
// each resource in its one form.
func checkAccount(r events.AccountRequest) (events.AccountNotice, error) {
	set := events.AccountNotice{Account: r.Account, Kind: r.Kind, User: r.User, Method: r.Method, Domain: r.Domain}
	if r.Method == events.ByPassword {
		set.Method = ""
	}
	if err := events.ValidToken(r.Account); err != nil {
		return set, fmt.Errorf("account: %w", err)
	}
	if !slices.Contains([]events.AccountKind{events.NetworkAccess, events.SoftwareInstallation, events.ClientTokenDomain}, r.Kind) {
		return set, fmt.Errorf("kind %q must be %s, %s or %s", r.Kind, events.NetworkAccess, events.SoftwareInstallation, events.ClientTokenDomain)
	}
	if err := checkMethod(set); err != nil {
		return set, err
	}
	if err := checkUser(set); err != nil {
		return set, err
	}
	if err := checkSecret(set.Method, r.Secret); err != nil {
		return set, err
	}
	var err error
	if set.Resources, err = accountResources(set, r.Resources); err != nil {
		return set, err
	}
	if set.Collections, err = accountCollections(set, r.Collections); err != nil {
		return set, err
	}
	return set, checkKeep(r.KeepOld)
}

func checkMethod(a events.AccountNotice) error {
	switch {
	case a.Method == "":
		return nil
	case a.Method != events.ByBearer && a.Method != events.ByClientCertificate:
		return fmt.Errorf("method %.32q must be %s, %s or %s", a.Method, events.ByPassword, events.ByBearer, events.ByClientCertificate)
	case a.Kind != events.NetworkAccess:
		return fmt.Errorf("an account of kind %s runs programs, and has a password for that: method %s is for network access accounts", a.Kind, a.Method)
	}
	return nil
}

func checkUser(a events.AccountNotice) error {
	switch {
	case a.Method == "" && strings.TrimSpace(a.User) == "":
		return errors.New("the account needs a user: an empty one would connect as nobody")
	case len(a.User) > maxUser || strings.ContainsFunc(a.User, unicode.IsControl):
		return fmt.Errorf("the user must be at most %d bytes without control characters", maxUser)
	case len(a.Domain) > maxDomain || strings.ContainsFunc(a.Domain, func(c rune) bool { return unicode.IsControl(c) || unicode.IsSpace(c) }):
		return fmt.Errorf("the domain must be at most %d bytes without spaces", maxDomain)
	}
	return nil
}

// checkSecret never quotes it, nor what a parser says of it.
func checkSecret(method string, secret []byte) error {
	switch {
	case len(secret) == 0:
		return errors.New("the secret is empty")
	case len(secret) > maxSecret:
		return fmt.Errorf("the secret is longer than %d bytes", maxSecret)
	case method == events.ByBearer && slices.ContainsFunc(secret, func(b byte) bool { return b <= ' ' || b > '~' }):
		return errors.New("a bearer token is one line of visible ASCII characters without spaces, as it stands in a header")
	case method == events.ByClientCertificate:
		if _, err := tls.X509KeyPair(secret, secret); err != nil {
			return errors.New("the secret must hold a certificate and the private key that belongs to it, both in PEM and not encrypted")
		}
	}
	return nil
}

// accountResources gives the resources in their one form, sorted.
func accountResources(a events.AccountNotice, patterns []string) ([]string, error) {
	switch {
	case a.Kind == events.NetworkAccess && len(patterns) == 0:
		return nil, errors.New("a network access account needs the resources that it may read")
	case a.Kind == events.ClientTokenDomain && len(patterns) > 0:
		return nil, errors.New("a client token account runs programs on one machine and reaches no resources")
	case len(patterns) > maxResources:
		return nil, fmt.Errorf("%d resources are more than %d", len(patterns), maxResources)
	}
	var all []string
	for _, pattern := range patterns {
		r, err := accountResource(a.Method, pattern)
		if err != nil {
			return nil, fmt.Errorf("resource %w", err)
		}
		all = append(all, r)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// accountResource is an address that an account by the given method may reach; a /* at its end says the same.
func accountResource(method, pattern string) (string, error) {
	r, err := resource.ParsePattern(pattern)
	switch {
	case err != nil:
		return "", err
	case r.Scheme == resource.File && r.Host == "":
		return "", fmt.Errorf("%q lies on the machine itself, where no account is needed", r)
	case method != "" && r.Scheme != resource.HTTPS:
		return "", fmt.Errorf("%q is not reached by %s, which is for https alone", r, method)
	}
	return r.String(), nil
}

// accountCollections gives them sorted.
func accountCollections(a events.AccountNotice, names []string) ([]string, error) {
	if len(names) > maxCollections {
		return nil, fmt.Errorf("%d collections are more than %d", len(names), maxCollections)
	}
	if a.Kind == events.ClientTokenDomain && (len(names) > 0 || a.Domain != "") {
		return nil, errors.New("a client token account is the same for every domain controller: it has neither collections nor a domain")
	}
	for _, name := range names {
		if err := events.ValidToken(name); err != nil {
			return nil, fmt.Errorf("collection: %w", err)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(names))), nil
}

func checkKeep(keep events.Duration) error {
	if d := time.Duration(keep); d < 0 || d > maxKeep {
		return fmt.Errorf("the former secret may be kept for at most %d days", int(maxKeep.Hours()/24))
	}
	return nil
}
