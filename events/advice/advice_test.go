package advice

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"chandler/events"
)

func access(reason events.Reason, answer string, change ...func(*events.Access)) events.Access {
	a := events.Access{Resource: "smb://files.example/apps/hello", Identity: "network-access-account", Account: "corp-reader", User: `EXAMPLE\reader`, Version: 1,
		When: events.AccessContent, Reason: reason, Answer: answer}
	for _, c := range change {
		c(&a)
	}
	return a
}

func at(address string) func(*events.Access) {
	return func(a *events.Access) { a.Resource = address }
}

func by(identity, account, user string) func(*events.Access) {
	return func(a *events.Access) { a.Identity, a.Account, a.User = identity, account, user }
}

func TestEachOutcomeIsToldWithWhatWouldFixIt(t *testing.T) {
	const reader = `the network access account corp-reader (EXAMPLE\reader) `
	for _, c := range []struct {
		name     string
		a        events.Access
		sentence string
		fix      string
	}{
		{"what was read needs no advice", access("", ""), reader + `read \\files.example\apps\hello`, ""},
		{"an account without rights", access(events.NetworkAccessDenied, "access denied (5/0x80070005)", at("smb://files.example/apps")),
			reader + `may not read \\files.example\apps: access denied (5/0x80070005)`, "grant it read, or add an account for smb://files.example/apps, then `chandler deployment retry`"},
		{"an account that is missing", access(events.NetworkAccessAccountMissing, "", by("network-access-account", "", "")),
			`no network access account may be used for \\files.example\apps\hello`, "`chandler account set NAME --kind network-access --user USER --resource smb://files.example/apps` makes an account for it, then `chandler deployment retry`"},
		{"an account that is missing, with the service's words", access(events.NetworkAccessAccountMissing, `no network access account covers \\files.example\apps\hello`, by("network-access-account", "", "")),
			`no network access account covers \\files.example\apps\hello`, "`chandler account set NAME --kind network-access --user USER --resource smb://files.example/apps` makes an account for it, then `chandler deployment retry`"},
		{"a wrong secret", access(events.CredentialRejected, "unknown user name or bad password (1326/0x8007052E)"),
			reader + `was not let in to read \\files.example\apps\hello: unknown user name or bad password (1326/0x8007052E)`,
			"the secret or the user's name is wrong: `chandler account rotate corp-reader` gives it the right secret; it is not tried again before, then `chandler deployment retry`"},
		{"a disabled account", access(events.CredentialRejected, "account disabled (1331/0x80070533)"),
			reader + `was not let in to read \\files.example\apps\hello: account disabled (1331/0x80070533)`, "the user is disabled: enable it where it is kept, then `chandler deployment retry`"},
		{"a locked account", access(events.CredentialRejected, "account locked (1909/0x80070775)"),
			reader + `was not let in to read \\files.example\apps\hello: account locked (1909/0x80070775)`,
			"the user is locked out: find who tries a wrong password, unlock it where it is kept, then `chandler deployment retry`"},
		{"an expired password", access(events.CredentialRejected, "password expired (1330/0x80070532)"),
			reader + `was not let in to read \\files.example\apps\hello: password expired (1330/0x80070532)`,
			"the password has expired: renew it where it is kept, tell the new one by `chandler account rotate corp-reader`, then `chandler deployment retry`"},
		{"a user's own sign-in that is not accepted", access(events.CredentialRejected, "", by("user", "", "ola")), `the user ola was not let in to read \\files.example\apps\hello`,
			"the user's own sign-in does not count there: let the machine and the user be of a domain that the server trusts, then `chandler deployment retry`; or deploy the program with run: administrative"},
		{"a user without rights", access(events.NetworkAccessDenied, "", by("user", "", "ola")), `the user ola may not read \\files.example\apps\hello`,
			"grant the user read, then `chandler deployment retry`; or deploy the program with run: administrative"},
		{"an installation account without rights", access(events.NetworkAccessDenied, "", by("installation-account", "corp-installer", "")),
			`the installation account corp-installer may not read \\files.example\apps\hello`, "grant it read, then `chandler deployment retry`"},
		{"a server that is away", access(events.SourceUnreachable, "connection refused"), reader + `did not reach \\files.example\apps\hello: connection refused`,
			"check on the machine that files.example resolves and answers at port 445"},
		{"a web server that is away", access(events.SourceUnreachable, "", at("https://[2001:db8::1]:8443/pub/x")), reader + "did not reach https://[2001:db8::1]:8443/pub/x",
			"check on the machine that 2001:db8::1 resolves and answers at port 8443"},
		{"a web server at its usual port", access(events.SourceUnreachable, "", at("https://www.example/pub/x")), reader + "did not reach https://www.example/pub/x",
			"check on the machine that www.example resolves and answers at port 443"},
		{"nothing there", access(events.SourceNotFound, "file not found (2/0x80070002)"), reader + `found nothing at \\files.example\apps\hello: file not found (2/0x80070002)`,
			"put back what the package was published with, then `chandler deployment retry`; or publish it again with the right address, and deploy that"},
		{"something else there", access(events.ContentChanged, ""), reader + `found something else at \\files.example\apps\hello than was published`, events.ContentChanged.Info().Advice},
		{"no identity on the network", access(events.NoNetworkIdentity, "", by("client-token-account", "", "")), `the client token account has no identity on the network to read \\files.example\apps\hello with`,
			"give the program an installation-account, publish the package again, and deploy that"},
		{"a user without a ticket", access(events.NoNetworkIdentity, "", by("user", "", "ola")), `the user ola has no identity on the network to read \\files.example\apps\hello with`,
			"see that the user has a ticket of Kerberos for the server, or deploy the program with run: administrative"},
		{"nobody to read with", access(events.NoNetworkIdentity, "", by("", "", "")), `the account that runs the program has no identity on the network to read \\files.example\apps\hello with`,
			"give the program an installation-account, publish the package again, and deploy that"},
		{"an order that does not name it", access(events.CredentialDenied, NotNamed, by("network-access-account", "", "")),
			`the network access account was not lent to read \\files.example\apps\hello: the signed order does not name it`, "add it to the program's references, publish the package again, and deploy that"},
		{"any other denial", access(events.CredentialDenied, "the job has ended", by("network-access-account", "", "")),
			`the network access account was not lent to read \\files.example\apps\hello: the job has ended`, events.CredentialDenied.Info().Advice},
		{"a credential service that is away", access(events.CredentialUnavailable, "no answer in 5s", by("network-access-account", "", "")),
			`the network access account could not be asked for to read \\files.example\apps\hello: no answer in 5s`, events.CredentialUnavailable.Info().Advice},
		{"an address that nobody reads", access(events.SourceUnsupported, "", at("oci://reg/x")), "this agent has no reader for oci://reg/x", events.SourceUnsupported.Info().Advice},
		{"a machine without mounts", access(events.NetworkMountImpossible, "no /dev/fuse"), `the machine could not offer \\files.example\apps\hello to the program: no /dev/fuse`, events.NetworkMountImpossible.Info().Advice},
		{"a reason of a later version", access("moon_phase", "full"), reader + `could not read \\files.example\apps\hello (moon phase): full`, events.OtherReason.Info().Advice},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Sentence(c.a); got != c.sentence {
				t.Errorf("said\n%s\nwant\n%s", got, c.sentence)
			}
			if got := For(c.a); got != c.fix {
				t.Errorf("advised\n%s\nwant\n%s", got, c.fix)
			}
		})
	}
}

