package events

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// TypePrefix begins the name of every event type: "dev.chandler.job.succeeded.v1".
const TypePrefix = "dev.chandler."

// Event is one event with its data, as handlers see it. On the wire it is a CloudEvent (package bus).
type Event[T any] struct {
	ID      string    // derived from what the event states, see [DeriveID]; equal events have equal ids
	Source  string    // who says it: "/agents/<id>" or "/services/<name>"
	Subject string    // whom it is about: the last token of the NATS subject (agent, deployment, package …)
	Time    time.Time // when it happened, by the clock of the source
	Trace   string    // W3C traceparent, carried from the CLI to the agent's last status; may be empty
	Data    T
}

// Declaration is what there is to know about one event type.
type Declaration struct {
	Name    string       // "dev.chandler.job.succeeded.v1"
	Stream  string       // name of the stream that stores it; empty: core NATS, not stored
	Summary string       // one sentence: what happened, said by whom
	Pattern string       // NATS subject with one variable token, e.g. "chandler.job.succeeded.<agent>"
	Sender  string       // "agent", or the service that publishes it
	Data    reflect.Type // struct of the data
	Example any          // a value of Data
}

// Type is the typed handle of a declaration.
type Type[T any] struct{ Declaration }

// Subject is the NATS subject for the given variable token. The token must have passed [ValidToken].
func (d Declaration) Subject(token string) string {
	i := strings.IndexByte(d.Pattern, '<')
	if i < 0 {
		return d.Pattern
	}
	return d.Pattern[:i] + token
}

// Filter matches every message of this type as its stream stores it (STATUS appends the partition).
func (d Declaration) Filter() string {
	if d.Stream == StreamStatus {
		return d.Subject("*") + ".*"
	}
	return d.Subject("*")
}

// SchemaID is the dataschema attribute: a name, not an address; the schemas are files in schemas/.
func (d Declaration) SchemaID() string {
	return "urn:chandler:schema:" + strings.TrimPrefix(d.Name, TypePrefix)
}

// catalogue is filled while the package's variables are initialised and never changes afterwards.
var catalogue []Declaration

func declare[T any](name, stream, pattern, sender, summary string, example T) Type[T] {
	d := Declaration{
		Name: TypePrefix + name + ".v1", Stream: stream, Summary: summary, Pattern: Prefix + pattern, Sender: sender,
		Data: reflect.TypeFor[T](), Example: example,
	}
	for _, other := range catalogue {
		if other.Name == d.Name {
			panic(fmt.Sprintf("event type %s is declared twice", d.Name))
		}
	}
	catalogue = append(catalogue, d)
	return Type[T]{d}
}

// Types lists every declared event type by name.
func Types() []Declaration {
	all := slices.Clone(catalogue)
	slices.SortFunc(all, func(a, b Declaration) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// TypeNamed finds a declaration by its full name, or by the name without prefix and version.
func TypeNamed(name string) (Declaration, bool) {
	for _, d := range catalogue {
		short := strings.TrimSuffix(strings.TrimPrefix(d.Name, TypePrefix), ".v1")
		if d.Name == name || short == name {
			return d, true
		}
	}
	return Declaration{}, false
}

// KnownInOtherVersion says whether name is a declared type but for its version: such an event is newer
// than its reader and is kept for later, not refused.
func KnownInOtherVersion(name string) bool {
	stem, _, ok := cutLast(name, ".v")
	if !ok {
		return false
	}
	for _, d := range catalogue {
		if other, _, _ := cutLast(d.Name, ".v"); other == stem && d.Name != name {
			return true
		}
	}
	return false
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
