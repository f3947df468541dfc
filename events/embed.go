package events

import (
	"embed"
	"strings"
)

//go:embed schemas/*.json
var schemaFiles embed.FS

//go:embed asyncapi.yaml
var asyncAPI []byte

// Schema is the JSON Schema (draft 2020-12) of an event type's data, by the type's full name; ok is false
// when there is none. It is derived from the declaration by `go test ./events -update`.
func Schema(name string) (schema []byte, ok bool) {
	schema, err := schemaFiles.ReadFile("schemas/" + strings.TrimPrefix(name, TypePrefix) + ".json")
	return schema, err == nil
}

// AsyncAPI is the AsyncAPI 3.0 description (YAML) of every event type, derived like the schemas.
func AsyncAPI() []byte { return append([]byte(nil), asyncAPI...) }
