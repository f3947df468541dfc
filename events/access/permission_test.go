package access

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/jwt/v2"

	"chandler/events"
)

var update = flag.Bool("update", false, "write the golden file anew")

const (
	testName = "amrqzcs6aqpwdvsh3k7b"
	testKey  = "UAHVPCZKDQ5NLTPWDJCZHVMQWUYSLCQMLXRSMWJ2UX6AYOL2VKYSPFLB"
)

// The golden file is what an administrator reads, and what a change of the declarations shows up in.
type (
	document struct {
		Accounts map[Account]accountText `json:"accounts"`
		Roles    map[Role]roleText       `json:"roles"`
		Leaf     map[Account]roleText    `json:"leaf_node"` // in each account what passes to the hub, and from it
	}
	accountText struct {
		JetStream bool                      `json:"jetstream,omitempty"`
		Exports   crossingsText             `json:"exports,omitzero"`
		Imports   map[Account]crossingsText `json:"imports,omitempty"` // by the account that they are from
	}
	crossingsText struct {
		Requests []string `json:"requests,omitempty"` // go from the importing account to the exporting one
		Many     []string `json:"requests_with_many_answers,omitempty"`
		Streams  []string `json:"streams,omitempty"` // the other way
	}
	roleText struct {
		Account       Account  `json:"account"`
		Bearer        bool     `json:"bearer,omitempty"`
		Subscriptions int64    `json:"most_subscriptions,omitempty"`
		Payload       int64    `json:"most_payload,omitempty"`
		Publish       []string `json:"publish"`
		Subscribe     []string `json:"subscribe"`
	}
)

// add a crossing to the list of its kind.
func (t crossingsText) add(c crossing) crossingsText {
	switch {
	case c.kind == jwt.Stream:
		t.Streams = append(t.Streams, c.subject)
	case c.many:
		t.Many = append(t.Many, c.asked())
	default:
		t.Requests = append(t.Requests, c.asked())
	}
	return t
}

func TestThePermissionsAreThoseThatAreWrittenDown(t *testing.T) {
	d := document{map[Account]accountText{}, map[Role]roleText{}, map[Account]roleText{}}
	for _, a := range Accounts() {
		text := accountText{JetStream: a == Fleet, Imports: map[Account]crossingsText{}}
		for _, c := range exported(a) {
			text.Exports = text.Exports.add(c)
		}
		for _, c := range crossings(a) {
			text.Imports[c.from] = text.Imports[c.from].add(c)
		}
		d.Accounts[a] = text
	}
	for _, r := range Roles() {
		limits := template(r)
		text := roleText{Account: r.Account(), Bearer: limits.BearerToken, Publish: limits.Pub.Allow, Subscribe: limits.Sub.Allow}
		if limits.Subs != jwt.NoLimit {
			text.Subscriptions = limits.Subs
		}
		if limits.Payload != jwt.NoLimit {
			text.Payload = limits.Payload
		}
		d.Roles[r] = text
	}
	system := systemGrant(itsName)
	d.Roles[SystemUser] = roleText{Account: System, Publish: tidy(system.publish), Subscribe: tidy(system.subscribe)}
	for _, a := range LeafAccounts() {
		g := leafGrant(a)
		d.Leaf[a] = roleText{Account: a, Publish: tidy(g.publish), Subscribe: tidy(g.subscribe)}
	}

	var got bytes.Buffer
	e := json.NewEncoder(&got)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		t.Fatal(err)
	}
	const path = "../../deploy/nats/permissions.json"
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("run `go test ./events/access -update`: %s", diff)
	}
}

// may says whether the subject is in the list, for a user of the test's name and key.
func may(list []string, subject string) bool {
	return slices.ContainsFunc(list, func(allowed string) bool {
		allowed = strings.NewReplacer(itsName, testName, itsKey, testKey).Replace(allowed)
		return jwt.Subject(subject).IsContainedIn(jwt.Subject(allowed))
	})
}

// publishers are the roles that may publish on the subject.
func publishers(subject string) []Role {
	var roles []Role
	for _, r := range Roles() {
		if may(grantOf(r).publish, subject) {
			roles = append(roles, r)
		}
	}
	return roles
}

func TestEachEventTypeIsPublishedByItsSenderAndNobodyElse(t *testing.T) {
	for _, d := range events.Types() {
		want, others := []Role{Service(d.Sender)}, "other"
		subject, strange := d.Subject("x"), ""
		switch d.Sender {
		case "agent":
			want, subject, strange = []Role{Agent}, d.Subject(testName), d.Subject(others)
		case events.EveryService:
			want, subject, strange = []Role{Service("content")}, d.Subject("content"), d.Subject(others)
		case "the broker":
			want = nil
		}
		if diff := cmp.Diff(want, publishers(subject)); diff != "" {
			t.Errorf("%s: %s", d.Name, diff)
		}
		if strange != "" && len(publishers(strange)) > 0 {
			t.Errorf("%s in another's name is published by %v", d.Name, publishers(strange))
		}
	}
}

