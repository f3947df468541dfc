package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	attributePrefix   = "ce-"
	typeHeader        = attributePrefix + "type"
	contentTypeHeader = "Content-Type"
	jsonContent       = "application/json"

	// maxMessage bounds what Decode reads: the largest stream takes 2 MiB (DEADLETTER).
	maxMessage    = 2 << 20
	maxAttributes = 64
)

// Encode writes an event in binary mode as the CloudEvents NATS binding says: attributes in ce- headers,
// percent-encoded, the data as the body. The id is also the message's id for the broker's duplicate
// window: ids of events are hashes that are unique in the whole fleet. The subject is left empty.
func Encode(e event.Event) (*nats.Msg, error) {
	if e.SpecVersion() != event.CloudEventsVersionV1 {
		return nil, fmt.Errorf("encode event %q: spec version %q is not %s", e.ID(), e.SpecVersion(), event.CloudEventsVersionV1)
	}
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("encode event %q: %w", e.ID(), err)
	}
	w := newHeaderWriter(10 + len(e.Extensions()))
	w.set("ce-specversion", e.SpecVersion())
	w.set("ce-id", e.ID())
	w.set("ce-source", e.Source())
	w.set(typeHeader, e.Type())
	w.set("ce-subject", e.Subject())
	w.set("ce-dataschema", e.DataSchema())
	w.set("ce-datacontenttype", e.DataContentType())
	if !e.Time().IsZero() {
		w.set("ce-time", e.Time().Format(time.RFC3339Nano))
	}
	for name, value := range e.Extensions() {
		text, err := types.Format(value)
		if err != nil {
			return nil, fmt.Errorf("encode event %q: extension %s: %w", e.ID(), name, err)
		}
		w.set(attributePrefix+name, text)
	}
	return w.message(e.ID(), e.Data())
}

// headerWriter writes the attributes of one event.
type headerWriter struct {
	header nats.Header
	values []string // of all headers, so that they are one piece of memory
	err    error
}

func newHeaderWriter(attributes int) headerWriter {
	return headerWriter{header: make(nats.Header, attributes), values: make([]string, 0, attributes)}
}

func (w *headerWriter) set(name, value string) {
	if err := validText(value); err != nil && w.err == nil {
		w.err = fmt.Errorf("attribute %s: %w", strings.TrimPrefix(name, attributePrefix), err)
	}
	if value != "" {
		w.put(name, escape(value))
	}
}

func (w *headerWriter) put(name, value string) {
	n := len(w.values)
	w.values = append(w.values, value)
	w.header[name] = w.values[n : n+1 : n+1]
}

func (w *headerWriter) message(id string, data []byte) (*nats.Msg, error) {
	if w.err != nil {
		return nil, fmt.Errorf("encode event %q: %w", id, w.err)
	}
	w.put(jetstream.MsgIDHeader, escape(id))
	return &nats.Msg{Header: w.header, Data: data}, nil
}

// Decode reads an event in binary mode (ce- headers) or structured mode (Content-Type
// application/cloudevents+json). A message with neither is tried as structured JSON, because sdk-go's
// binding sends it so. The event is valid CloudEvents 1.0; its data is not looked at.
func Decode(m *nats.Msg) (event.Event, error) {
	if n := m.Size(); n > maxMessage {
		return event.Event{}, fmt.Errorf("message of %d bytes is larger than %d", n, maxMessage)
	}
	attributes, contentType, err := readHeader(m.Header)
	if err != nil {
		return event.Event{}, err
	}
	var e event.Event
	switch media, _, _ := mime.ParseMediaType(contentType); {
	case media == event.ApplicationCloudEventsJSON:
		e, err = decodeStructured(m.Data)
	case strings.HasPrefix(media, "application/cloudevents"):
		return event.Event{}, fmt.Errorf("content type %q: only application/cloudevents+json is read", media)
	case attributes["specversion"] != "":
		e, err = decodeBinary(attributes, m.Data)
	case contentType == "":
		e, err = decodeStructured(m.Data)
	default:
		return event.Event{}, fmt.Errorf("content type %q without ce-specversion is not a cloudevent", contentType)
	}
	if err != nil {
		return event.Event{}, err
	}
	if e.SpecVersion() != event.CloudEventsVersionV1 {
		return event.Event{}, fmt.Errorf("spec version %q is not %s", e.SpecVersion(), event.CloudEventsVersionV1)
	}
	if err := e.Validate(); err != nil {
		return event.Event{}, fmt.Errorf("not a valid cloudevent: %w", err)
	}
	return e, nil
}