func TestAShutAccountIsMendedWhereItIsKeptAndKeepsItsSecret(t *testing.T) {
	for number, says := range map[string]string{"1331/0x80070533": "enable it", "1909/0x80070775": "unlock it", "1793/0x80070701": "extend it", "1328/0x80070530": "at this hour"} {
		got := For(access(events.CredentialRejected, "no ("+number+")"))
		if !strings.Contains(got, says) || strings.Contains(got, "rotate") || !strings.HasSuffix(got, ", then `chandler deployment retry`") {
			t.Errorf("%s: %s", number, got)
		}
	}
}

func TestACertificateThatIsNotBelievedIsNoMatterOfNames(t *testing.T) {
	got := For(access(events.SourceUnreachable, "the server's certificate is not believed: x509: certificate signed by unknown authority (53/0x80070035)", at("https://www.example/pub/x")))
	if !strings.Contains(got, "external-ca") || strings.Contains(got, "resolves") {
		t.Error(got)
	}
}

func TestATestOfAnAccountIsOfNoPackageAndNoDeployment(t *testing.T) {
	test := func(a *events.Access) { a.When = events.AccessTest }
	covers := "`chandler account set corp-reader` with --resource smb://files.example/apps"
	for reason, says := range map[events.Reason]string{
		events.NetworkAccessDenied: "grant it read", events.CredentialDenied: covers, events.NetworkAccessAccountMissing: covers, events.SourceNotFound: "check the path",
		events.CredentialRejected: "--again", events.NoNetworkIdentity: "--method", events.SourceUnreachable: "answers at port 445", events.ContentChanged: "test it again",
		events.CredentialUnavailable: "doctor", events.SourceUnsupported: "no reader",
	} {
		got := For(access(reason, "", test))
		if !strings.Contains(got, says) {
			t.Errorf("%s: %s", reason, got)
		}
		for _, of := range []string{"package", "publish", "deploy", "program"} {
			if strings.Contains(got, of) {
				t.Errorf("%s speaks of %s: %s", reason, of, got)
			}
		}
	}
}

func TestWhatIsOfNoJobYetIsNotTriedAgain(t *testing.T) {
	got := For(access(events.NetworkAccessAccountMissing, "", func(a *events.Access) { a.When = "" }))
	if strings.Contains(got, "retry") {
		t.Error(got)
	}
}

func TestAddressesInCommandsAreOneWordOfAShell(t *testing.T) {
	a := access(events.NetworkAccessDenied, "", at("smb://files/apps/$(reboot)';`x`&a"))
	want := "grant it read, or add an account for 'smb://files/apps/$%28reboot%29%27;%60x%60&a', then `chandler deployment retry`"
	if got := For(a); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, hostile := range []string{"x; reboot", "`reboot`", "a b", "$(x)", "--yes"} {
		got := For(access(events.CredentialRejected, "", by("network-access-account", hostile, "u")))
		if strings.Contains(got, hostile) || !strings.Contains(got, "rotate NAME") {
			t.Errorf("%q: %s", hostile, got)
		}
	}
}

func FuzzOneLineIsSaidWhateverAnAccessHolds(f *testing.F) {
	f.Add("smb://files/a", "user", "a", "u", "network_access_denied", "no (5/0x80070005)")
	f.Add("\x1b[2J", "\u202e", "\n", "\r\n", "credential_rejected", strings.Repeat("x", 5000))
	f.Fuzz(func(t *testing.T, address, identity, account, user, reason, answer string) {
		a := events.Access{Resource: address, Identity: identity, Account: account, User: user, Reason: events.Reason(reason), Answer: answer}
		for _, text := range []string{Sentence(a), For(a)} {
			if strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
				t.Fatalf("%q is not one plain line", text)
			}
			if utf8.RuneCountInString(text) > 4*maxPart+4*1024 {
				t.Fatalf("%d characters", utf8.RuneCountInString(text))
			}
		}
	})
}
