package daemon

import (
	"encoding"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxConfig is the largest configuration file read, in bytes.
const maxConfig = 1 << 20

// EnvironmentPrefix begins the names of environment variables that override a configuration file.
const EnvironmentPrefix = "CHANDLER_"

// Sources says where a configuration comes from; the later overrides the earlier.
type Sources struct {
	File string // path; empty: no file
	// Environment holds NAME=value pairs, as os.Environ gives them. The key "http.listen" is overridden by
	// CHANDLER_HTTP_LISTEN. Variables that name no key are not looked at: not all are configuration.
	Environment []string
	// Flags overrides single keys ("http.listen"), by the flags that were given.
	Flags map[string]string
}

// ReadConfig fills into (a pointer to a struct with yaml tags, holding the defaults) from the sources. An
// unknown key, a key given twice or a value of the wrong kind is an error that quotes the line.
func ReadConfig(into any, from Sources) error {
	if from.File != "" {
		if err := readFile(from.File, into); err != nil {
			return fmt.Errorf("read configuration %s: %w", from.File, err)
		}
	}
	fields := keys(reflect.ValueOf(into).Elem(), "")
	for _, pair := range from.Environment {
		name, value, _ := strings.Cut(pair, "=")
		for key, field := range fields {
			if name == variable(key) {
				if err := set(field, value); err != nil {
					return fmt.Errorf("environment variable %s: %w", name, err)
				}
			}
		}
	}
	for key, value := range from.Flags {
		field, ok := fields[key]
		if !ok {
			return fmt.Errorf("there is no configuration key %q", key)
		}
		if err := set(field, value); err != nil {
			return fmt.Errorf("flag for %s: %w", key, err)
		}
	}
	return nil
}

func readFile(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return err
	}
	if len(data) > maxConfig {
		return fmt.Errorf("the file is larger than %d bytes", maxConfig)
	}
	return ParseConfig(data, into)
}

// ParseConfig reads one YAML document strictly into a pointer to a struct; an empty one changes nothing.
func ParseConfig(data []byte, into any) error {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return err
	}
	if len(file.Docs) > 1 {
		return fmt.Errorf("one YAML document is expected, not %d", len(file.Docs))
	}
	// A document of nothing but comments would otherwise be read as null, which zeroes the defaults.
	if len(file.Docs) == 0 || file.Docs[0].Body == nil || file.Docs[0].Body.Type() == ast.CommentType {
		return nil
	}
	return yaml.UnmarshalWithOptions(data, into, yaml.Strict())
}

// variable is the environment variable of a key.
func variable(key string) string {
	return EnvironmentPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// keys lists the settable fields below v by their dotted yaml keys.
func keys(v reflect.Value, prefix string) map[string]reflect.Value {
	found := map[string]reflect.Value{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || key == "-" {
			continue
		}
		if key == "" {
			key = strings.ToLower(f.Name)
		}
		path := prefix + key
		if strings.Contains(options, "inline") {
			path = strings.TrimSuffix(prefix, ".")
		}
		if f.Type.Kind() == reflect.Struct && !isText(v.Field(i)) {
			nested := path + "."
			if path == "" {
				nested = ""
			}
			for k, field := range keys(v.Field(i), nested) {
				found[k] = field
			}
			continue
		}
		found[path] = v.Field(i)
	}
	return found
}

func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

// set parses a value as its field demands. Text is taken as it is (2.10 stays 2.10), a list of strings is
// separated by commas, the rest is YAML.
func set(field reflect.Value, value string) error {
	if text, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return text.UnmarshalText([]byte(value))
	}
	switch {
	case field.Kind() == reflect.String:
		field.SetString(value)
		return nil
	case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.String:
		list := reflect.MakeSlice(field.Type(), 0, 1)
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = reflect.Append(list, reflect.ValueOf(part).Convert(field.Type().Elem()))
			}
		}
		field.Set(list)
		return nil
	}
	return ParseConfig([]byte(value), field.Addr().Interface())
}
