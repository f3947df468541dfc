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
		"credential.leased": "account corp-installer · kind software-installation · to execute · job " + job,
		"credential.denied": "to read · job " + job + " · reason credential_denied · why no account covers the resource",
		"account.set":       `account corp-reader · kind network-access · user EXAMPLE\reader · by admin`,
		"account.removed":   `account corp-reader · kind network-access · user EXAMPLE\reader · by admin`,
		"agent.kind_set":    "host ws-0412",
		"agent.reported":    "host ws-0412",
		"package.published": "package hello@2.10-3 · by admin",
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
