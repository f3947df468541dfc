package bus_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/bus"
)

func TestAnEventIsWrittenAsTheBindingSays(t *testing.T) {
	e := event.New()
	e.SetID(`a "b" 100%`)
	e.SetSource("/agents/x")
	e.SetType("com.example.größe")
	e.SetSubject("Ω")
	e.SetTime(time.Date(2026, 12, 1, 8, 0, 0, 5, time.UTC))
	e.SetDataSchema("urn:x:y")
	e.SetExtension("flag", true)
	e.SetExtension("count", 7)
	if err := e.SetData("application/json", map[string]string{"ä": "ö"}); err != nil {
		t.Fatal(err)
	}
	m, err := bus.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	want := nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {"a%20%22b%22%20100%25"}, "ce-source": {"/agents/x"}, "ce-type": {"com.example.gr%C3%B6%C3%9Fe"}, "ce-subject": {"%CE%A9"},
		"ce-time": {"2026-12-01T08:00:00.000000005Z"}, "ce-dataschema": {"urn:x:y"}, "ce-datacontenttype": {"application/json"}, "ce-flag": {"true"}, "ce-count": {"7"},
		"Nats-Msg-Id": {"a%20%22b%22%20100%25"},
	}
	if diff := cmp.Diff(want, m.Header); diff != "" {
		t.Error(diff)
	}
	back, err := bus.Decode(m)
	if err != nil {
		t.Fatal(err)
	}
	e.SetExtension("flag", "true") // binary mode does not carry the types of extensions
	e.SetExtension("count", "7")
	if diff := cmp.Diff(e.String(), back.String()); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNoValidEventIsNotWritten(t *testing.T) {
	old := event.New(event.CloudEventsVersionV03)
	old.SetID("x")
	old.SetSource("/x")
	old.SetType("x")
	for name, e := range map[string]event.Event{"nothing set": event.New(), "an older version": old} {
		if _, err := bus.Encode(e); err == nil {
			t.Errorf("%s is written", name)
		}
	}
}

