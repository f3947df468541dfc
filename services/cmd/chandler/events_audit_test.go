package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/bus"
)

const (
	adasKey = "UAHVPCZKDQ5NLTPWDJCZHVMQWUYSLCQMLXRSMWJ2UX6AYOL2VKYSPFLB"
	bobsKey = "UBHVPCZKDQ5NLTPWDJCZHVMQWUYSLCQMLXRSMWJ2UX6AYOL2VKYSPFLB"
)

// record stores what a service would say of one request.
func (f *fakeFleet) record(t *testing.T, r events.AuditRecord) {
	t.Helper()
	id := events.DeriveID("test", fmt.Sprint(r))
	e := events.Event[events.AuditRecord]{ID: id, Source: events.ServiceSource(r.Service), Subject: r.Service, Time: r.At, Data: r}
	if _, err := bus.Publish(t.Context(), f.bus, events.AuditRecorded, e); err != nil {
		t.Fatal(err)
	}
}

func auditedFleet(t *testing.T) *fakeFleet {
	t.Helper()
	f := newFakeFleet(t)
	before, after, at := strings.Repeat("a", 64), strings.Repeat("b", 64), testNow.Add(-time.Hour)
	f.record(t, events.AuditRecord{By: "ada", Key: adasKey, Service: "scheduling", Verb: "collection_set", About: "office", Request: after, Before: before, After: after, Result: "ok", At: at})
	f.record(t, events.AuditRecord{By: "bob", Key: bobsKey, Service: "credentials", Verb: "account_set", About: "corp\x1b[2J (network-access)", Request: after, Result: "denied", Error: "not yours", At: at})
	f.record(t, events.AuditRecord{By: "ada", Key: adasKey, Service: "content", Verb: "remove", About: "hello@2.10-3", Request: after, Before: before, Result: "conflict", Error: "in use", At: at})
	// What only pretends to be a record: another service's name, and no record at all.
	m, err := bus.Message(events.AuditRecorded, events.Event[events.AuditRecord]{ID: "x", Source: events.ServiceSource("content"), Subject: "content", Time: at,
		Data: events.AuditRecord{By: "eve", Service: "content", At: at}})
	if err != nil {
		t.Fatal(err)
	}
	m.Subject = events.AuditRecorded.Subject("scheduling")
	for _, m := range []*nats.Msg{m, {Subject: m.Subject, Data: []byte("eve")}} {
		if _, err := f.bus.JetStream().PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestTheAuditShowsWhoAskedForWhatAndWhatBecameOfIt(t *testing.T) {
	f := auditedFleet(t)
	verbs := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, f.app, "", append([]string{"events", "audit", "--since", "", "-o", "json"}, args...)...)
		if code != 0 || strings.Count(stderr, "not a record of the audit") != 2 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		var rows []auditRow
		if err := json.Unmarshal([]byte(stdout), &rows); err != nil {
			t.Fatalf("%v: %v in %s", args, err, stdout)
		}
		var found []string
		for _, r := range rows {
			found = append(found, r.By+" "+r.Verb)
		}
		return strings.Join(found, ", ")
	}
	for _, tt := range []struct{ args, want string }{
		{"", "ada collection_set, bob account_set, ada remove"},
		{"--by ada", "ada collection_set, ada remove"},
		{"--by UBHVPCZ", "bob account_set"},
		{"--refused", "bob account_set, ada remove"},
		{"--verb remove", "ada remove"},
		{"--verb content.remove --refused", "ada remove"},
		{"--verb scheduling.remove", ""},
		{"--by eve", ""},
	} {
		if got := verbs(strings.Fields(tt.args)...); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.args, got, tt.want)
		}
	}
	code, stdout, stderr := command(t, f.app, "", "events", "audit", "--since", "")
	if code != 0 {
		t.Fatal(stderr)
	}
	var got [][]string
	for line := range strings.Lines(stdout) {
		got = append(got, strings.Fields(line)[3:])
	}
	want := [][]string{
		strings.Fields("REQUEST ABOUT RESULT CHANGE"),
		strings.Fields("ada UAHVPCZK scheduling.collection_set office ok aaaaaaaa → bbbbbbbb"),
		strings.Fields("bob UBHVPCZK credentials.account_set corp\ufffd[2J (network-access) denied"),
		strings.Fields("ada UAHVPCZK content.remove hello@2.10-3 conflict aaaaaaaa →"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s in\n%s", diff, stdout)
	}
}

func TestTheAuditIsFollowed(t *testing.T) {
	f := auditedFleet(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- f.app.run(ctx, streams{strings.NewReader(""), in, io.Discard}, []string{"events", "audit", "--since", "", "--by", "ada", "-f"})
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no further line: %v", lines.Err())
		}
		return lines.Text()
	}
	for _, want := range []string{"scheduling.collection_set", "content.remove"} {
		if got := next(); !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f.record(t, events.AuditRecord{By: "ada", Key: adasKey, Service: "execution", Verb: "stop", About: "hello", Result: "denied", Error: "not yours", At: testNow})
	if got := next(); !strings.Contains(got, "execution.stop") || !strings.HasSuffix(got, "not yours") {
		t.Error(got)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("interrupted, it exits with %d", code)
	}
}
