package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
)

func TestWhatNamesAnAccountIsToldBeforeItIsRemoved(t *testing.T) {
	program := func(account string) events.Program {
		return events.Program{Run: events.RunAdministrative, InstallationAccount: account}
	}
	packages := []events.PackageInfo{
		{Manifest: events.Manifest{Package: "hello", Version: "1", Programs: map[string]events.Program{"install": program("corp"), "remove": program("corp"), "fonts": program("")}}},
		{Manifest: events.Manifest{Package: "hello", Version: "2", Programs: map[string]events.Program{"install": program("corp")}}},
		{Manifest: events.Manifest{Package: "other", Version: "1", Programs: map[string]events.Program{"install": program("lab")}}},
	}
	deployed := func(name, version, program string, life events.Life) events.DeploymentView {
		return events.DeploymentView{DeploymentNotice: events.DeploymentNotice{Deployment: name, Package: "hello", Version: version, Program: program}, Life: life}
	}
	deployments := []events.DeploymentView{
		deployed("everywhere", "1", "install", events.LifeActive), deployed("later", "1", "remove", events.LifePaused), deployed("over", "1", "install", events.LifeStopped),
		deployed("long-over", "2", "install", events.LifeExpired), deployed("of-nobody", "1", "fonts", events.LifeActive),
	}
	want := []string{
		"package hello@1 names it as installation account of install, remove; deployed by everywhere (active), later (paused)",
		"package hello@2 names it as installation account of install",
	}
	if diff := cmp.Diff(want, accountUses("corp", packages, deployments)); diff != "" {
		t.Error(diff)
	}
	if got := accountUses("nobody", packages, deployments); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestAnAccountIsRemovedOnlyWhenThatIsMeant(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() {
		f.accounts = []events.AccountView{{AccountNotice: events.AccountNotice{Account: "corp", Kind: events.SoftwareInstallation}}, {AccountNotice: events.AccountNotice{Account: "token", Kind: events.ClientTokenDomain}}}
		f.packages = []events.PackageInfo{{Manifest: events.Manifest{Package: "hello", Version: "1", Programs: map[string]events.Program{"install": {InstallationAccount: "corp"}}}}}
		f.deployments = []events.DeploymentView{{DeploymentNotice: events.DeploymentNotice{Deployment: "everywhere", Package: "hello", Version: "1", Program: "install"}, Life: events.LifeActive}}
	})
	uses := "package hello@1 names it as installation account of install; deployed by everywhere (active)"
	for _, c := range []struct {
		name, account, yes string
		away               bool // content
		code               int
		says               []string
	}{
		{"one that is not there", "cord", "--yes", false, 1, []string{"there is no account cord"}},
		{"one that is named, without --yes", "corp", "", false, 1, []string{uses, "Say --yes"}},
		{"one that is named, with --yes", "corp", "--yes", false, 0, []string{uses, "account corp is removed"}},
		{"the domain controllers' own", "token", "", false, 1, []string{"on legacy domain controllers run by it"}},
		{"while content is away", "corp", "--yes", true, 0, []string{"WARNING: not all that names it is known", "account corp is removed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.set(func() {
				f.removed = nil
				f.contentAway = nil
				if c.away {
					f.contentAway = bus.ErrUnavailable
				}
			})
			args := []string{"account", "rm", c.account}
			if c.yes != "" {
				args = append(args, c.yes)
			}
			code, _, stderr := command(t, f.app, "", args...)
			if code != c.code {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			for _, says := range c.says {
				if !strings.Contains(stderr, says) {
					t.Errorf("it does not say %q: %s", says, stderr)
				}
			}
			f.set(func() {
				if (len(f.removed) == 1) != (c.code == 0) {
					t.Errorf("removed: %q", f.removed)
				}
			})
		})
	}
}
