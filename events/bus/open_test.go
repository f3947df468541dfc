package bus

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"chandler/events"
)

const sightAgent = "amrqzcs6aqpwdvsh3k7b2"

// told is the message of a status, as its agent publishes it.
func told(t testing.TB, state events.State, change func(*events.JobStatus)) *nats.Msg {
	t.Helper()
	s := events.JobStatus{Job: events.JobID("d", 1, sightAgent, 0, ""), Deployment: "d", Revision: 1, Order: strings.Repeat("0", 64), Agent: sightAgent, Host: "ws-1",
		Attempt: 1, Transition: 3, State: state, At: time.Date(2026, 12, 1, 8, 0, 0, 7, time.UTC)}
	if change != nil {
		change(&s)
	}
	kind, ok := events.StatusType(state)
	if !ok {
		t.Fatalf("state %s has no type", state)
	}
	m, err := Message(kind, events.Event[events.JobStatus]{ID: s.StatusID(), Source: events.AgentSource(sightAgent), Subject: sightAgent, Time: s.At,
		Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Data: s})
	if err != nil {
		t.Fatal(err)
	}
	m.Subject += ".3" // as STATUS stores it
	return m
}

const notOurs = "of another type"

// slow is open by the SDK, the schema and reflection alone.
func slow[T any](m *nats.Msg) (e events.Event[T], reason string) {
	raw, known, refusal := admit(m)
	if refusal == nil {
		if _, ours := known.Example.(T); !ours {
			return e, notOurs
		}
		e, refusal = decodeData[T](raw, known)
	}
	if refusal != nil {
		return e, refusal.Reason
	}
	return e, ""
}

// agreeing holds both ways of reading against each other.
func agreeing[T any](t *testing.T, m *nats.Msg) (reason string) {
	t.Helper()
	want, reason := slow[T](m)
	got, _, ours, refusal := open[T](m, "")
	switch {
	case refusal != nil && refusal.Reason != reason:
		t.Errorf("refused as %v, want %q\n%v\n%s", refusal, reason, m.Header, m.Data)
	case refusal == nil && reason == notOurs:
		if ours {
			t.Errorf("read as what it is not: %+v", got)
		}
	case refusal == nil && reason != "":
		t.Errorf("passes, want %q\n%v\n%s", reason, m.Header, m.Data)
	case refusal == nil:
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%v\n%s", diff, m.Header, m.Data)
		}
	}
	return reason
}

func TestStatusesAreReadAtSightWithTheVerdictOfTheWholeWay(t *testing.T) {
	with := func(name string, values ...string) func(*nats.Msg) {
		return func(m *nats.Msg) { m.Header[name] = values }
	}
	tests := []struct {
		name   string
		edit   func(*nats.Msg)
		reason string
		sight  bool // it is read at sight
	}{
		{"as its agent publishes it", func(*nats.Msg) {}, "", true},
		{"delivered to a pinned reader", with(headerPin, "x"), "", true},
		{"with a header of its own", with("X-Other", "x"), "", false},
		{"with a trace that is none", with("ce-traceparent", "x"), "", true},
		{"with another extension", with("ce-other", "x"), "", false},
		{"in capitals", func(m *nats.Msg) { m.Header["CE-ID"] = m.Header["ce-id"]; delete(m.Header, "ce-id") }, "", false},
		{"with a schema of another address", with("ce-dataschema", "urn:other"), "", false},
		{"of another zone", with("ce-time", "2026-12-01T08:00:00+01:00"), "", false},
		{"without an id", with("ce-id", ""), reasonNotEvent, false},
		{"with two ids", with("ce-id", "a", "b"), reasonNotEvent, false},
		{"sent on by the broker", with("Nats-Stream", "STATUS"), reasonRelayed, false},
		{"of an unknown type", with("ce-type", "dev.chandler.job.x.v1"), reasonUnknown, false},
		{"of a newer type", with("ce-type", "dev.chandler.job.running.v2"), reasonNewer, false},
		{"of another agent", with("ce-subject", "abcdefgh"), reasonDisagrees, true},
		{"from another agent", with("ce-source", "/agents/abcdefgh"), reasonDisagrees, true},
		{"of another type than its subject", with("ce-type", events.JobFailed.Name), reasonDisagrees, false},
		{"from nobody", func(m *nats.Msg) { delete(m.Header, "ce-source") }, reasonNotEvent, false},
		{"from what is no address", with("ce-source", "://"), reasonNotEvent, false},
		{"from an address of another form", with("ce-source", "/x?y"), reasonDisagrees, false},
		{"about nobody", func(m *nats.Msg) { delete(m.Header, "ce-subject") }, reasonDisagrees, true},
		{"on another subject", func(m *nats.Msg) { m.Subject = "chandler.job.running.abcdefgh.3" }, reasonDisagrees, true},
		{"in a partition that is none", func(m *nats.Msg) { m.Subject += "9" }, reasonDisagrees, true},
		{"whose data names another agent", replaced(sightAgent, "abcdefgh"), reasonDisagrees, true},
		{"whose data names another state", replaced(`"running"`, `"failed"`), reasonDisagrees, true},
		{"whose job is another", replaced(`"revision":1`, `"revision":2`), reasonInvalid, true},
		{"whose attempts begin at none", replaced(`"attempt":1`, `"attempt":0`), reasonInvalid, true},
		{"without a host", replaced(`"host":"ws-1",`, ``), "", true},
		{"without an attempt", replaced(`"attempt":1,`, ``), reasonSchema, false},
		{"with a field of a newer version", replaced(`"attempt":1,`, `"attempt":1,"more":[{}],`), "", false},
		{"with half an attempt", replaced(`"attempt":1,`, `"attempt":1.5,`), reasonSchema, false},
		{"with something behind its data", func(m *nats.Msg) { m.Data = append(slices.Clone(m.Data), '1') }, reasonNotJSON, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := told(t, events.Running, nil)
			tt.edit(m)
			if got := agreeing[events.JobStatus](t, m); got != tt.reason {
				t.Errorf("refused as %q, want %q", got, tt.reason)
			}
			if _, _, ok := atSight[events.JobStatus](m); ok != tt.sight {
				t.Errorf("read at sight: %v", ok)
			}
		})
	}
}

