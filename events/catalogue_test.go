package events_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"chandler/events"
)

var update = flag.Bool("update", false, "derive schemas, examples and asyncapi.yaml from the declarations")

// short is a type's name in file names and in asyncapi.yaml.
func short(d events.Declaration) string { return strings.TrimPrefix(d.Name, events.TypePrefix) }

func newReflector(t *testing.T) *jsonschema.Reflector {
	t.Helper()
	// Unknown fields pass (a newer sender), and so do unknown values of enumerations, which are strings.
	r := &jsonschema.Reflector{Anonymous: true, DoNotReference: true, AllowAdditionalProperties: true, Mapper: asWritten}
	if err := r.AddGoComments("chandler/events", ".", jsonschema.WithFullComment()); err != nil {
		t.Fatal(err)
	}
	return r
}

// asWritten is the schema of types that are not written as their fields say.
func asWritten(of reflect.Type) *jsonschema.Schema {
	switch of {
	case reflect.TypeFor[time.Time]():
		return nil // known
	case reflect.TypeFor[events.Duration]():
		return &jsonschema.Schema{Type: "string", Description: "a time span: 90s, 20m, 24h"}
	case reflect.TypeFor[events.Command]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "array", Items: &jsonschema.Schema{Type: "string"}}}}
	}
	if of.Kind() != reflect.Pointer && of.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return &jsonschema.Schema{Type: "string"}
	}
	return nil
}

// reflectSchema derives the schema of a Go type.
func reflectSchema(r *jsonschema.Reflector, of reflect.Type) *jsonschema.Schema {
	s := r.ReflectFromType(of)
	s.Version = ""
	allowNull(s)
	return s
}

// allowNull lets lists, maps and bytes be null: Go writes what is not set so, and readers of other
// languages must not refuse it.
func allowNull(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	isMap := s.Type == "object" && s.AdditionalProperties != nil && s.Properties.Len() == 0
	if s.Type == "array" || isMap || s.ContentEncoding != "" {
		s.Extras = map[string]any{"type": []string{s.Type, "null"}}
		s.Type = ""
	}
	allowNull(s.Items)
	allowNull(s.AdditionalProperties)
	if s.Properties != nil {
		for p := s.Properties.Oldest(); p != nil; p = p.Next() {
			allowNull(p.Value)
		}
	}
}

func schemaOf(t *testing.T, r *jsonschema.Reflector, d events.Declaration) []byte {
	t.Helper()
	s := reflectSchema(r, d.Data)
	s.Version = jsonschema.Version
	s.ID = jsonschema.ID(d.SchemaID())
	s.Title = d.Name
	s.Description = d.Summary
	return pretty(t, s)
}

func pretty(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// golden compares a derived file with the one that is kept, or writes it.
func golden(t *testing.T, path string, derived []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, derived, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run go test ./events -update", err)
	}
	if diff := cmp.Diff(string(kept), string(derived)); diff != "" {
		t.Errorf("%s is not what the declarations say (kept -, derived +): run go test ./events -update\n%s", path, diff)
	}
}

func TestSchemasAndExamplesAreWhatTheDeclarationsSay(t *testing.T) {
	r := newReflector(t)
	var names []string
	for _, d := range events.Types() {
		t.Run(short(d), func(t *testing.T) {
			derived := schemaOf(t, r, d)
			path := filepath.Join("schemas", short(d)+".json")
			if kept, err := os.ReadFile(path); err == nil {
				if added := newlyRequired(t, kept, derived); len(added) > 0 {
					t.Fatalf("%s: fields %v are new and required, so that events of older senders would be refused: give them omitempty (or, if no version with this type was ever released, remove %s and update)", d.Name, added, path)
				}
			}
			golden(t, path, derived)
			golden(t, filepath.Join("testdata", "examples", short(d)+".json"), pretty(t, d.Example))
		})
		names = append(names, short(d)+".json")
	}
	for _, dir := range []string{"schemas", filepath.Join("testdata", "examples")} {
		removeOrReportStrays(t, dir, names)
	}
}

func removeOrReportStrays(t *testing.T, dir string, want []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if slices.Contains(want, f.Name()) {
			continue
		}
		if *update {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Errorf("%s/%s belongs to no declared event type", dir, f.Name())
	}
}

