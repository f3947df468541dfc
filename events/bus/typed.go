package bus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"

	"chandler/events"
)

// traceExtension is the CloudEvents extension for distributed tracing.
const traceExtension = "traceparent"

// isTrace says whether s is a traceparent: 2, 32, 16 and 2 hexadecimal digits.
func isTrace(s string) bool {
	if len(s) != 55 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 2 || i == 35 || i == 52:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		}
	}
	return true
}

// traceOf is the event's trace, "" where it has none that can be followed: a bad trace stops no work.
func traceOf(e event.Event) string {
	if trace, ok := e.Extensions()[traceExtension].(string); ok && isTrace(trace) {
		return trace
	}
	return ""
}

// Message makes the message of an event, ready for t's subject. The event needs an id, a source that may
// publish the type, and as subject a token ([events.ValidToken]); a zero time becomes the present.
func Message[T any](t events.Type[T], e events.Event[T]) (*nats.Msg, error) {
	if subject := t.Subject(e.Subject); subject == t.Pattern {
		if e.Subject != "" {
			return nil, fmt.Errorf("subject of %s: the type is about nobody, but the event is about %q", t.Name, e.Subject)
		}
	} else if err := events.ValidToken(e.Subject); err != nil {
		return nil, fmt.Errorf("subject of %s: %w", t.Name, err)
	}
	if want := sender(t.Declaration, e.Subject); e.Source != want {
		return nil, fmt.Errorf("source of %s about %q is %q, not %s", t.Name, e.Subject, e.Source, want)
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if strings.TrimSpace(e.ID) == "" {
		return nil, fmt.Errorf("encode event of %s: it has no id", t.Name)
	}
	data, err := encodeData(t.Declaration, &e.Data)
	if err != nil {
		return nil, err
	}
	w := newHeaderWriter(10)
	w.set("ce-specversion", event.CloudEventsVersionV1)
	w.set("ce-id", e.ID)
	w.set("ce-source", e.Source)
	w.set(typeHeader, t.Name)
	w.set("ce-subject", e.Subject)
	w.set("ce-dataschema", t.SchemaID())
	w.set("ce-datacontenttype", jsonContent)
	w.set("ce-time", e.Time.UTC().Format(time.RFC3339Nano))
	if isTrace(e.Trace) {
		w.set("ce-"+traceExtension, e.Trace)
	}
	m, err := w.message(e.ID, data)
	if err != nil {
		return nil, err
	}
	m.Subject = t.Subject(e.Subject)
	return m, nil
}

// encodeData writes the data: of the types that come by the million without reflection.
func encodeData[T any](d events.Declaration, data *T) ([]byte, error) {
	const usual = 512 // bytes
	out, ok := []byte(nil), false
	switch data := any(data).(type) {
	case *events.JobStatus:
		out, ok = events.AppendStatus(make([]byte, 0, usual), data)
	case *events.JobEnd:
		out, ok = events.AppendEnd(make([]byte, 0, usual), data)
	case *events.JobOffer:
		out, ok = events.AppendOffer(make([]byte, 0, usual), data)
	}
	if ok {
		return out, nil
	}
	var buffer bytes.Buffer
	enc := json.NewEncoder(&buffer)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(*data); err != nil {
		return nil, fmt.Errorf("encode data of %s: %w", d.Name, err)
	}
	return bytes.TrimRight(buffer.Bytes(), "\n"), nil
}

// Typed gives an event its data struct, after holding the data against the type's schema. Whether its
// sender may say so is not checked: [Open] and Handle do that, which know the subject it came on.
func Typed[T any](e event.Event) (events.Event[T], error) {
	known, ok := declared(e.Type())
	if !ok {
		return events.Event[T]{}, refuse(reasonUnknown, "type %q is not declared", e.Type())
	}
	if known.Data != reflect.TypeFor[T]() {
		return events.Event[T]{}, refuse(reasonUnknown, "type %s holds %s, not %s", known.Name, known.Data, reflect.TypeFor[T]())
	}
	out, plain := attributesOf[T](e), false
	if e.DataContentType() == jsonContent {
		plain = readPlain(e.Data(), &out.Data)
	}
	var refusal *Refusal
	if plain {
		refusal = consistent(known, e.Subject(), &out.Data)
	} else if refusal = checkData(e, known); refusal == nil {
		out, refusal = decodeData[T](e, known)
	}
	if refusal != nil {
		return events.Event[T]{}, refusal
	}
	return out, nil
}

// Open reads a message of type t that came on its own subject by core NATS. All that Handle checks is
// checked; the error is a *[Refusal].
func Open[T any](t events.Type[T], m *nats.Msg) (events.Event[T], error) {
	e, known, ours, refusal := open[T](m, t.Name)
	if refusal == nil && !ours {
		refusal = refuse(reasonUnknown, "type %s, not %s", known.Name, t.Name)
	}
	if refusal != nil {
		return events.Event[T]{}, refusal
	}
	return e, nil
}
