package bus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"chandler/events"
)

// entry is a declared event type with its schema.
type entry struct {
	events.Declaration
	// schema compiles it at the first use: an agent meets a dozen of the types, and a compiled schema takes more memory than
	// most of what it keeps.
	schema func() (*jsonschema.Schema, error)
	agent  []int  // field of the data that names the agent the event is about; nil: none
	id     string // of the schema
}

// known is the catalogue. Its schemas are constants of the program.
var known = sync.OnceValues(readCatalogue)

func readCatalogue() (map[string]entry, error) {
	catalogue := map[string]entry{}
	for _, d := range events.Types() {
		text, ok := events.Schema(d.Name)
		if !ok {
			return nil, fmt.Errorf("event type %s has no schema: run go test ./events -update", d.Name)
		}
		catalogue[d.Name] = entry{d, sync.OnceValues(func() (*jsonschema.Schema, error) { return compileSchema(d, text) }), agentField(d), d.SchemaID()}
	}
	return catalogue, nil
}

func compileSchema(d events.Declaration, text []byte) (*jsonschema.Schema, error) {
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read schema of %s: %w", d.Name, err)
	}
	if err := compiler.AddResource(d.SchemaID(), doc); err != nil {
		return nil, fmt.Errorf("add schema of %s: %w", d.Name, err)
	}
	schema, err := compiler.Compile(d.SchemaID())
	if err != nil {
		return nil, fmt.Errorf("compile schema of %s: %w", d.Name, err)
	}
	return schema, nil
}

// agentField finds the field "agent" or "facts.id" in the data of an event about an agent.
func agentField(d events.Declaration) []int {
	if !aboutAgent(d) {
		return nil
	}
	if f, ok := d.Data.FieldByName("Agent"); ok && f.Type.Kind() == reflect.String {
		return f.Index
	}
	if f, ok := d.Data.FieldByName("Facts"); ok && f.Type == reflect.TypeFor[events.Facts]() {
		id, _ := f.Type.FieldByName("ID")
		return append(slices.Clone(f.Index), id.Index...)
	}
	return nil
}

func declared(name string) (entry, bool) {
	catalogue, err := known()
	if err != nil {
		return entry{}, false
	}
	e, ok := catalogue[name]
	return e, ok
}

// parseJSON reads exactly one JSON value, numbers as json.Number so that none loses digits.
func parseJSON(data []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return value, nil
}
