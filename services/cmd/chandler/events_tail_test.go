package main

import (
	"encoding/json"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"chandler/events"
)

// exampleOf is the example of an event type, as it travels.
func exampleOf(t *testing.T, d events.Declaration) event.Event {
	t.Helper()
	data, err := json.Marshal(d.Example)
	if err != nil {
		t.Fatal(err)
	}
	e := event.New()
	e.SetType(d.Name)
	if err := e.SetData(event.ApplicationJSON, data); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestTheGistOfEveryEventCanBeRead(t *testing.T) {
	for _, d := range events.Types() {
		var g eventGist
		if err := json.Unmarshal(exampleOf(t, d).Data(), &g); err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
	}
}

func TestALineOfAnEventNamesWhatItIsAbout(t *testing.T) {
	const means = `rule in sudoers.d for this command alone`
	job := jobCell(events.AgentAccountElevated.Example.(events.AccountNote).Job).text
	for name, want := range map[string]string{
		"agent.account.elevated": "account SMSCliToknLocalAcct& · kind client-token · elevated to root · program hello 2.10-3 install · means " + means + " · job " + job +
			" · deployment hello-everywhere · host ws-0412",
		"credential.leased":    "account corp-installer · kind software-installation · to execute · job " + job,
		"credential.denied":    `to read · resource \\files.example\software\hello · job ` + job + " · reason credential_denied · why no account covers the resource",
		"account.set":          `account corp-reader · kind network-access · user EXAMPLE\reader · resources \\files.example\software\* · by admin`,
		"account.removed":      `account corp-reader · kind network-access · user EXAMPLE\reader · resources \\files.example\software\* · by admin`,
		"credential.requested": "account corp-installer · kind software-installation · to execute · job " + job,
		"credential.used": `as network access account · account corp-reader · user EXAMPLE\reader · resource \\files.example\software\hello · job ` + job +
			` · deployment hello-everywhere · host ws-0412 · reason network_access_denied · answer access denied (5/0x80070005)`,
		"credential.revoked": "account corp-installer · kind software-installation · to execute · job " + job,
		"credential.expired": "account corp-installer · kind software-installation · to execute · job " + job,
		"credential.test":    `account corp-reader · resource \\files.example\software\hello · by admin`,
		"audit.recorded":     "asked scheduling.deployment_create · about hello-everywhere · outcome ok · by ada",
		"agent.kind_set":     "host ws-0412",
		"agent.reported":     "host ws-0412",
		"package.published":  "package hello@2.10-3 · by admin",

		"deployment.phase_opened":  "phase canary · of 12 machines · deployment hello-everywhere · package hello@2.10-3 · by admin",
		"deployment.phase_skipped": "phase canary · deployment hello-everywhere · package hello@2.10-3 · by admin",
		"deployment.approved":      "phase canary · deployment hello-everywhere · package hello@2.10-3 · by admin",
		"deployment.rolled_back":   "taken back by hello-everywhere-rollback · deployment hello-everywhere · package hello@2.10-3 · by admin",
		"gate.signalled":           "signal com.example.smoketest.passed · about hello · by ci",
		"limits.changed":           "in flight at most 5,000 · by admin",
	} {
		d, ok := events.TypeNamed(name)
		if !ok {
			t.Fatalf("no event type %s", name)
		}
		if got := gist(exampleOf(t, d)).text(); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestAnAccountsScopeIsInItsLine(t *testing.T) {
	g := eventGist{Account: "lab", Resources: []string{"https://www.example/lab/*", "smb://files/x", "nonsense\x1b"}, Collections: []string{"lab", "servers"}, Domain: "EXAMPLE", Method: events.ByBearer}
	want := `account lab · resources \\files\x, an address that cannot be read, https://www.example/lab/* · collections lab, servers · domain EXAMPLE · method bearer`
	if got := g.text(); got != want {
		t.Errorf("got %s", got)
	}
}

func TestWhatMattersIsSeenInTheLineOfAnEvent(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"a rotated account", `{"account":"corp-reader","kind":"network-access","version":3,"by":"ada"}`, "account corp-reader · secret version 3 · kind network-access · by ada"},
		{"a lease of it", `{"account":"corp-reader","version":3,"purpose":"read","job":"job1"}`, "account corp-reader · to read · job job1"},
		{"a rollout that was halted", `{"deployment":"hello","phase":"canary","index":0,"why":"7 of 100 machines failed"}`, "phase canary · deployment hello · why 7 of 100 machines failed"},
		{"agents of the second phase that are released", `{"deployment":"hello","revision":1,"wave":"1","phase":1,"agents":["a"]}`, "deployment hello"},
		{"a job whose package needs another one", `{"job":"job1","deployment":"hello","state":"running","step":"runtime@4.2/install"}`, "first runtime@4.2/install · deployment hello"},
		{"what was refused", `{"by":"ola","service":"credentials","verb":"account_rotate","about":"corp-reader","result":"denied","error":"a viewer may not"}`,
			"asked credentials.account_rotate · about corp-reader · outcome denied (a viewer may not) · by ola"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var g eventGist
			if err := json.Unmarshal([]byte(c.data), &g); err != nil {
				t.Fatal(err)
			}
			if got := g.text(); got != c.want {
				t.Errorf("got %s", got)
			}
		})
	}
}
