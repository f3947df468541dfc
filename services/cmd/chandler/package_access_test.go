package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"chandler/agent/identity"
	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/sign"
)

// outsideFleet has packages of which one lies on an external source, and accounts.
func outsideFleet(t *testing.T) *fakeFleet {
	t.Helper()
	administrative := func(account string, references ...events.Reference) events.Program {
		return events.Program{Command: events.Command{Argv: []string{"setup"}}, Run: events.RunAdministrative, InstallationAccount: account, References: references}
	}
	licence := events.Reference{URL: "smb://files.example/licences"}
	f := newFakeFleet(t)
	f.set(func() {
		f.packages = []events.PackageInfo{
			signedPackage(t, events.Manifest{Package: "outside", Version: "1", Source: "smb://files.example/software/hello", Programs: map[string]events.Program{
				"install": administrative(""), "assisted": administrative("corp-installer", licence), "mine": {Command: events.Command{Argv: []string{"setup"}}, Run: events.RunUser}}}),
			signedPackage(t, events.Manifest{Package: "inside", Version: "1", Programs: map[string]events.Program{
				"install": administrative("", licence, events.Reference{URL: "smb://files.example/extras", Optional: true})}}),
			signedPackage(t, events.Manifest{Package: "wrong", Version: "1", Programs: map[string]events.Program{"install": administrative("corp-reader")}}),
			signedPackage(t, events.Manifest{Package: "suspended", Version: "1", Source: "https://www.example/x", Programs: map[string]events.Program{"install": administrative("corp-any")}}),
			signedPackage(t, events.Manifest{Package: "unknown", Version: "1", Source: "smb://files.example/software/x", Programs: map[string]events.Program{"install": administrative("gone")}}),
		}
		f.accounts = []events.AccountView{
			{AccountNotice: events.AccountNotice{Account: "corp-reader", Kind: events.NetworkAccess, User: `EXAMPLE\reader`, Resources: []string{"smb://files.example/software/*"}}},
			{AccountNotice: events.AccountNotice{Account: "kiosk-reader", Kind: events.NetworkAccess, User: "kiosk", Resources: []string{"smb://files.example/software/hello"}, Collections: []string{"kiosks"}}},
			{AccountNotice: events.AccountNotice{Account: "lab-reader", Kind: events.NetworkAccess, User: "lab", Resources: []string{"smb://files.example/licences"}, Domain: "LAB"}},
			{AccountNotice: events.AccountNotice{Account: "bad-reader", Kind: events.NetworkAccess, User: "bad", Resources: []string{"https://www.example/x"}}, Suspended: "version 1 of account bad-reader was rejected by 3 machines"},
			{AccountNotice: events.AccountNotice{Account: "corp-any", Kind: events.SoftwareInstallation, User: "any"}},
			{AccountNotice: events.AccountNotice{Account: "corp-installer", Kind: events.SoftwareInstallation, User: `EXAMPLE\installer`, Resources: []string{"smb://files.example/software"}}},
		}
		f.agents = []events.AgentView{agentNamed("agent0001", "ws-1", "oslo"), agentNamed("agent0002", "dc-1", "oslo"), agentNamed("agent0003", "lab-1", "oslo")}
		f.agents[0].Facts.ClientKind = events.Legacy
		f.agents[1].Facts.ClientKind, f.agents[1].Facts.DomainController = events.Legacy, true
		f.agents[2].Facts.Domain = "lab"
	})
	return f
}

func signedPackage(t *testing.T, m events.Manifest) events.PackageInfo {
	t.Helper()
	key, err := sign.NewKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	m.API = "chandler/v1"
	if m.Source != "" {
		m.Files = []events.File{{Path: "setup", Size: 1, Mode: 0o755, SHA256: events.DigestOf(nil)}}
	}
	envelope, err := manifest.Seal(m, key)
	if err != nil {
		t.Fatal(err)
	}
	return events.PackageInfo{Manifest: events.Manifest{Package: m.Package, Version: m.Version}, Envelope: envelope} // what is said beside is not believed
}

