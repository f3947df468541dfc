package scope

import (
	"slices"
	"strings"
	"testing"

	"chandler/events"
)

func account(name string, change ...func(*events.AccountNotice)) events.AccountNotice {
	a := events.AccountNotice{Account: name, Kind: events.NetworkAccess, Resources: []string{"smb://files/software/*"}, Version: 1}
	for _, c := range change {
		c(&a)
	}
	return a
}

func reaches(patterns ...string) func(*events.AccountNotice) {
	return func(a *events.AccountNotice) { a.Resources = patterns }
}

func collections(names ...string) func(*events.AccountNotice) {
	return func(a *events.AccountNotice) { a.Collections = names }
}

func domain(name string) func(*events.AccountNotice) {
	return func(a *events.AccountNotice) { a.Domain = name }
}

func kind(k events.AccountKind) func(*events.AccountNotice) {
	return func(a *events.AccountNotice) { a.Kind = k }
}

func TestChoose(t *testing.T) {
	const hello = "smb://files/software/hello/setup.exe"
	for _, c := range []struct {
		name     string
		accounts []events.AccountNotice
		q        Query
		want     string   // account
		says     []string // where there is none
	}{
		{"the account that covers the resource is chosen", []events.AccountNotice{account("a")}, Query{Resource: hello}, "a", nil},
		{"letter case does not matter on a share", []events.AccountNotice{account("a", reaches(`\\FILES\Software`))}, Query{Resource: hello}, "a", nil},
		{"the longest covering resource wins", []events.AccountNotice{account("a"), account("b", reaches("smb://files/software/hello")), account("c", reaches("smb://files/software/hello/setup.exe/x"))},
			Query{Resource: hello}, "b", nil},
		{"the longest wins over one that names the collection and the domain", []events.AccountNotice{account("a", collections("servers"), domain("example")), account("b", reaches("smb://files/software/hello"))},
			Query{Resource: hello, Collection: "servers", Domain: "example"}, "b", nil},
		{"the longest of an account's own counts", []events.AccountNotice{account("a", reaches("smb://files/software", hello)), account("b", reaches("smb://files/software/hello"))}, Query{Resource: hello}, "a", nil},
		{"a longer spelling of the same resource is not closer", []events.AccountNotice{account("a", reaches("smb://files/software")), account("b", reaches("smb://files:445/software/*"))}, Query{Resource: hello}, "",
			[]string{"equally well"}},
		{"of equals the one that names the collection wins", []events.AccountNotice{account("a", domain("example")), account("b", collections("servers"))},
			Query{Resource: hello, Collection: "servers", Domain: "example"}, "b", nil},
		{"of equals the one that names the domain wins", []events.AccountNotice{account("a"), account("b", domain("EXAMPLE"))}, Query{Resource: hello, Domain: "example"}, "b", nil},
		{"of equals in all nobody is chosen", []events.AccountNotice{account("b"), account("a"), account("c", reaches("smb://files"))}, Query{Resource: hello}, "",
			[]string{`accounts a, b serve \\files\software\hello\setup.exe equally well`, "longer resource"}},
		{"an account for other collections is not used", []events.AccountNotice{account("a", reaches(hello), collections("servers")), account("b")}, Query{Resource: hello, Collection: "kiosks"}, "b", nil},
		{"an account for another domain is not used", []events.AccountNotice{account("a", reaches(hello), domain("example")), account("b")}, Query{Resource: hello, Domain: "other"}, "b", nil},
		{"without accounts there is none", nil, Query{Resource: hello}, "", []string{`no network access account covers \\files\software\hello\setup.exe`}},
		{"an account for something beside does not cover it", []events.AccountNotice{account("a", reaches("smb://files/software2"))}, Query{Resource: hello}, "", []string{"covers"}},
		{"accounts of other kinds are never chosen", []events.AccountNotice{account("a", kind(events.SoftwareInstallation)), account("b", kind(events.SoftwareInstallation), reaches()), account("c", kind(events.ClientTokenDomain))},
			Query{Resource: hello}, "", []string{"covers"}},
		{"a deployment to another collection has none", []events.AccountNotice{account("a", collections("servers", "kiosks"))}, Query{Resource: hello, Collection: "desktops"}, "",
			[]string{"account a is for deployments to servers, kiosks only, and this deployment is to desktops"}},
		{"without a collection an account for some has none", []events.AccountNotice{account("a", collections("servers"))}, Query{Resource: hello}, "", []string{"no collection is named"}},
		{"a machine of another domain has none", []events.AccountNotice{account("a", domain("example"))}, Query{Resource: hello, Domain: "other"}, "", []string{"machines of domain example only, and this one is of other"}},
		{"a machine of no domain has none", []events.AccountNotice{account("a", domain("example"))}, Query{Resource: hello}, "", []string{"the machine names none"}},
		{"all who may not are named", []events.AccountNotice{account("b", domain("example")), account("a", collections("servers"))}, Query{Resource: hello}, "", []string{"account a is for", "; account b is for"}},
		{"what is no address has none, and is not quoted", []events.AccountNotice{account("a")}, Query{Resource: "smb://u:hunter2@files/software/x"}, "", []string{"an address that cannot be read"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // the order of accounts does not matter
				got, none := Choose(c.accounts, c.q)
				if got.Account != c.want || (none == nil) != (c.want != "") {
					t.Fatalf("chosen %q, %v; want %q", got.Account, none, c.want)
				}
				if none != nil {
					equals := strings.Contains(none.Why, "equally well")
					if (none.Reason == events.CredentialDenied) != equals || (none.Reason == events.NetworkAccessAccountMissing) == equals || strings.Contains(none.Why, "hunter2") {
						t.Errorf("%+v", none)
					}
					for _, s := range c.says {
						if !strings.Contains(none.Error(), s) {
							t.Errorf("%q does not say %q", none.Why, s)
						}
					}
				}
				c.accounts = slices.Clone(c.accounts)
				slices.Reverse(c.accounts)
			}
		})
	}
}