func replaced(old, with string) func(*nats.Msg) {
	return func(m *nats.Msg) { m.Data = bytes.ReplaceAll(m.Data, []byte(old), []byte(with)) }
}

func TestOnlyTheTypeThatIsWantedIsOpened(t *testing.T) {
	if _, err := Open(events.JobRunning, told(t, events.Failed, nil)); err == nil {
		t.Error("a failure passes for a start")
	}
	if _, err := Open(events.JobFailed, told(t, events.Failed, nil)); err != nil {
		t.Error(err)
	}
}

func TestEndsAndOffersAreReadAtSight(t *testing.T) {
	end := events.JobFinished.Example.(events.JobEnd)
	m, err := Message(events.JobFinished, events.Event[events.JobEnd]{ID: "x", Source: events.ServiceSource("execution"), Subject: end.Agent, Data: end})
	if err != nil {
		t.Fatal(err)
	}
	if reason := agreeing[events.JobEnd](t, m); reason != "" {
		t.Errorf("an end is refused as %q", reason)
	}
	if _, _, ok := atSight[events.JobEnd](m); !ok {
		t.Error("an end is not read at sight")
	}
	if reason := agreeing[events.JobOffer](t, m); reason != notOurs {
		t.Errorf("an end as an offer: %q", reason)
	}
	m.Data = bytes.ReplaceAll(m.Data, []byte(end.Agent), []byte("abcdefgh"))
	if reason := agreeing[events.JobEnd](t, m); reason != reasonDisagrees {
		t.Errorf("an end of another agent: %q", reason)
	}
	offer := events.JobOffered.Example.(events.JobOffer)
	m, err = Message(events.JobOffered, events.Event[events.JobOffer]{ID: "x", Source: events.ServiceSource("execution"), Subject: offer.Agent, Data: offer})
	if err != nil {
		t.Fatal(err)
	}
	if reason := agreeing[events.JobOffer](t, m); reason != "" {
		t.Errorf("an offer is refused as %q", reason)
	}
	if _, _, ok := atSight[events.JobOffer](m); !ok {
		t.Error("an offer is not read at sight")
	}
}

// FuzzAtSight: the way at sight and the whole way have the same verdicts, and read the same.
func FuzzAtSight(f *testing.F) {
	full := func(s *events.JobStatus) {
		s.Reason, s.Explanation, s.ExitCode, s.Seconds, s.RetryAt = events.ExitCode, "ä \"quoted\" \n", new(-1603), 1.25, new(s.At)
		s.Accesses = []events.Access{{Resource: "smb://a/b", Identity: "user", When: "run", At: s.At}}
	}
	for _, state := range []events.State{events.Running, events.Failed, events.Retrying} {
		m := told(f, state, full)
		f.Add(m.Subject, headerText(m.Header), m.Data)
	}
	add := func(m *nats.Msg, err error) {
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.Subject, headerText(m.Header), m.Data)
	}
	end := events.JobFinished.Example.(events.JobEnd)
	end.Silent = true
	add(Message(events.JobFinished, events.Event[events.JobEnd]{ID: "x", Source: events.ServiceSource("execution"), Subject: end.Agent, Data: end}))
	offer := events.JobOffered.Example.(events.JobOffer)
	add(Message(events.JobOffered, events.Event[events.JobOffer]{ID: "x", Source: events.ServiceSource("execution"), Subject: offer.Agent, Data: offer}))
	m := told(f, events.Running, nil)
	f.Add(m.Subject, headerText(m.Header)+"Nats-Pin-Id:x\n", m.Data)
	for name := range m.Header { // each header missing, or another
		without := maps.Clone(m.Header)
		delete(without, name)
		f.Add(m.Subject, headerText(without), m.Data)
		for _, value := range []string{"", "://", "%20", " ", "x", "X/"} {
			without[name] = []string{value}
			f.Add(m.Subject, headerText(without), m.Data)
		}
	}
	f.Add(m.Subject, strings.ReplaceAll(headerText(m.Header), "08:00:00", "08:00:60"), m.Data)
	f.Add(m.Subject, strings.ReplaceAll(headerText(m.Header), "ce-time:", "ce-time:0"), bytes.ReplaceAll(m.Data, []byte("2026-"), []byte("0000-")))
	f.Fuzz(func(t *testing.T, subject, header string, data []byte) {
		m := &nats.Msg{Subject: subject, Header: nats.Header{}, Data: data}
		for line := range strings.SplitSeq(header, "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok {
				m.Header[name] = append(m.Header[name], value)
			}
		}
		agreeing[events.JobStatus](t, m)
		agreeing[events.JobEnd](t, m)
		agreeing[events.JobOffer](t, m)
	})
}

func headerText(h nats.Header) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		fmt.Fprintf(&b, "%s:%s\n", name, h[name][0])
	}
	return b.String()
}
