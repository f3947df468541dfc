package systemrunner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"chandler/agent/execute"
	"chandler/agent/lease"
	"chandler/agent/supervise"
	"chandler/events"
)

const netSecret = "Pl4nted-s3cret-net"

// netLease is a new lease of the network access account.
func netLease(change ...func(*lease.Lease)) *lease.Lease {
	l := &lease.Lease{Account: "corp-reader", Kind: events.NetworkAccess, User: `EXAMPLE\reader`, Version: 1, Secret: []byte(netSecret)}
	for _, c := range change {
		c(l)
	}
	return l
}

// onWindows is a runner as on Windows, where asked is told what it logs on.
func onWindows(logOn func(user, domain, secret string) error) (r *Runner, closed *int) {
	closed = new(int)
	return &Runner{
		whoAmI: func() (string, bool, error) { return systemName, true, nil },
		logOn: func(user, domain string, secret []byte) (uint64, func(), error) {
			if err := logOn(user, domain, string(secret)); err != nil {
				return 0, nil, err
			}
			return 77, func() { *closed++ }, nil
		},
	}, closed
}

func TestAProgramOfTheSystemIsTheLentAccountOnTheNetwork(t *testing.T) {
	for user, want := range map[string]string{`EXAMPLE\reader`: "reader of EXAMPLE", "reader@example.org": "reader@example.org of ", "reader": "reader of ."} {
		var loggedOn []string
		r, closed := onWindows(func(user, domain, secret string) error {
			if secret != netSecret {
				t.Errorf("the secret is %q", secret)
			}
			loggedOn = append(loggedOn, user+" of "+domain)
			return nil
		})
		l := netLease(func(l *lease.Lease) { l.User = user })
		held := l.Secret
		prepared, err := r.Prepare(t.Context(), execute.Request{NetLogin: func(context.Context) (*lease.Lease, error) { return l, nil }})
		if err != nil {
			t.Fatal(err)
		}
		if prepared.Executor != systemName || prepared.Logon == nil || *prepared.Logon != (supervise.Logon{Token: 77}) || len(loggedOn) != 1 || loggedOn[0] != want {
			t.Errorf("%s: runs as %+v, logged on as %q", user, prepared, loggedOn)
		}
		if l.Secret != nil || strings.Trim(string(held), "\x00") != "" {
			t.Errorf("%s: %q is left of the secret", user, held)
		}
		if strings.Contains(fmt.Sprintf("%+v", prepared), netSecret) {
			t.Errorf("%s: the secret stands in %+v", user, prepared)
		}
		prepared.Release()
		if *closed != 1 {
			t.Errorf("%s: the token was closed %d times", user, *closed)
		}
	}
}

func TestWhatCannotBeAProgramOnTheNetworkIsRefusedInWordsAndCleared(t *testing.T) {
	refused := errors.New("the handle is invalid")
	for name, c := range map[string]struct {
		lend    func() (*lease.Lease, error)
		change  func(*Runner)
		logOn   error
		reason  events.Reason
		says    string
		unasked bool
	}{
		"the agent is not the system": {change: func(r *Runner) { r.whoAmI = func() (string, bool, error) { return `PC\alice`, false, nil } }, reason: events.NetworkMountImpossible, says: `PC\alice`, unasked: true},
		"an account that runs programs": {lend: func() (*lease.Lease, error) {
			return netLease(func(l *lease.Lease) { l.Kind = events.SoftwareInstallation }), nil
		}, reason: events.AccountRefused, says: "software-installation"},
		"an account with a certificate": {lend: func() (*lease.Lease, error) {
			return netLease(func(l *lease.Lease) { l.Method = events.ByClientCertificate }), nil
		}, reason: events.NetworkMountImpossible, says: "password"},
		"an empty user":   {lend: func() (*lease.Lease, error) { return netLease(func(l *lease.Lease) { l.User = "" }), nil }, reason: events.CredentialDenied, says: "no user"},
		"an empty secret": {lend: func() (*lease.Lease, error) { return netLease(func(l *lease.Lease) { l.Secret = nil }), nil }, reason: events.CredentialDenied, says: "no secret"},
		"Windows refuses": {logOn: refused, reason: events.NetworkMountImpossible, says: "the handle is invalid"},
		"the service denies": {lend: func() (*lease.Lease, error) {
			return nil, &lease.Denied{Reason: events.NetworkAccessAccountMissing, Why: "nobody may"}
		}, reason: events.NetworkAccessAccountMissing, says: "nobody may"},
		"the service is not heard": {lend: func() (*lease.Lease, error) { return nil, errors.New("no responders") }, reason: events.CredentialUnavailable, says: "no responders"},
		"the references need two accounts": {lend: func() (*lease.Lease, error) {
			return nil, &execute.Impossible{Reason: events.NetworkMountImpossible, Answer: "two of them"}
		}, reason: events.NetworkMountImpossible, says: "two of them"},
	} {
		t.Run(name, func(t *testing.T) {
			r, closed := onWindows(func(string, string, string) error { return c.logOn })
			if c.change != nil {
				c.change(r)
			}
			asked := 0
			var lent *lease.Lease
			_, err := r.Prepare(t.Context(), execute.Request{NetLogin: func(context.Context) (*lease.Lease, error) {
				asked++
				if c.lend == nil {
					lent = netLease()
					return lent, nil
				}
				l, err := c.lend()
				lent = l
				return l, err
			}})
			impossible, ok := errors.AsType[*execute.Impossible](err)
			if !ok || impossible.Reason != c.reason || !strings.Contains(impossible.Answer, c.says) {
				t.Errorf("%v; want %s, %q", err, c.reason, c.says)
			}
			if lent != nil && lent.Secret != nil {
				t.Error("the secret is left")
			}
			if c.unasked != (asked == 0) || asked > 1 || *closed != 0 {
				t.Errorf("asked %d times, closed %d tokens", asked, *closed)
			}
		})
	}
}