func TestAdmits(t *testing.T) {
	const hello = "smb://files/software/hello"
	for _, c := range []struct {
		name string
		a    events.AccountNotice
		q    Query
		says string // "": it may be used
	}{
		{"an installation account without resources reaches whatever is asked", account("i", kind(events.SoftwareInstallation), reaches()), Query{Resource: hello}, ""},
		{"an installation account with resources reaches them", account("i", kind(events.SoftwareInstallation)), Query{Resource: hello}, ""},
		{"an installation account with resources reaches no others", account("i", kind(events.SoftwareInstallation)), Query{Resource: "smb://other/software/hello"}, `account i does not cover \\other\software\hello`},
		{"a network access account without resources reaches nothing", account("n", reaches()), Query{Resource: hello}, "account n does not cover"},
		{"a network access account reaches its resources", account("n"), Query{Resource: hello}, ""},
		{"collections hold for an installation account without resources too", account("i", kind(events.SoftwareInstallation), reaches(), collections("servers")), Query{Resource: hello, Collection: "kiosks"}, "deployments to servers only"},
		{"a domain holds too", account("i", kind(events.SoftwareInstallation), domain("example")), Query{Resource: hello, Domain: "other"}, "machines of domain example only"},
		{"what is no address is never reached", account("i", kind(events.SoftwareInstallation), reaches()), Query{Resource: "x"}, "cannot be read as an address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			none := Admits(c.a, c.q)
			switch {
			case c.says == "" && none != nil:
				t.Errorf("refused: %v", none)
			case c.says != "" && (none == nil || none.Reason != events.CredentialDenied || !strings.Contains(none.Why, c.says)):
				t.Errorf("%+v does not say %q", none, c.says)
			}
		})
	}
}

func TestServesLooksAtNoResource(t *testing.T) {
	a := account("a", kind(events.SoftwareInstallation), collections("servers"), domain("example"))
	for _, c := range []struct {
		name string
		q    Query
		says string
	}{
		{"its collection and domain are served", Query{Collection: "servers", Domain: "EXAMPLE"}, ""},
		{"another collection is not", Query{Collection: "kiosks", Domain: "example"}, "for deployments to servers only"},
		{"another domain is not", Query{Collection: "servers", Domain: "other"}, "of domain example only"},
		{"a machine without a domain is not", Query{Collection: "servers"}, "names none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			none := Serves(a, c.q)
			if (none == nil) != (c.says == "") || none != nil && (none.Reason != events.CredentialDenied || !strings.Contains(none.Why, c.says)) {
				t.Errorf("got %+v, want %q", none, c.says)
			}
		})
	}
}