func TestAccessIsToldBeforeAnybodyDeploys(t *testing.T) {
	f := outsideFleet(t)
	for name, c := range map[string]struct {
		args []string
		says []string
		not  []string
	}{
		"each kind of client": {[]string{"outside", "--program", "install"}, []string{
			"package outside@1, content on an external source", "program install, run administrative",
			"  advanced\n    reads the content: network access account\n    runs the program: system\n    met on the network: network access account\n" +
				`    content \\files.example\software\hello: read by the network access account corp-reader (EXAMPLE\reader)`,
			"  legacy\n    fails: no_network_identity: the content is on an external source", "  legacy domain controller\n    fails: no_network_identity"},
			[]string{"assisted", "kiosk-reader"}},
		"another collection has another account": {[]string{"outside@1", "--program", "install", "--collection", "kiosks"}, []string{"read by the network access account kiosk-reader (kiosk)"}, []string{"corp-reader"}},
		"an installation account": {[]string{"outside", "--program", "assisted"}, []string{
			"installation account corp-installer",
			"  legacy\n    reads the content: installation account\n    runs the program: installation account, elevated while it runs\n    met on the network: installation account\n" +
				`    content \\files.example\software\hello: read by the installation account corp-installer (EXAMPLE\installer)`,
			`reference \\files.example\licences: fails: credential_denied: account corp-installer does not cover \\files.example\licences`,
			"note: installation account corp-installer is ignored: this is an advanced client"}, nil},
		"an account that is missing": {[]string{"inside", "--domain", "EXAMPLE"}, []string{
			"content on distribution points", "reads the content: agent",
			`reference \\files.example\licences: fails: network_access_account_missing: no network access account may be used for \\files.example\licences: account lab-reader is for machines of domain LAB only`,
			`optional reference \\files.example\extras: is missing: network_access_account_missing: no network access account covers \\files.example\extras`,
			"  advice: `chandler account set NAME --kind network-access --user USER --resource smb://files.example/extras` makes an account for it",
			"  legacy domain controller\n    reads the content: agent\n    runs the program: domain client token account, elevated while it runs\n    met on the network: nobody\n" +
				`    reference \\files.example\licences: fails: no_network_identity`, "give the program an installation-account"}, nil},
		"a user's program":                {[]string{"outside", "--program", "mine"}, []string{"  legacy\n    reads the content: user\n    runs the program: user\n    met on the network: user", "read by the user"}, []string{"fails"}},
		"a legacy machine":                {[]string{"inside", "--agent", "ws-1"}, []string{"on ws-1 (agent0001)", "  legacy\n", "runs the program: client token account, elevated"}, []string{"advanced", "domain controller"}},
		"a domain controller":             {[]string{"inside", "--agent", "dc-1"}, []string{"  legacy domain controller\n"}, []string{"  legacy\n", "advanced"}},
		"a machine of the right domain":   {[]string{"inside", "--agent", "lab-1"}, []string{"  advanced\n", `licences: read by the network access account lab-reader (lab)`}, []string{"legacy"}},
		"an account of the wrong kind":    {[]string{"wrong"}, []string{"fails: account_refused: account corp-reader is of kind network-access, which must not run programs"}, []string{"runs the program"}},
		"an installation account missing": {[]string{"unknown"}, []string{"credential_denied: there is no account gone", "advice: `chandler account set gone --kind software-installation --user USER` makes it"}, nil},
		"an account that is suspended":    {[]string{"suspended"}, []string{"credential_rejected: version 1 of account bad-reader was rejected"}, []string{"advice"}},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, _ := must(t, f, "", append([]string{"package", "access"}, c.args...)...)
			for _, says := range c.says {
				if !strings.Contains(stdout, says) {
					t.Errorf("it does not say %q:\n%s", says, stdout)
				}
			}
			for _, not := range c.not {
				if strings.Contains(stdout, not) {
					t.Errorf("it says %q:\n%s", not, stdout)
				}
			}
		})
	}
}

func TestAccessIsDataToo(t *testing.T) {
	f := outsideFleet(t)
	stdout, _ := must(t, f, "", "package", "access", "outside", "--program", "install", "-o", "json")
	var v accessView
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatal(err)
	}
	if v.Place != identity.External || len(v.Programs) != 1 || len(v.Programs[0].Clients) != 3 {
		t.Fatalf("got %+v", v)
	}
	advanced, legacy := v.Programs[0].Clients[0], v.Programs[0].Clients[1]
	if advanced.Reader != identity.NetworkAccess || advanced.Executor != identity.System || len(advanced.Resources) != 1 || advanced.Resources[0].Account != "corp-reader" || legacy.Reason != events.NoNetworkIdentity {
		t.Errorf("got %+v", v.Programs[0])
	}
	for _, args := range [][]string{{"outside", "--program", "remove"}, {"nothing"}, {"outside", "--agent", "nobody"}, {"outside", "-o", "csv"}, {"outside", "--agent", "ws-1", "--domain", "LAB"}} {
		if code, _, stderr := command(t, f.app, "", append([]string{"package", "access"}, args...)...); code != 1 || stderr == "" {
			t.Errorf("%q: exit code %d: %s", args, code, stderr)
		}
	}
}
