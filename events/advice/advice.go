// Package advice says in people's words what came of an access to an external source: who tried what and what was answered,
// and what would fix it. The agent's log lines, the explanations of its events and the administrator's commands all say it
// by this package, so that the same facts read the same everywhere.
//
// It is pure. What it returns is one line of bounded length, whatever the parts of the access hold, and a command in it is
// safe to be copied to a shell. It quotes no secret: an access has none.
package advice

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"chandler/events"
	"chandler/events/resource"
)

// NotNamed is the answer of whoever refuses a resource with the reason CredentialDenied because the order of the job does
// not name it.
const NotNamed = "the signed order does not name it"

// maxPart bounds each part of an access that is quoted, in characters.
const maxPart = 300

// Sentence says who tried what and what was answered, without a full stop: `the network access account corp-reader
// (EXAMPLE\reader) may not read \\files.example\apps: access denied (5/0x80070005)`.
func Sentence(a events.Access) string {
	shown, answer := line(resource.Shown(a.Resource)), line(a.Answer)
	said := outcome(a, shown)
	switch {
	case a.Reason == events.NetworkAccessAccountMissing && strings.HasPrefix(answer, "no network access account "):
		return answer // it says the same, and knows why
	case answer == "" || a.Reason == events.NoReason:
		return said
	}
	return said + ": " + answer
}

func outcome(a events.Access, shown string) string {
	who := Who(a)
	switch a.Reason {
	case events.NoReason:
		return who + " read " + shown
	case events.NetworkAccessDenied:
		return who + " may not read " + shown
	case events.CredentialRejected:
		return who + " was not let in to read " + shown
	case events.NetworkAccessAccountMissing:
		return "no network access account may be used for " + shown
	case events.NoNetworkIdentity:
		if a.Identity == "" {
			who = "the account that runs the program"
		}
		return who + " has no identity on the network to read " + shown + " with"
	case events.CredentialDenied:
		return who + " was not lent to read " + shown
	case events.CredentialUnavailable:
		return who + " could not be asked for to read " + shown
	case events.SourceNotFound:
		return who + " found nothing at " + shown
	case events.SourceUnreachable:
		return who + " did not reach " + shown
	case events.SourceUnsupported:
		return "this agent has no reader for " + shown
	case events.ContentChanged:
		return who + " found something else at " + shown + " than was published"
	case events.NetworkMountImpossible:
		return "the machine could not offer " + shown + " to the program"
	}
	return fmt.Sprintf("%s could not read %s (%s)", who, shown, strings.ReplaceAll(line(string(a.Reason)), "_", " "))
}

// Who names who tried: "the network access account corp-reader (EXAMPLE\reader)", "the user ola".
func Who(a events.Access) string {
	user, account := line(a.User), line(a.Account)
	who := map[string]string{ // by the words of package identity of the agent
		"": "somebody", "agent": "the agent", "user": "the user", "system": "the system account",
		"network-access-account": "the network access account", "installation-account": "the installation account",
		"client-token-account": "the client token account", "domain-client-token-account": "the domain's client token account",
	}[a.Identity]
	if who == "" {
		who = line(a.Identity)
	}
	switch {
	case account != "" && user != "":
		return fmt.Sprintf("%s %s (%s)", who, account, user)
	case account+user != "":
		return who + " " + account + user
	}
	return who
}

// For says what would fix it; "" where it was read. Of an access for a job it ends with how the job is tried again, where
// that needs an administrator.
func For(a events.Access) string {
	switch {
	case a.Reason == events.NoReason:
		return ""
	case a.When == events.AccessTest:
		if text := forTest(a); text != "" {
			return text
		}
	}
	switch a.Reason {
	case events.NetworkAccessDenied:
		return forDenied(a)
	case events.NetworkAccessAccountMissing:
		return fmt.Sprintf("`chandler account set NAME --kind %s --user USER --resource %s` makes an account for it", events.NetworkAccess, word(share(a.Resource))) + again(a)
	case events.CredentialRejected:
		return forRejected(a)
	case events.CredentialDenied:
		if strings.Contains(a.Answer, NotNamed) {
			return "add it to the program's references, publish the package again, and deploy that"
		}
	case events.SourceUnreachable:
		return forUnreachable(a)
	case events.SourceNotFound:
		return "put back what the package was published with" + again(a) + "; or publish it again with the right address, and deploy that"
	case events.NoNetworkIdentity:
		if a.Identity == "user" {
			return "see that the user has a ticket of Kerberos for the server, or deploy the program with run: administrative"
		}
		return "give the program an installation-account, publish the package again, and deploy that"
	}
	return a.Reason.Info().Advice
}