// newlyRequired lists the fields of the whole schema that are required in derived and not in kept.
func newlyRequired(t *testing.T, kept, derived []byte) []string {
	t.Helper()
	var before, after map[string]any
	if err := json.Unmarshal(kept, &before); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(derived, &after); err != nil {
		t.Fatal(err)
	}
	return added(before, after, "")
}

// added walks both schemas at once: what is below a field that is new itself was never sent without.
func added(before, after map[string]any, path string) (fields []string) {
	old, _ := before["required"].([]any)
	required, _ := after["required"].([]any)
	for _, name := range required {
		if !slices.Contains(old, name) {
			fields = append(fields, path+"/"+fmt.Sprint(name))
		}
	}
	properties, _ := after["properties"].(map[string]any)
	known, _ := before["properties"].(map[string]any)
	for name, p := range properties {
		now, ok := p.(map[string]any)
		if then, kept := known[name].(map[string]any); ok && kept {
			fields = append(fields, added(then, now, path+"/"+name)...)
		}
	}
	now, ok := after["items"].(map[string]any)
	if then, kept := before["items"].(map[string]any); ok && kept {
		fields = append(fields, added(then, now, path+"[]")...)
	}
	return fields
}

func TestAFieldThatIsNewAndRequiredIsNoticed(t *testing.T) {
	kept := []byte(`{"required":["a"],"properties":{"a":{"type":"array","items":{"properties":{"b":{}}}}}}`)
	derived := []byte(`{"required":["a"],"properties":{"a":{"type":"array","items":{"required":["b"],"properties":{"b":{}}}}}}`)
	if diff := cmp.Diff([]string{"/a[]/b"}, newlyRequired(t, kept, derived)); diff != "" {
		t.Error(diff)
	}
	if added := newlyRequired(t, derived, kept); len(added) != 0 {
		t.Errorf("a field that is required no longer was reported: %v", added)
	}
	without := []byte(`{"properties":{}}`)
	if diff := cmp.Diff([]string{"/a"}, newlyRequired(t, without, derived)); diff != "" {
		t.Error(diff)
	}
}

// compile reads the embedded schema of a type as readers do.
func compile(t *testing.T, d events.Declaration) *validator.Schema {
	t.Helper()
	text, ok := events.Schema(d.Name)
	if !ok {
		t.Fatalf("%s has no embedded schema", d.Name)
	}
	doc, err := validator.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(d.SchemaID(), doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(d.SchemaID())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(s *validator.Schema, data []byte) error {
	value, err := validator.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return s.Validate(value)
}

func TestEverySchemaTakesWhatItShould(t *testing.T) {
	if *update {
		t.Skip("the embedded schemas are those from before the update")
	}
	for _, d := range events.Types() {
		t.Run(short(d), func(t *testing.T) {
			s := compile(t, d)
			example, err := json.Marshal(d.Example)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(s, example); err != nil {
				t.Errorf("the example is refused: %v", err)
			}
			zero, err := json.Marshal(reflect.Zero(d.Data).Interface())
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(s, zero); err != nil {
				t.Errorf("what Go writes for a value with nothing set is refused: %v", err)
			}
			newer := append(bytes.TrimSuffix(example, []byte("}")), []byte(`,"added_later":{"x":[1]}}`)...)
			if err := validate(s, newer); err != nil {
				t.Errorf("a field that was added later is refused: %v", err)
			}
			for _, bad := range []string{`[]`, `"text"`, `null`, `{}`} {
				if validate(s, []byte(bad)) == nil {
					t.Errorf("%s is taken", bad)
				}
			}
		})
	}
}

func TestStatesAndReasonsThatAreNotKnownYetPassTheSchema(t *testing.T) {
	if *update {
		t.Skip("the embedded schemas are those from before the update")
	}
	status := events.JobFailed.Example.(events.JobStatus)
	status.State, status.Reason, status.WaitingFor = "hibernating", "moon_phase", "sunrise"
	data, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(compile(t, events.JobFailed.Declaration), data); err != nil {
		t.Error(err)
	}
	wrong := bytes.Replace(data, []byte(`"2026-12-01T08:00:00Z"`), []byte(`"yesterday"`), 1)
	if bytes.Equal(wrong, data) {
		t.Fatal("the example has no time to break")
	}
	if validate(compile(t, events.JobFailed.Declaration), wrong) == nil {
		t.Error("a time that is none is taken")
	}
}
