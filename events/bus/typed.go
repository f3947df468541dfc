package bus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/nats-io/nats.go"

	"chandler/events"
)

// traceExtension is the CloudEvents extension for distributed tracing.
const traceExtension = "traceparent"

var traceForm = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// traceOf is the event's trace, "" where it has none that can be followed: a bad trace stops no work.
func traceOf(e event.Event) string {
	if trace, ok := e.Extensions()[traceExtension].(string); ok && traceForm.MatchString(trace) {
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
	ce, err := cloudEvent(t, e)
	if err != nil {
		return nil, err
	}
	m, err := Encode(ce)
	if err != nil {
		return nil, err
	}
	m.Subject = t.Subject(e.Subject)
	return m, nil
}

func cloudEvent[T any](t events.Type[T], e events.Event[T]) (event.Event, error) {
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e.Data); err != nil {
		return event.Event{}, fmt.Errorf("encode data of %s: %w", t.Name, err)
	}
	content := jsonContent
	c := &event.EventContextV1{ID: e.ID, Type: t.Name, DataContentType: &content, Time: &types.Timestamp{Time: e.Time.UTC()}, DataSchema: types.ParseURI(t.SchemaID())}
	if source := types.ParseURIRef(e.Source); source != nil {
		c.Source = *source
	}
	if e.Subject != "" {
		c.Subject = &e.Subject
	}
	if traceForm.MatchString(e.Trace) {
		c.Extensions = map[string]any{traceExtension: e.Trace}
	}
	return event.Event{Context: c, DataEncoded: bytes.TrimRight(data.Bytes(), "\n")}, nil
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
	if refusal := checkData(e, known); refusal != nil {
		return events.Event[T]{}, refusal
	}
	out, refusal := decodeData[T](e, known)
	if refusal != nil {
		return out, refusal
	}
	return out, nil
}

// Open reads a message of type t that came on its own subject by core NATS. All that Handle checks is
// checked; the error is a *[Refusal].
func Open[T any](t events.Type[T], m *nats.Msg) (events.Event[T], error) {
	e, known, refusal := admit(m)
	if refusal == nil && known.Name != t.Name {
		refusal = refuse(reasonUnknown, "type %s, not %s", known.Name, t.Name)
	}
	if refusal != nil {
		return events.Event[T]{}, refusal
	}
	out, refusal := decodeData[T](e, known)
	if refusal != nil {
		return out, refusal
	}
	return out, nil
}