func TestEachCallIsMadeByItsCallersInTheirOwnNameOnly(t *testing.T) {
	for _, c := range events.Calls() {
		var want []Role
		for _, r := range []Role{Agent, Enrolling, Administrator, Deployer, Viewer} {
			if r.caller().Includes(c.By) {
				want = append(want, r)
			}
		}
		if diff := cmp.Diff(want, publishers(c.Subject(testKey, testName))); diff != "" {
			t.Errorf("%s.%s: %s", c.Service, c.Verb, diff)
		}
		for _, strange := range []string{c.Subject(testKey, "other"), c.Subject(events.NoKey, testName)} {
			got := publishers(strange)
			if strange == c.Subject(testKey, testName) || c.By == events.ByEnrolling {
				continue
			}
			if len(got) > 0 {
				t.Errorf("%s is published by %v", strange, got)
			}
		}
	}
}

func TestWhatIsKeptIsWrittenByItsOwnerAndNobodyElse(t *testing.T) {
	for _, b := range events.Buckets() {
		prefix := "$KV."
		if b.Objects {
			prefix = "$O."
		}
		stream := bucketStream(b)
		owner := []Role{Service(b.Owner)}
		for _, subject := range []string{prefix + b.Name + ".key", "$JS.API.STREAM.PURGE." + stream, "$JS.API.DIRECT.GET." + stream, "$JS.API.CONSUMER.CREATE." + stream + ".x.y"} {
			want := owner
			if strings.HasPrefix(subject, "$JS.API.CONSUMER.CREATE.") {
				want = append([]Role{Provisioner}, owner...) // who makes the backups reads it
			}
			if diff := cmp.Diff(want, publishers(subject)); diff != "" {
				t.Errorf("%s: %s", subject, diff)
			}
		}
	}
}

func TestNobodyRemovesStreamsAndOnlyTheProvisionerMakesThem(t *testing.T) {
	for _, s := range events.Streams() {
		for verb, want := range map[string][]Role{"CREATE": {Provisioner}, "UPDATE": {Provisioner}, "DELETE": nil, "MSG.DELETE": nil, "RESTORE": nil, "SNAPSHOT": {Provisioner}, "LEADER.STEPDOWN": nil} {
			if diff := cmp.Diff(want, publishers("$JS.API.STREAM."+verb+"."+s.Name)); diff != "" {
				t.Errorf("%s %s: %s", verb, s.Name, diff)
			}
		}
		var want []Role
		if s.Name == events.StreamFold {
			want = []Role{Service("execution")}
		}
		if diff := cmp.Diff(want, publishers("$JS.API.STREAM.PURGE."+s.Name)); diff != "" {
			t.Errorf("purge %s: %s", s.Name, diff)
		}
	}
}

func TestEveryServiceHasItsNeedsWrittenDown(t *testing.T) {
	for _, name := range Services() {
		if _, ok := readers()[name]; !ok {
			t.Errorf("service %s is not in the table of readers", name)
		}
	}
	if len(readers()) != len(Services()) {
		t.Errorf("the table of readers names services that answer nothing: %v", Services())
	}
}

func TestStreamsThatAgentsFillHoldNothingOfOthers(t *testing.T) {
	// Otherwise their short permissions would let agents publish what is not theirs.
	for _, d := range events.Types() {
		for _, other := range events.Types() {
			if d.Sender == "agent" && other.Sender != "agent" && jwt.Subject(other.Subject(testName)).IsContainedIn(jwt.Subject(published(d, testName))) {
				t.Errorf("who may publish %s may publish %s", d.Name, other.Name)
			}
		}
	}
}

func TestAnAccountImportsWhatItsRolesUse(t *testing.T) {
	for _, r := range Roles() {
		if r.Account() == Fleet || r == Integrator {
			continue
		}
		var requests, streams []string
		for _, c := range crossings(r.Account()) {
			if c.kind == jwt.Service {
				requests = append(requests, c.asked())
			} else {
				streams = append(streams, c.subject)
			}
		}
		pinned := strings.NewReplacer(itsName, testName, itsKey, testKey)
		for _, subject := range grantOf(r).publish {
			if !may(requests, pinned.Replace(subject)) {
				t.Errorf("%s may publish %s, which goes nowhere", r, subject)
			}
		}
		for _, subject := range grantOf(r).subscribe {
			if !strings.HasPrefix(subject, inboxes) && !may(streams, pinned.Replace(subject)) {
				t.Errorf("%s may subscribe to %s, which comes from nowhere", r, subject)
			}
		}
	}
}
