package events

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestEveryCallThatChangesSomethingSaysWhatItIsAbout(t *testing.T) {
	n := 0
	for _, c := range Calls() {
		if !c.Changes() {
			continue
		}
		n++
		if !c.Req.Implements(reflect.TypeFor[Abouter]()) {
			t.Errorf("%s.%s: give %s a method About in audit.go", c.Service, c.Verb, c.Req)
		}
	}
	if n == 0 {
		t.Error("no call changes anything")
	}
}

func TestARequestSaysWhatItIsAboutInAFewWords(t *testing.T) {
	envelope := func(payload string) []byte {
		e, err := json.Marshal(map[string]any{"payloadType": "x", "payload": []byte(payload), "signatures": []string{}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	agents := strings.Fields("a1 a2 a3 a4 a5 a6")
	tests := []struct {
		request Abouter
		want    string
	}{
		{Nothing{}, ""},
		{Named{Name: "hello"}, "hello"},
		{Named{Name: "hello", Version: "2.10"}, "hello@2.10"},
		{Collection{Name: "all", Expression: "true"}, "all"},
		{DeploymentRequest{Envelope: envelope(`{"deployment":"hello-everywhere","fleet":"f"}`)}, "hello-everywhere"},
		{DeploymentRequest{Envelope: envelope(`[1]`)}, ""},
		{DeploymentRequest{Envelope: []byte("not JSON")}, ""},
		{DeploymentRequest{}, ""},
		{SignRequest{Envelope: envelope(`{"deployment":"d"}`)}, "d"},
		{StopRequest{Deployment: "d"}, "d"},
		{StopRequest{Deployment: "d", Kill: true}, "d (kill)"},
		{Freeze{Scope: "fleet"}, "fleet"},
		{Freeze{Scope: "site", Name: "oslo"}, "site oslo"},
		{UploadRequest{Blobs: []BlobRef{{Size: 1}, {Size: 2}}}, "2 blobs, 3 bytes"},
		{CommitRequest{Manifest: exampleDigest}, exampleDigest},
		{AccountRequest{Account: "corp-reader", Kind: NetworkAccess, User: "u", Secret: []byte("hunter2")}, "corp-reader (network-access)"},
		{TokenRequest{Token: exampleKey, Name: "office"}, "office"},
		{AgentsRequest{Agents: agents[:2]}, "a1, a2"},
		{AgentsRequest{Agents: agents}, "a1, a2, a3, a4, a5 … (6)"},
		{SetKindRequest{Agents: agents[:1], Kind: Legacy}, "legacy: a1"},
		{TrustRequest{Bundle: envelope(`{"fleet":"example","version":3}`)}, "example version 3"},
		{TrustRequest{Bundle: []byte("{")}, ""},
		{UserNotice{User: "ada", Role: "deployer"}, "ada (deployer)"},
	}
	for _, tt := range tests {
		if got := tt.request.About(); got != tt.want {
			t.Errorf("%#v is about %q, want %q", tt.request, got, tt.want)
		}
	}
}

func TestARequestIsDigestedWithoutItsSecret(t *testing.T) {
	r := AccountRequest{Account: "a", User: "u", Secret: []byte("hunter2")}
	if got := r.WithoutSecret().(AccountRequest); got.Secret != nil || got.User != "u" {
		t.Errorf("%+v", got)
	}
	if string(r.Secret) != "hunter2" {
		t.Error("the request itself lost its secret")
	}
	// Whoever adds a request with a secret must say so.
	for _, c := range Calls() {
		for i := range c.Req.NumField() {
			name := c.Req.Field(i).Name
			for _, word := range []string{"Secret", "Password", "Seed"} {
				if strings.Contains(name, word) && !c.Req.Implements(reflect.TypeFor[SecretHolder]()) {
					t.Errorf("%s.%s: %s has a field %s and is no SecretHolder", c.Service, c.Verb, c.Req, name)
				}
			}
		}
	}
}

func FuzzAbout(f *testing.F) {
	f.Add([]byte(`{"payload":"eyJkZXBsb3ltZW50IjoiZCJ9"}`))
	f.Add([]byte(`{"payload":"e30="}`))
	f.Add([]byte("[["))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		// An unverified envelope may say anything, but what it says is no longer than it.
		for _, r := range []Abouter{DeploymentRequest{Envelope: envelope}, SignRequest{Envelope: envelope}, TrustRequest{Bundle: envelope}} {
			if got := r.About(); len(got) > 3*len(envelope)+64 {
				t.Errorf("%d bytes say %d", len(envelope), len(got))
			}
		}
	})
}
