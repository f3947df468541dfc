package bus

import (
	"reflect"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

const (
	// A message that is read at sight has at most so many headers, none longer than this, and no more data: far
	// below what Decode reads.
	sightHeaders, sightValue, sightData = 32, 1 << 10, 1 << 20

	headerPin = "Nats-Pin-Id" // which the broker adds to what a pinned consumer gets
)

// open is all that is done to a message before a handler sees it as an event with data T: [admit], and what decode
// checks. only is the one type that is wanted; empty: every type whose data is a T. ours is false for others, which
// were admitted and not decoded.
func open[T any](m *nats.Msg, only string) (e events.Event[T], known entry, ours bool, refusal *Refusal) {
	wanted := func() bool { return known.Name == only || only == "" && known.Data == reflect.TypeFor[T]() }
	if e, known, read := atSight[T](m); read {
		switch err := agree(known.Declaration, m.Subject, e.Subject, e.Source); {
		case err != nil:
			return e, known, false, &Refusal{reasonDisagrees, err}
		case only != "" && known.Name != only:
			return e, known, false, nil
		}
		return e, known, true, consistent(known, e.Subject, &e.Data)
	}
	raw, known, refusal := admit(m)
	if refusal != nil || !wanted() {
		return e, known, false, refusal
	}
	e, refusal = decodeData[T](raw, known)
	return e, known, true, refusal
}

// atSight reads a message as [Message] writes it, without the SDK, the schema and reflection: they cost ten times as
// much, and statuses come by the million. It refuses nothing. Where it is not certain that Decode and checkData pass
// the message and read the same, it leaves it to them (ok is false).
func atSight[T any](m *nats.Msg) (e events.Event[T], known entry, ok bool) {
	if !hasReader(&e.Data) || len(m.Header) > sightHeaders || len(m.Data) > sightData {
		return e, known, false
	}
	var a attributes
	for name, values := range m.Header {
		if len(values) != 1 || len(values[0]) > sightValue || !a.take(name, values[0]) {
			return e, known, false
		}
	}
	known, ok = declared(a.kind)
	if !ok || known.Data != reflect.TypeFor[T]() || a.spec != event.CloudEventsVersionV1 || a.schema != known.id || a.content != jsonContent ||
		a.id == "" || a.time.IsZero() || !isPath(a.source) {
		return e, known, false
	}
	if !readPlain(m.Data, &e.Data) {
		return e, known, false
	}
	e.ID, e.Source, e.Subject, e.Time = a.id, a.source, a.about, a.time
	if isTrace(a.trace) {
		e.Trace = a.trace
	}
	return e, known, true
}

// isPath says that s is a source of the form that ours have, and so an address.
func isPath(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '/' && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) > 1 && s[0] == '/'
}

// readPlain reads data of the types that come by the million, which it is given a pointer to, without reflection and
// schema, if it is as plain as package events writes it: see [events.ReadStatus].
func readPlain(data []byte, into any) (ok bool) {
	switch into := into.(type) {
	case *events.JobStatus:
		*into, ok = events.ReadStatus(data)
	case *events.JobEnd:
		*into, ok = events.ReadEnd(data)
	case *events.JobOffer:
		*into, ok = events.ReadOffer(data)
	}
	return ok
}

// hasReader says whether readPlain reads such data.
func hasReader(into any) bool {
	switch into.(type) {
	case *events.JobStatus, *events.JobEnd, *events.JobOffer:
		return true
	}
	return false
}

// attributes of an event in headers that are written as Message writes them.
type attributes struct {
	spec, id, source, kind, about, schema, content, trace string
	time                                                  time.Time
}

// take is given every header once; false for one that is not known here.
func (a *attributes) take(name, value string) bool {
	if value == "" || !isPlain(value) {
		return false
	}
	switch name {
	case "ce-specversion":
		a.spec = value
	case "ce-id":
		a.id = value
	case "ce-source":
		a.source = value
	case typeHeader:
		a.kind = value
	case "ce-subject":
		a.about = value
	case "ce-dataschema":
		a.schema = value
	case "ce-datacontenttype":
		a.content = value
	case "ce-" + traceExtension:
		a.trace = value
	case "ce-time":
		// In UTC, as a strict reader and a lenient one read it alike.
		at, err := time.Parse(time.RFC3339Nano, value)
		a.time = at
		return err == nil && value[len(value)-1] == 'Z'
	case jetstream.MsgIDHeader, headerPin:
	default:
		return false
	}
	return true
}
