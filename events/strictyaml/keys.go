package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// spot is a key of a document: what stands there, and what could.
type spot struct {
	key    string
	known  []string     // keys of the mapping around it; nil where names are free
	wanted reflect.Type // of its value; nil where the key is not known
}

// plainly says an error of the YAML library about a key or its value without words of Go; "" where it has none.
func (d *Document) plainly(err error, t reflect.Type, at *token.Position) string {
	s, ok := findSpot(d.body, t, at)
	if !ok {
		return ""
	}
	if _, unknown := errors.AsType[*yaml.UnknownFieldError](err); unknown {
		text := fmt.Sprintf("unknown key %q", s.key)
		if near := nearest(s.key, s.known); near != "" {
			text += fmt.Sprintf(": did you mean %s?", near)
		}
		return text
	}
	_, mismatch := errors.AsType[*yaml.TypeError](err)
	_, unexpected := errors.AsType[*yaml.UnexpectedNodeTypeError](err)
	if form := formOf(s.wanted); form != "" && (mismatch || unexpected) {
		return fmt.Sprintf("%s: write %s", s.key, form)
	}
	return ""
}

// formOf is how values of a type are written; "" for those that say it themselves.
func formOf(t reflect.Type) string {
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil || readsItself(t):
		return ""
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return "a list of texts, such as [a, b]"
	case t.Kind() == reflect.Slice:
		return "a list, each entry in braces or behind a dash"
	case t.Kind() == reflect.Map, t.Kind() == reflect.Struct:
		return "keys with their values below it, or {key: value}"
	}
	return ""
}

// readsItself says whether values of a type are read by its own method, which says what is wrong with them.
func readsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) || p.Implements(reflect.TypeFor[yaml.InterfaceUnmarshaler]())
}

// culprit is the first scalar whose own type refuses it: of that the library tells no position.
func culprit(n ast.Node, t reflect.Type) (ast.Node, error) {
	if t == nil || n == nil {
		return nil, nil
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if scalar, ok := n.(ast.ScalarNode); ok {
		if v, ok := reflect.New(t).Interface().(encoding.TextUnmarshaler); ok {
			return n, v.UnmarshalText([]byte(scalarText(scalar)))
		}
		return nil, nil
	}
	if list, ok := n.(*ast.SequenceNode); ok && t.Kind() == reflect.Slice {
		for _, entry := range list.Values {
			if at, err := culprit(entry, t.Elem()); err != nil {
				return at, err
			}
		}
	}
	m, ok := n.(ast.MapNode)
	if !ok || t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
		return nil, nil
	}
	for entry := m.MapRange(); entry.Next(); {
		var inner reflect.Type
		if t.Kind() == reflect.Map {
			inner = t.Elem()
		} else {
			_, inner = keysOf(t, scalarText(entry.Key()))
		}
		if at, err := culprit(entry.Value(), inner); err != nil {
			return at, err
		}
	}
	return nil, nil
}

// findSpot finds the key at a position, or whose value stands there, in a node that is read into t.
func findSpot(n ast.Node, t reflect.Type, at *token.Position) (spot, bool) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if list, ok := n.(*ast.SequenceNode); ok && t.Kind() == reflect.Slice {
		for _, entry := range list.Values {
			if s, ok := findSpot(entry, t.Elem(), at); ok {
				return s, true
			}
		}
	}
	m, ok := n.(ast.MapNode)
	if !ok || t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
		return spot{}, false
	}
	for entry := m.MapRange(); entry.Next(); {
		s := spot{key: scalarText(entry.Key())}
		if t.Kind() == reflect.Map {
			s.wanted = t.Elem()
		} else {
			s.known, s.wanted = keysOf(t, s.key)
		}
		if within(entry.Key(), at) || within(entry.Value(), at) {
			return s, true
		}
		if s.wanted != nil {
			if inner, ok := findSpot(entry.Value(), s.wanted, at); ok {
				return inner, true
			}
			if list, ok := entry.Value().(*ast.SequenceNode); ok && slices.ContainsFunc(list.Values, func(v ast.Node) bool { return within(v, at) }) {
				return s, true
			}
		}
	}
	return spot{}, false
}

// within says whether a node begins at a position.
func within(n ast.Node, at *token.Position) bool {
	if n == nil || n.GetToken() == nil {
		return false
	}
	p := n.GetToken().Position
	return p.Line == at.Line && p.Column == at.Column
}

// keysOf are the keys that a struct is read from, and the type of the value of one of them.
func keysOf(t reflect.Type, key string) (known []string, value reflect.Type) {
	for i := range t.NumField() {
		name, option, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if option == "inline" {
			more, found := keysOf(t.Field(i).Type, key)
			known = append(known, more...)
			if found != nil {
				value = found
			}
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		known = append(known, name)
		if name == key {
			value = t.Field(i).Type
		}
	}
	return known, value
}

// nearest is the known key that an unknown one was hardly anything else than, or "": it differs in two
// characters or a third of them at most, or is a whole word of one known key alone.
func nearest(unknown string, known []string) string {
	if len(unknown) > 64 {
		return ""
	}
	best, least := "", len(unknown)/3+1
	if len(unknown) > 3 {
		least = max(least, 3) // two letters in each other's place
	}
	var parts []string
	for _, k := range known {
		if n := distance(strings.ToLower(strings.ReplaceAll(unknown, "_", "-")), k); n < least {
			best, least = k, n
		}
		if slices.Contains(strings.Split(k, "-"), strings.ToLower(unknown)) {
			parts = append(parts, k)
		}
	}
	if best == "" && len(parts) == 1 {
		return parts[0]
	}
	return best
}

// distance is how many bytes must be changed, added or taken away to make one text the other.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
