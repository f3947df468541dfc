package bus

import (
	"encoding/json"
	"fmt"
	"mime"
	"reflect"
	"strconv"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// Why a message is refused; also the values of the label "reason" and of the header Chandler-Reason.
const (
	reasonNotEvent  = "not_cloudevent"
	reasonNotJSON   = "not_json"
	reasonUnknown   = "unknown_type"
	reasonNewer     = "newer_version"
	reasonSchema    = "schema"
	reasonInvalid   = "invalid"
	reasonDisagrees = "disagrees"
	reasonRelayed   = "relayed"
	reasonGaveUp    = "gave_up"
)

// Refusal says why a message is not an event that may be handled.
type Refusal struct {
	Reason string // one of a fixed set of words
	Err    error
}

func (r *Refusal) Error() string { return "refuse event (" + r.Reason + "): " + r.Err.Error() }

// Unwrap gives the cause.
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{reason, fmt.Errorf(format, args...)}
}

// admit is the one gate for events from outside. It lets an event pass if it is a CloudEvent of a declared
// type whose data satisfies its schema, and if subject, source and data name the same agent or service:
// the broker lets a client publish only on subjects of its own, so the subject's token is what we trust.
//
// A message with the broker's own headers is one that the broker itself sent on (a direct get or a
// republication whose reply subject somebody chose): it is refused whatever it says.
func admit(m *nats.Msg) (event.Event, entry, *Refusal) {
	if refusal := relayed(m.Header); refusal != nil {
		return event.Event{}, entry{}, refusal
	}
	e, err := Decode(m)
	if err != nil {
		return event.Event{}, entry{}, &Refusal{reasonNotEvent, err}
	}
	known, ok := declared(e.Type())
	if !ok {
		if events.KnownInOtherVersion(e.Type()) {
			return e, entry{}, refuse(reasonNewer, "type %q is known in another version only", e.Type())
		}
		return e, entry{}, refuse(reasonUnknown, "type %q is not declared", e.Type())
	}
	if refusal := checkData(e, known); refusal != nil {
		return e, known, refusal
	}
	if err := agree(known.Declaration, m.Subject, e.Subject(), e.Source()); err != nil {
		return e, known, &Refusal{reasonDisagrees, err}
	}
	return e, known, nil
}

// relayed refuses a message that the broker itself made of one that it stored: it adds these headers to the
// answers of direct gets and to what it republishes.
func relayed(h nats.Header) *Refusal {
	for _, name := range []string{jetstream.StreamHeader, jetstream.SubjectHeader, jetstream.SequenceHeader} {
		if len(h[name]) > 0 {
			return refuse(reasonRelayed, "carries the header %s", name)
		}
	}
	return nil
}

// Republished checks that a message is one that the broker republished when it stored it in that stream
// under that subject, for readers who await such and no others: elsewhere the same headers are a reason to
// refuse. A message that had them already when it was stored is refused, and so is the answer to somebody's
// direct get of another message. The error is a *[Refusal].
func Republished(m *nats.Msg, stream, subject string) error {
	for name, want := range map[string]string{jetstream.StreamHeader: stream, jetstream.SubjectHeader: subject} {
		if got := m.Header[name]; len(got) != 1 || got[0] != want {
			return refuse(reasonRelayed, "header %s is %q, not %s", name, got, want)
		}
	}
	if n := len(m.Header[jetstream.SequenceHeader]); n != 1 {
		return refuse(reasonRelayed, "header %s is given %d times", jetstream.SequenceHeader, n)
	}
	return nil
}

// checkData holds the data against the schema.
func checkData(e event.Event, known entry) *Refusal {
	if ct := e.DataContentType(); ct != "" && ct != jsonContent {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != jsonContent {
			return refuse(reasonNotJSON, "content type %q is not %s", ct, jsonContent)
		}
	}
	value, err := parseJSON(e.Data())
	if err != nil {
		return &Refusal{reasonNotJSON, err}
	}
	schema, err := known.schema()
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		return &Refusal{reasonSchema, err}
	}
	return nil
}

