package events_test

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"

	"chandler/events"
)

// object is a YAML mapping that keeps its order.
type object = yaml.MapSlice

func item(key string, value any) yaml.MapItem { return yaml.MapItem{Key: key, Value: value} }

func ref(path string) object { return object{item("$ref", path)} }

func TestAsyncAPIIsWhatTheDeclarationsSay(t *testing.T) {
	r := newReflector(t)
	channels, operations, messages := describeEvents(t)
	requestChannels, requestOperations, requestMessages := describeCalls()
	document := object{
		item("asyncapi", "3.0.0"),
		item("info", object{
			item("title", "Chandler"),
			item("version", "1.0.0"),
			item("description", "Events of Chandler, CloudEvents 1.0 in binary mode on NATS, and the requests that its services answer.\nDerived from package events by `go test ./events -update`; the schemas lie beside this file.\n"),
		}),
		item("defaultContentType", "application/json"),
		item("channels", append(channels, requestChannels...)),
		item("operations", append(operations, requestOperations...)),
		item("components", object{
			item("messageTraits", object{item("cloudevent", cloudEventTrait())}),
			item("messages", append(messages, requestMessages...)),
			item("schemas", requestSchemas(t, r)),
		}),
	}
	text, err := yaml.MarshalWithOptions(document, yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "asyncapi.yaml", text)
}

// describeEvents makes a channel for each subject (two types may share one), an operation and a message
// for each type. The view is that of Chandler: it sends.
func describeEvents(t *testing.T) (channels, operations, messages object) {
	t.Helper()
	byPattern := map[string][]events.Declaration{}
	var patterns []string
	for _, d := range events.Types() {
		if len(byPattern[d.Pattern]) == 0 {
			patterns = append(patterns, d.Pattern)
		}
		byPattern[d.Pattern] = append(byPattern[d.Pattern], d)
	}
	slices.Sort(patterns)
	for _, pattern := range patterns {
		channel := channelID(pattern)
		var inChannel object
		for _, d := range byPattern[pattern] {
			inChannel = append(inChannel, item(short(d), ref("#/components/messages/"+short(d))))
			operations = append(operations, item("send."+short(d), object{
				item("action", "send"), item("channel", ref("#/channels/"+channel)), item("summary", d.Summary),
				item("messages", []object{ref("#/channels/" + channel + "/messages/" + short(d))}),
			}))
			messages = append(messages, item(short(d), describeMessage(t, d)))
		}
		channels = append(channels, item(channel, describeChannel(pattern, storedIn(byPattern[pattern][0]), inChannel)))
	}
	return channels, operations, messages
}

func channelID(pattern string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(pattern, events.Prefix), ".<")
	return id
}

func storedIn(d events.Declaration) string {
	switch d.Stream {
	case "":
		return "core NATS, not stored"
	case events.StreamStatus:
		return "stored in STATUS, with the agent's partition as a further token of the subject"
	}
	return "stored in " + d.Stream
}

func describeChannel(pattern, description string, messages object) object {
	c := object{item("address", strings.NewReplacer("<", "{", ">", "}").Replace(pattern)), item("description", description)}
	var described object
	for token := range strings.SplitSeq(pattern, ".") {
		if parameter, variable := strings.CutPrefix(token, "<"); variable {
			parameter = strings.TrimSuffix(parameter, ">")
			described = append(described, item(parameter, object{item("description", parameters[parameter])}))
		}
	}
	if described != nil {
		c = append(c, item("parameters", described))
	}
	return append(c, item("messages", messages))
}

// parameters explains the variable tokens of subjects.
var parameters = map[string]string{
	"agent":      "id of the agent",
	"account":    "name of the account",
	"caller":     "who asks: an agent's id or the name of a user, pinned by the broker",
	"key":        "the public key of the user who asks, pinned by the broker",
	"collection": "name of the collection",
	"deployment": "name of the deployment",
	"freeze":     "id of the freeze",
	"signal":     "key of the type and the subject of what was signalled (SignalKey)",
	"package":    "name of the package, dots and plus signs as underscores",
	"fleet":      "name of the fleet",
	"service":    "name of the service that the event is about",
	"token":      "name of the enrolment token",
	"user":       "name of the user",
}

func describeMessage(t *testing.T, d events.Declaration) object {
	t.Helper()
	return object{
		item("name", d.Name), item("summary", d.Summary), item("contentType", "application/json"),
		item("traits", []object{ref("#/components/messageTraits/cloudevent")}),
		item("payload", ref("./schemas/"+short(d)+".json")),
		item("examples", []object{{item("payload", ordered(t, d.Example))}}),
	}
}

