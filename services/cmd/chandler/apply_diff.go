package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// fieldChange is one field that differs; Before or After is empty where it is not there. A field of an entry of a list is
// named by the entry's name: phases[canary].percent.
type fieldChange struct {
	Field  string `json:"field"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// differing compares two values by the names that they have in JSON, those left out aside.
func differing(before, after any, leave ...string) ([]fieldChange, error) {
	was, err := jsonFields(before)
	if err != nil {
		return nil, err
	}
	is, err := jsonFields(after)
	if err != nil {
		return nil, err
	}
	for _, name := range leave {
		delete(was, name)
		delete(is, name)
	}
	return differingKeys("", was, is), nil
}

func jsonFields(v any) (fields map[string]any, err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	numbers := json.NewDecoder(bytes.NewReader(data))
	numbers.UseNumber()
	return fields, numbers.Decode(&fields)
}

func differingKeys(path string, was, is map[string]any) (fields []fieldChange) {
	names := maps.Clone(was)
	maps.Copy(names, is)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fields = append(fields, differingValues(strings.TrimPrefix(path+"."+keyText(name), "."), was[name], is[name])...)
	}
	return fields
}

// differingValues goes into what both have, down to what differs.
func differingValues(path string, was, is any) []fieldChange {
	if reflect.DeepEqual(was, is) {
		return nil
	}
	before, wasKeys := was.(map[string]any)
	after, isKeys := is.(map[string]any)
	if wasKeys && isKeys {
		return differingKeys(path, before, after)
	}
	if fields := differingEntries(path, was, is); len(fields) > 0 {
		return fields
	}
	return []fieldChange{{path, valueText(was), valueText(is)}}
}

// differingEntries compares two lists: each entry that has a name with the one of that name; of other lists it tells which
// entries are in one of them alone. None of what is no list.
func differingEntries(path string, was, is any) (fields []fieldChange) {
	before, beforeNames := entriesOf(was)
	after, afterNames := entriesOf(is)
	if len(before) == 0 || len(after) == 0 {
		return differingOnce(path, was, is)
	}
	for _, name := range beforeNames {
		fields = append(fields, differingValues(path+"["+name+"]", before[name], after[name])...)
	}
	kept := func(in map[string]any) func(string) bool {
		return func(name string) bool { return in[name] == nil }
	}
	first, second := slices.DeleteFunc(slices.Clone(beforeNames), kept(after)), slices.DeleteFunc(slices.Clone(afterNames), kept(before))
	if !slices.Equal(first, second) {
		fields = append(fields, fieldChange{path, strings.Join(first, ", "), strings.Join(second, ", ")})
	}
	for _, name := range afterNames {
		if before[name] == nil {
			fields = append(fields, differingValues(path+"["+name+"]", nil, after[name])...)
		}
	}
	return fields
}

func differingOnce(path string, was, is any) (fields []fieldChange) {
	before, _ := was.([]any)
	after, _ := is.([]any)
	left := slices.Clone(after)
	for _, v := range before {
		if i := slices.IndexFunc(left, func(o any) bool { return reflect.DeepEqual(v, o) }); i >= 0 {
			left = slices.Delete(left, i, i+1)
			continue
		}
		fields = append(fields, fieldChange{path, valueText(v), ""})
	}
	for _, v := range left {
		fields = append(fields, fieldChange{path, "", valueText(v)})
	}
	return fields
}

// nameKeys are the keys that name an entry of a list.
var nameKeys = []string{"name", "collection"}

// entriesOf are the entries of a list by their names, and the names in its order; none where not every entry has one of its own.
func entriesOf(list any) (entries map[string]any, names []string) {
	values, _ := list.([]any)
	entries = map[string]any{}
	for _, v := range values {
		keys, _ := v.(map[string]any)
		name, _ := keys[nameKey(keys)].(string)
		if name == "" || entries[name] != nil {
			return nil, nil
		}
		entries[name] = v
		names = append(names, name)
	}
	return entries, names
}

func nameKey(entry map[string]any) string {
	for _, key := range nameKeys {
		if _, has := entry[key]; has {
			return key
		}
	}
	return ""
}

func keyText(name string) string { return strings.ReplaceAll(name, "_", "-") }

// valueText shows a value in a line as documents have it: a text without quotes, and what is empty as nothing.
func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		if v == "0" {
			return ""
		}
	case []any:
		if len(v) == 0 {
			return ""
		}
	}
	return inner(v)
}

// inner shows a value within another one.
func inner(v any) string {
	switch v := v.(type) {
	case string:
		if plainWord.MatchString(v) && !strings.ContainsAny(v, ",:") {
			return v
		}
		return strconv.Quote(v)
	case []any:
		parts := make([]string, len(v))
		for i, entry := range v {
			parts[i] = inner(entry)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		if name := nameKey(v); name != "" { // first
			keys = slices.Insert(slices.DeleteFunc(keys, func(k string) bool { return k == name }), 0, name)
		}
		parts := make([]string, len(keys))
		for i, k := range keys {
			parts[i] = keyText(k) + ": " + inner(v[k])
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v)
}