// agree checks that subject and source name the same sender, and one who may say this. That the data
// agrees with both is for consistent, which sees it as the handler will.
func agree(d events.Declaration, subject, about, source string) error {
	token, ok := subjectToken(d, subject)
	if !ok {
		return fmt.Errorf("subject %s is not one of type %s (%s)", subject, d.Name, d.Pattern)
	}
	if about != token {
		return fmt.Errorf("subject %s, but the event says it is about %q", subject, about)
	}
	if want := sender(d, token); source != want {
		return fmt.Errorf("subject %s, but the event says it comes from %q, not %s", subject, source, want)
	}
	if aboutAgent(d) {
		return events.ValidAgent(token)
	}
	return nil
}

func aboutAgent(d events.Declaration) bool { return strings.HasSuffix(d.Pattern, "<agent>") }

// sender is the only source that may publish type d on the subject with that token. Timers are published
// by the broker in the name of the service that set them; what every service publishes of itself names it in
// the subject.
func sender(d events.Declaration, token string) string {
	switch d.Sender {
	case "agent":
		return events.AgentSource(token)
	case "the broker", events.EveryService:
		return events.ServiceSource(token)
	}
	return events.ServiceSource(d.Sender)
}

// subjectToken is the variable token of a subject of type d, published or as its stream stores it (STATUS
// appends the partition); "" where the type's pattern has none.
func subjectToken(d events.Declaration, subject string) (token string, ok bool) {
	i := strings.IndexByte(d.Pattern, '<')
	if i < 0 {
		return "", subject == d.Pattern
	}
	token, ok = strings.CutPrefix(subject, d.Pattern[:i])
	if !ok {
		return "", false
	}
	if d.Stream == events.StreamStatus {
		if before, partition, stored := strings.Cut(token, "."); stored {
			if n, err := strconv.Atoi(partition); err != nil || n < 0 || n >= events.Partitions {
				return "", false
			}
			token = before
		}
	}
	return token, events.ValidToken(token) == nil
}

// stem is a type's name without its version.
func stem(name string) string {
	if i := strings.LastIndex(name, ".v"); i >= 0 {
		return name[:i]
	}
	return name
}

// validator is data that checks more than its schema can.
type validator interface{ Validate() error }

// decode fills data, a pointer to the type's struct, from an event that passed its schema, and checks it.
func decode(e event.Event, known entry, data any) *Refusal {
	if err := json.Unmarshal(e.Data(), data); err != nil {
		return &Refusal{reasonInvalid, err}
	}
	return consistent(known, e.Subject(), data)
}

// consistent checks what the handler is going to see: it names the agent that the event is about, and its
// parts agree. This is not done on the parsed JSON, because Go finds a field also under a key in other letters.
func consistent(known entry, about string, data any) *Refusal {
	if known.agent != nil {
		if agent := reflect.ValueOf(data).Elem().FieldByIndex(known.agent).String(); agent != about {
			return refuse(reasonDisagrees, "event about %q, but its data names agent %q", about, agent)
		}
	}
	if known.Sender != "agent" {
		return nil
	}
	if v, ok := data.(validator); ok {
		if err := v.Validate(); err != nil {
			return &Refusal{reasonInvalid, err}
		}
	}
	if status, ok := data.(*events.JobStatus); ok {
		if t, declared := events.StatusType(status.State); declared && t.Name != known.Name {
			return refuse(reasonDisagrees, "type %s, but the data says %s", known.Name, status.State)
		}
	}
	return nil
}

func decodeData[T any](e event.Event, known entry) (events.Event[T], *Refusal) {
	out := attributesOf[T](e)
	return out, decode(e, known, &out.Data)
}

// attributesOf is an event without its data.
func attributesOf[T any](e event.Event) events.Event[T] {
	return events.Event[T]{ID: e.ID(), Source: e.Source(), Subject: e.Subject(), Time: e.Time(), Trace: traceOf(e)}
}