func TestAProgramWithoutAnAccountOnTheNetworkIsTheSystemThereToo(t *testing.T) {
	unwanted := func(string, string, string) error { t.Error("it logs on"); return nil }
	r, _ := onWindows(unwanted)
	none := func(context.Context) (*lease.Lease, error) { return nil, nil }
	elsewhere := &Runner{whoAmI: r.whoAmI}
	for name, c := range map[string]struct {
		runner *Runner
		login  func(context.Context) (*lease.Lease, error)
	}{
		"nothing is referred to":                {r, nil},
		"every reference is left out":           {r, none},
		"a system that mounts what is referred": {elsewhere, func(context.Context) (*lease.Lease, error) { t.Error("asked"); return nil, nil }},
	} {
		prepared, err := c.runner.Prepare(t.Context(), execute.Request{NetLogin: c.login})
		if err != nil || prepared.Logon != nil || prepared.Release != nil {
			t.Errorf("%s: %+v, %v", name, prepared, err)
		}
	}
}

func TestACancelledRequestIsNoRefusal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := onWindows(func(string, string, string) error { return nil })
	_, err := r.Prepare(ctx, execute.Request{NetLogin: func(ctx context.Context) (*lease.Lease, error) { cancel(); return nil, ctx.Err() }})
	if _, impossible := errors.AsType[*execute.Impossible](err); impossible || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestReferencesAreOneAccountsOnASystemWhereAProgramIsOne(t *testing.T) {
	const apps, licences, elsewhere = "smb://files.example/apps/setup", `\\files.example\licences`, "smb://other.example/share"
	lent := map[string]func() (*lease.Lease, error){
		apps:     func() (*lease.Lease, error) { return netLease(), nil },
		licences: func() (*lease.Lease, error) { return netLease(), nil },
		elsewhere: func() (*lease.Lease, error) {
			return netLease(func(l *lease.Lease) { l.Account = "other-reader" }), nil
		},
		"smb://files.example/rotated": func() (*lease.Lease, error) {
			return netLease(func(l *lease.Lease) { l.Version = 2 }), nil
		},
		"smb://files.example/nobodys": func() (*lease.Lease, error) {
			return nil, &lease.Denied{Reason: events.NetworkAccessAccountMissing, Why: "no account"}
		},
		"smb://files.example/unheard": func() (*lease.Lease, error) { return nil, errors.New("no responders") },
	}
	must, may := func(url string) events.Reference { return events.Reference{URL: url} }, func(url string) events.Reference { return events.Reference{URL: url, Optional: true} }
	for name, c := range map[string]struct {
		references []events.Reference
		account    string // "": no lease
		says       string // of the error
	}{
		"two shares of one account":                       {[]events.Reference{must(apps), must(licences)}, "corp-reader", ""},
		"two accounts":                                    {[]events.Reference{must(apps), must(elsewhere)}, "", `corp-reader is for \\files.example\apps\setup (version 1), other-reader for \\other.example\share`},
		"one account in two versions":                     {[]events.Reference{must(apps), must("smb://files.example/rotated")}, "", "version 2"},
		"an optional one of another account":              {[]events.Reference{may(elsewhere), must(apps)}, "corp-reader", ""},
		"an optional one that no account may reach":       {[]events.Reference{may("smb://files.example/nobodys"), must(apps)}, "corp-reader", ""},
		"only optional ones that no account may reach":    {[]events.Reference{may("smb://files.example/nobodys")}, "", ""},
		"one that no account may reach":                   {[]events.Reference{must(apps), must("smb://files.example/nobodys")}, "", "no account"},
		"an optional one, and the service is not heard":   {[]events.Reference{must(apps), may("smb://files.example/unheard")}, "", "no responders"},
		"one that is not on a share":                      {[]events.Reference{must(apps), must("https://files.example/licences")}, "", "https://files.example/licences is not"},
		"a local file":                                    {[]events.Reference{must("file:///etc/licences")}, "", "is not"},
		"an optional one that is not on a share":          {[]events.Reference{may("https://files.example/licences"), must(apps)}, "corp-reader", ""},
		"only an optional one, which an account may read": {[]events.Reference{may(elsewhere)}, "other-reader", ""},
		"nothing": {nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var all []*lease.Lease
			one, err := OneLogin(t.Context(), c.references, func(_ context.Context, address string) (*lease.Lease, error) {
				l, err := lent[address]()
				all = append(all, l)
				return l, err
			})
			if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if (one != nil) != (c.account != "") || one != nil && (one.Account != c.account || string(one.Secret) != netSecret) {
				t.Errorf("got %v, want %q", one, c.account)
			}
			for _, l := range all {
				if l != nil && l != one && l.Secret != nil {
					t.Errorf("the secret of %v is left", l)
				}
			}
		})
	}
}