func TestModesAreToldByTheirHeaders(t *testing.T) {
	kind, e := status(agent, events.Running, 3)
	binary := encode(t, kind, e)
	raw, err := bus.Decode(binary)
	if err != nil {
		t.Fatal(err)
	}
	structured, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	upper := nats.Header{}
	for name, values := range binary.Header {
		upper[strings.ToUpper(name)] = values
	}
	good := map[string]*nats.Msg{
		"binary":                                binary,
		"binary with names in capitals":         {Header: upper, Data: binary.Data},
		"structured":                            {Header: nats.Header{"Content-Type": {"application/cloudevents+json; charset=utf-8"}}, Data: structured},
		"structured with a content-type header": {Header: nats.Header{"content-type": {"application/cloudevents+json"}}, Data: structured},
		"structured without any header":         {Data: structured},
	}
	for name, m := range good {
		got, err := bus.Decode(m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(raw.String(), got.String()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	with := func(name string, values ...string) *nats.Msg {
		h := maps.Clone(binary.Header)
		h[name] = values
		return &nats.Msg{Header: h, Data: binary.Data}
	}
	many := maps.Clone(binary.Header)
	for i := range 100 {
		many["ce-x"+strings.Repeat("y", i)] = []string{"z"}
	}
	bad := map[string]*nats.Msg{
		"another content":                 {Header: nats.Header{"Content-Type": {"text/plain"}}, Data: structured},
		"structured that is cut":          {Data: structured[:len(structured)-1]},
		"binary and said to be XML":       with("Content-Type", "application/cloudevents+xml"),
		"an extension with a bad name":    with("ce-bad_name", "x"),
		"a broken encoding":               with("ce-subject", "%ff"),
		"content types that disagree":     with("Content-Type", "application/json", "text/xml"),
		"a source that is no URI":         with("ce-source", "://"),
		"a schema that is no URI":         with("ce-dataschema", "://"),
		"more attributes than are needed": {Header: many},
		"more than a stream takes":        {Header: binary.Header, Data: make([]byte, 3<<20)},
	}
	for name, m := range bad {
		if got, err := bus.Decode(m); err == nil {
			t.Errorf("%s is read as\n%s", name, got)
		}
	}
}

func TestAPercentSignThatEncodesNothingStandsForItself(t *testing.T) {
	kind, e := status(agent, events.Running, 3)
	m := encode(t, kind, e)
	for in, want := range map[string]string{"100%": "100%", "%zz": "%zz", "%2": "%2", "%2525": "%25", "a%20b%c3%a4": "a bä"} {
		m.Header["ce-subject"] = []string{in}
		got, err := bus.Decode(m)
		if err != nil || got.Subject() != want {
			t.Errorf("%s is read as %q (%v)", in, got.Subject(), err)
		}
	}
}

func TestATraceThatCannotBeFollowedStopsNothing(t *testing.T) {
	kind, e := status(agent, events.Running, 3)
	e.Trace = "nonsense"
	m := encode(t, kind, e)
	if _, ok := m.Header["ce-traceparent"]; ok {
		t.Error("a trace that is none is written")
	}
	m.Header["ce-traceparent"] = []string{"nonsense"}
	got, err := bus.Open(kind, m)
	if err != nil || got.Trace != "" {
		t.Errorf("trace %q (%v)", got.Trace, err)
	}
}

// serialise writes a fuzzed message as one text and reads it: lines of headers, an empty line, the data.
func serialise(m *nats.Msg) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(m.Header)) {
		for _, v := range m.Header[name] {
			b.WriteString(name + ":" + v + "\n")
		}
	}
	b.WriteString("\n")
	b.Write(m.Data)
	return b.Bytes()
}

func deserialise(text []byte) *nats.Msg {
	head, data, _ := bytes.Cut(text, []byte("\n\n"))
	m := &nats.Msg{Subject: events.JobRunning.Subject(agent), Header: nats.Header{}, Data: data}
	for line := range strings.SplitSeq(string(head), "\n") {
		name, value, _ := strings.Cut(line, ":")
		m.Header[name] = append(m.Header[name], value)
	}
	return m
}

// FuzzDecode: whatever is read as an event can be written again and is then read the same; what is opened
// names the agent of its subject.
func FuzzDecode(f *testing.F) {
	for _, d := range events.Types() {
		kind := events.Type[any]{Declaration: d}
		e := events.Event[any]{ID: "x", Source: events.ServiceSource(d.Sender), Subject: agent, Data: d.Example}
		if d.Sender == "agent" {
			e.Source = events.AgentSource(agent)
		}
		if m, err := bus.Message(kind, e); err == nil {
			f.Add(serialise(m))
			if raw, err := bus.Decode(m); err == nil {
				text, _ := json.Marshal(raw)
				f.Add(append([]byte("Content-Type:application/cloudevents+json\n\n"), text...))
			}
		}
	}
	f.Add([]byte("ce-specversion:1.0\nCE-specversion:1.0\nce-id:%\nce-time:0000-00-00\n\n\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m := deserialise(text)
		if opened, err := bus.Open(events.JobRunning, m); err == nil && (opened.Data.Agent != agent || opened.Subject != agent || opened.Source != events.AgentSource(agent)) {
			t.Errorf("opened as %+v", opened)
		}
		e, err := bus.Decode(m)
		if err != nil {
			return
		}
		again, err := bus.Encode(e)
		if err != nil {
			t.Fatalf("read and cannot be written: %v", err)
		}
		back, err := bus.Decode(again)
		if err != nil {
			t.Fatalf("written and cannot be read: %v\n%v", err, again.Header)
		}
		if e.ID() != back.ID() || e.Source() != back.Source() || e.Type() != back.Type() || e.Subject() != back.Subject() || !e.Time().Equal(back.Time()) || !bytes.Equal(e.Data(), back.Data()) {
			t.Errorf("read as\n%s\nthen as\n%s", e, back)
		}
	})
}