// again says how a job that failed is tried again; "" of an access that is of no job.
func again(a events.Access) string {
	switch a.When {
	case events.AccessContent, events.AccessReference, events.AccessRun:
		return ", then `chandler deployment retry`"
	}
	return ""
}

// forTest is the advice where an administrator had an account tried, which no package and no deployment is about; "" where
// it is that of every access.
func forTest(a events.Access) string {
	switch a.Reason {
	case events.NetworkAccessDenied:
		return "grant it read"
	case events.NetworkAccessAccountMissing, events.CredentialDenied:
		return fmt.Sprintf("`chandler account set %s` with --resource %s lets the account be used for it; `chandler account ls -o wide` shows what it may be used for", account(a), word(share(a.Resource)))
	case events.NoNetworkIdentity:
		return fmt.Sprintf("`chandler account set %s` with the --method that the server takes", account(a))
	case events.SourceNotFound:
		return "check the path: its share or one of its folders is spelled otherwise, or is gone"
	case events.ContentChanged:
		return "test it again: it changed while it was read"
	}
	return ""
}

func forDenied(a events.Access) string {
	switch a.Identity {
	case "network-access-account":
		return "grant it read, or add an account for " + word(address(a.Resource)) + again(a)
	case "user":
		return "grant the user read" + again(a) + "; or deploy the program with run: administrative"
	}
	return "grant it read" + again(a)
}

// code is how answers end: words (decimal/hexadecimal), as the field looks them up.
var code = regexp.MustCompile(`\((\d{1,5})/0x[0-9A-Fa-f]{8}\)$`)

// forRejected goes by the number in the answer, which tells a wrong secret from an account that is shut. Such an account
// keeps its secret: it is mended where it is kept, and tried again as it is.
func forRejected(a events.Access) string {
	if a.Identity == "user" {
		return "the user's own sign-in does not count there: let the machine and the user be of a domain that the server trusts" + again(a) + "; or deploy the program with run: administrative"
	}
	rotate := "`chandler account rotate " + account(a) + "`"
	number := ""
	if m := code.FindStringSubmatch(strings.TrimSpace(a.Answer)); m != nil {
		number = m[1]
	}
	switch number {
	case "1331":
		return "the user is disabled: enable it where it is kept" + again(a)
	case "1909":
		return "the user is locked out: find who tries a wrong password, unlock it where it is kept" + again(a)
	case "1793":
		return "the user has expired: extend it where it is kept" + again(a)
	case "1328":
		return "the user may not log on at this hour: allow it where it is kept" + again(a)
	case "1330", "1907":
		return "the password has expired: renew it where it is kept, tell the new one by " + rotate + again(a)
	case "1317":
		return "there is no such user: `chandler account set " + account(a) + "` with the right --user" + again(a)
	}
	if a.When == events.AccessTest {
		return "the secret or the user's name is wrong: " + rotate + " gives it the right secret; a machine that was refused with this one shows it again only with --again"
	}
	return "the secret or the user's name is wrong: " + rotate + " gives it the right secret; it is not tried again before" + again(a)
}

// account is the account's name as a word of a command.
func account(a events.Access) string {
	if events.ValidToken(a.Account) == nil {
		return a.Account
	}
	return "NAME"
}

func forUnreachable(a events.Access) string {
	if answer := strings.ToLower(a.Answer); strings.Contains(answer, "certificate") || strings.Contains(answer, "x509") {
		return "the machine does not believe the server's certificate: name its authority by external-ca in the agent's configuration, or give the server a certificate that is for this name and valid"
	}
	r, err := resource.Parse(a.Resource)
	if err != nil || r.Host == "" {
		return a.Reason.Info().Advice
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, port = r.Host, map[string]string{resource.SMB: "445", resource.File: "445"}[r.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return fmt.Sprintf("check on the machine that %s resolves and answers at port %s", host, port)
}

// share is the address of the share that something lies on; elsewhere its own.
func share(text string) string {
	r, err := resource.Parse(text)
	if err != nil {
		return "RESOURCE"
	}
	if name, _ := r.Share(); r.Scheme == resource.SMB || r.Scheme == resource.File && r.Host != "" {
		r.Path = "/" + name
	}
	return r.String()
}

func address(text string) string {
	r, err := resource.Parse(text)
	if err != nil {
		return "RESOURCE"
	}
	return r.String()
}

var plainAddress = regexp.MustCompile(`^[A-Za-z0-9%:/._~\[\]-]+$`)

// word is an address as a word of a shell.
func word(address string) string {
	if plainAddress.MatchString(address) {
		return address
	}
	return "'" + strings.ReplaceAll(address, "'", url.QueryEscape("'")) + "'"
}

// line is one line of at most maxPart characters.
func line(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > maxPart {
		return string(runes[:maxPart-1]) + "…"
	}
	return string(runes)
}