// readHeader collects the attributes by name in lower case. Names count without regard to case, as other
// implementations write them, so one given twice in whatever spelling is refused.
func readHeader(h nats.Header) (attributes map[string]string, contentType string, err error) {
	attributes = make(map[string]string, len(h))
	for key, values := range h {
		lower := strings.ToLower(key)
		name, isAttribute := strings.CutPrefix(lower, attributePrefix)
		isContentType := lower == "content-type"
		if !isAttribute && !isContentType {
			continue
		}
		if len(values) != 1 {
			return nil, "", fmt.Errorf("header %q is given %d times", key, len(values))
		}
		if isContentType {
			if contentType != "" {
				return nil, "", errors.New("header content-type is given twice")
			}
			contentType = values[0]
			continue
		}
		if _, twice := attributes[name]; twice {
			return nil, "", fmt.Errorf("header %q is given twice", key)
		}
		if len(attributes) == maxAttributes {
			return nil, "", fmt.Errorf("more than %d attributes", maxAttributes)
		}
		if attributes[name], err = unescape(values[0]); err != nil {
			return nil, "", fmt.Errorf("header %q: %w", key, err)
		}
	}
	return attributes, contentType, nil
}

func decodeBinary(attributes map[string]string, data []byte) (event.Event, error) {
	var c event.EventContextV1
	if v := attributes["specversion"]; v != event.CloudEventsVersionV1 {
		return event.Event{}, fmt.Errorf("spec version %q is not %s", v, event.CloudEventsVersionV1)
	}
	for name, value := range attributes {
		var err error
		switch name {
		case "specversion":
		case "id":
			c.ID = value
		case "type":
			c.Type = value
		case "source":
			if source := types.ParseURIRef(value); source != nil {
				c.Source = *source
			} else {
				err = errors.New("not a URI reference")
			}
		case "subject":
			c.Subject = &value
		case "datacontenttype":
			c.DataContentType = &value
		case "dataschema":
			if c.DataSchema = types.ParseURI(value); c.DataSchema == nil {
				err = errors.New("not a URI")
			}
		case "time":
			c.Time, err = types.ParseTimestamp(value)
		default:
			err = c.SetExtension(name, value)
		}
		if err != nil {
			return event.Event{}, fmt.Errorf("attribute %s %q: %w", name, value, err)
		}
	}
	return event.Event{Context: &c, DataEncoded: data}, nil
}

func decodeStructured(data []byte) (e event.Event, err error) {
	if !json.Valid(data) {
		return event.Event{}, errors.New("neither ce- headers nor a JSON body")
	}
	if err := e.UnmarshalJSON(data); err != nil {
		return event.Event{}, fmt.Errorf("read structured cloudevent: %w", err)
	}
	// Headers were checked one by one; here the attributes may hold what JSON can escape.
	for _, text := range []string{e.ID(), e.Source(), e.Type(), e.Subject(), e.DataSchema(), e.DataContentType()} {
		if err := validText(text); err != nil {
			return event.Event{}, fmt.Errorf("read structured cloudevent: attribute %q: %w", text, err)
		}
	}
	for name, value := range e.Extensions() {
		if text, ok := value.(string); ok && validText(text) != nil {
			return event.Event{}, fmt.Errorf("read structured cloudevent: extension %s: %w", name, validText(text))
		}
	}
	return e, nil
}

const hexDigits = "0123456789ABCDEF"

// isPlain says that every character of s is a visible one of ASCII that needs no encoding.
func isPlain(s string) bool {
	for i := range len(s) {
		if mustEscape(s[i]) {
			return false
		}
	}
	return true
}

// escape percent-encodes what the binding says must be: space, double quote, percent, control characters
// and everything beyond ASCII.
func escape(s string) string {
	n := 0
	for i := range len(s) {
		if mustEscape(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	out := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; mustEscape(c) {
			out = append(out, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			out = append(out, c)
		}
	}
	return string(out)
}

func mustEscape(c byte) bool { return c <= ' ' || c == '"' || c == '%' || c >= 0x7f }

// unescape decodes percent-encoding once. A percent sign that begins no pair of hexadecimal digits stands
// for itself: there are senders that do not encode.
func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') >= 0 {
		out := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			if s[i] == '%' && i+2 < len(s) {
				if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi >= 0 && lo >= 0 {
					out = append(out, byte(hi<<4|lo))
					i += 2
					continue
				}
			}
			out = append(out, s[i])
		}
		s = string(out)
	}
	return s, validText(s)
}

// validText says whether s may be an attribute: CloudEvents allow no control characters.
func validText(s string) error {
	if isPlain(s) {
		return nil
	}
	if !utf8.ValidString(s) {
		return errors.New("not UTF-8")
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return fmt.Errorf("control character %U", r)
		}
	}
	return nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