func cloudEventTrait() object {
	text := func(description string) object {
		return object{item("type", "string"), item("description", description)}
	}
	return object{item("headers", object{
		item("type", "object"),
		item("required", []string{"ce-specversion", "ce-id", "ce-source", "ce-type"}),
		item("properties", object{
			item("ce-specversion", object{item("type", "string"), item("const", "1.0")}),
			item("ce-id", text("hash of what the event states; equal events have equal ids")),
			item("ce-source", text("/agents/<id> or /services/<name>")),
			item("ce-type", text("name of the message")),
			item("ce-subject", text("whom the event is about: the variable token of the subject")),
			item("ce-time", object{item("type", "string"), item("format", "date-time"), item("description", "when it happened, by the clock of the source")}),
			item("ce-dataschema", text("urn:chandler:schema:<type>")),
			item("ce-datacontenttype", text("application/json")),
			item("ce-traceparent", text("W3C trace context, from the command to the last status")),
		}),
	})}
}

// describeCalls makes a channel, an operation with its reply, and two messages for each request.
func describeCalls() (channels, operations, messages object) {
	for _, c := range events.Calls() {
		name := c.Service + "." + c.Verb
		channel := "rpc." + name
		request, answer := name+".request", name+".answer"
		channels = append(channels, item(channel, describeChannel(c.Subject("<key>", "<caller>"), "request to "+c.Service+", least role: "+string(c.By),
			object{item(request, ref("#/components/messages/"+request))})))
		replies := "reply." + name
		channels = append(channels, item(replies, object{item("address", nil), item("description", "the caller's inbox"),
			item("messages", object{item(answer, ref("#/components/messages/"+answer))})}))
		operations = append(operations, item("answer."+name, object{
			item("action", "receive"), item("channel", ref("#/channels/"+channel)), item("summary", c.Summary),
			item("messages", []object{ref("#/channels/" + channel + "/messages/" + request)}),
			item("reply", object{
				item("address", object{item("location", "$message.header#/reply"), item("description", "the caller's inbox, below _INBOX")}),
				item("channel", ref("#/channels/"+replies)),
				item("messages", []object{ref("#/channels/" + replies + "/messages/" + answer)}),
			}),
		}))
		messages = append(messages,
			item(request, object{item("payload", ref("#/components/schemas/"+c.Req.Name()))}),
			item(answer, object{item("payload", ref("#/components/schemas/"+c.Resp.Name()))}))
	}
	return channels, operations, messages
}

func requestSchemas(t *testing.T, r *jsonschema.Reflector) object {
	t.Helper()
	types := map[string]reflect.Type{}
	for _, c := range events.Calls() {
		for _, of := range []reflect.Type{c.Req, c.Resp} {
			if other, taken := types[of.Name()]; taken && other != of {
				t.Fatalf("two types are named %s", of.Name())
			}
			types[of.Name()] = of
		}
	}
	var schemas object
	for _, name := range sortedKeys(types) {
		schemas = append(schemas, item(name, ordered(t, reflectSchema(r, types[name]))))
	}
	return schemas
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ordered is a value as it is in JSON, with the order of its keys.
func ordered(t *testing.T, v any) any {
	t.Helper()
	data := pretty(t, v)
	var out any
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.UseOrderedMap()).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAsyncAPINamesEveryEventAndRequest(t *testing.T) {
	if *update {
		t.Skip("the embedded description is the one from before the update")
	}
	var doc struct {
		Channels map[string]struct {
			Address    string
			Parameters map[string]struct{ Description string }
			Messages   map[string]any
		}
		Operations map[string]struct{ Action string }
		Components struct{ Messages map[string]any }
	}
	if err := yaml.Unmarshal(events.AsyncAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	for _, d := range events.Types() {
		if _, ok := doc.Components.Messages[short(d)]; !ok || doc.Operations["send."+short(d)].Action != "send" {
			t.Errorf("%s is not described", d.Name)
		}
	}
	for _, c := range events.Calls() {
		if doc.Operations["answer."+c.Service+"."+c.Verb].Action != "receive" {
			t.Errorf("the request %s.%s is not described", c.Service, c.Verb)
		}
	}
	for name, c := range doc.Channels {
		for token, p := range c.Parameters {
			if p.Description == "" {
				t.Errorf("channel %s: say in the table of parameters what %s is", name, token)
			}
		}
	}
}
