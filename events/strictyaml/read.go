// Package strictyaml reads YAML that people write, and refuses whatever YAML would silently change: unknown and doubled
// keys, numbers where text is meant (a version 2.10), anchors, an empty entry of a list.
//
// It is pure: bytes in, values out. Every error names file, line and column, and quotes the line. Input is bounded before
// it is parsed, since reading takes time that grows with the square of its lists' depth.
package strictyaml

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds of one file.
const (
	maxBytes    = 1 << 20
	maxBrackets = 4 << 10
	maxDashes   = 20_000
)

// ErrTooDeep is what Parse says of more lists than it reads.
var ErrTooDeep = errors.New("has too many lists")

// Value is what a [Rule] sees of the value of a key.
type Value struct {
	Text   string // as it is written, without quotes
	Number bool   // YAML reads a number or a truth value
	Empty  bool   // nothing, or a text of nothing
}

// Rule looks at a key and its value: problem says what is wrong, "" nothing. done: the value is not looked at further.
type Rule func(key string, v Value) (problem string, done bool)

// Document is one YAML document with what is needed to point into it.
type Document struct {
	name  string
	lines []string
	body  ast.Node
}

// Parse reads the documents of a file. One that is empty is an error where others follow, for the library would leave them
// out. name is how errors call the file.
func Parse(name string, data []byte, rule Rule) ([]*Document, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxBytes)
	}
	text := string(data)
	if strings.Count(text, "[")+strings.Count(text, "{") > maxBrackets || strings.Count(text, "- ") > maxDashes {
		return nil, fmt.Errorf("%s %w", name, ErrTooDeep)
	}
	frame := Document{name: name, lines: strings.Split(text, "\n")}
	if err := frame.noneEmpty(); err != nil {
		return nil, err
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, frame.explain(err, nil)
	}
	var docs []*Document
	for _, d := range file.Docs {
		if d.Body == nil || d.Body.Type() == ast.NullType {
			continue
		}
		doc := frame
		doc.body = d.Body
		l := lint{doc: &doc, rule: rule}
		ast.Walk(&l, doc.body)
		if len(l.problems) > 0 {
			return nil, errors.Join(l.problems...)
		}
		docs = append(docs, &doc)
	}
	return docs, nil
}

// noneEmpty refuses two separators with nothing between them.
func (d *Document) noneEmpty() error {
	empty := false
	for i, line := range d.lines {
		line = strings.TrimRight(line, " \t\r")
		switch {
		case line == "---" && empty:
			return d.quote(i+1, 1, "the document before this is empty: remove one of the lines ---")
		case line == "---":
			empty = true
		case line != "" && !strings.HasPrefix(strings.TrimLeft(line, " \t"), "#"):
			empty = false
		}
	}
	return nil
}

// Keys are those at the top, in their order; nil where the document is no mapping.
func (d *Document) Keys() (keys []string) {
	m, ok := d.body.(ast.MapNode)
	if !ok {
		return nil
	}
	for entry := m.MapRange(); entry.Next(); {
		keys = append(keys, scalarText(entry.Key()))
	}
	return keys
}

// Text is what stands under a key at the top as it is written; "" where there is none.
func (d *Document) Text(key string) string {
	_, value := child(d.body, key)
	return scalarText(value)
}

// Into reads the document strictly into what v points to.
func (d *Document) Into(v any) error {
	if err := yaml.NodeToValue(d.body, v, yaml.Strict()); err != nil {
		return d.explain(err, reflect.TypeOf(v).Elem())
	}
	return nil
}

// At is an error about the place where points to ("$.phases[1].name"), or the innermost one around it that is there.
func (d *Document) At(where, text string) error { return d.at(d.find(where), text) }

// Place is where At points to, as file, line and column, for what must not be quoted.
func (d *Document) Place(where string) string {
	n := d.find(where)
	if n == nil || n.GetToken() == nil {
		return d.name
	}
	p := n.GetToken().Position
	return fmt.Sprintf("%s:%d:%d", d.name, p.Line, p.Column)
}

func (d *Document) at(n ast.Node, text string) error {
	if n == nil || n.GetToken() == nil {
		return fmt.Errorf("%s: %s", d.name, text)
	}
	p := n.GetToken().Position
	return d.quote(p.Line, p.Column, text)
}

func (d *Document) quote(line, column int, text string) error {
	if line < 1 || line > len(d.lines) {
		return fmt.Errorf("%s: %s", d.name, text)
	}
	return fmt.Errorf("%s:%d:%d: %s\n    %d | %s", d.name, line, column, text, line, strings.TrimRight(d.lines[line-1], "\r"))
}

// explain says an error of the YAML library our way.
func (d *Document) explain(err error, t reflect.Type) error {
	if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
		text := ""
		if t != nil {
			text = d.plainly(err, t, e.GetToken().Position)
		}
		if text == "" {
			text = strings.Replace(e.GetMessage(), "unknown field", "unknown key", 1)
		}
		return d.quote(e.GetToken().Position.Line, e.GetToken().Position.Column, text)
	}
	if n, problem := culprit(d.body, t); problem != nil {
		return d.at(n, problem.Error())
	}
	return fmt.Errorf("%s: %w", d.name, err)
}

// find is the node at a path, or the innermost one around it; of a mapping it is the key that it stands under.
func (d *Document) find(where string) ast.Node {
	best := d.body
	if m, ok := d.body.(ast.MapNode); ok {
		if entry := m.MapRange(); entry.Next() {
			best = entry.Key()
		}
	}
	n := d.body
	for part := range strings.SplitSeq(strings.NewReplacer("[", ".[", "'", "").Replace(strings.TrimPrefix(where, "$")), ".") {
		if part == "" {
			continue
		}
		key, value := child(n, part)
		if value == nil {
			break
		}
		n, best = value, value
		if _, ok := value.(ast.MapNode); ok && key != nil {
			best = key
		}
	}
	return best
}

// child is the entry of a mapping or, for a part like "[2]", of a sequence.
func child(n ast.Node, part string) (key, value ast.Node) {
	switch n := n.(type) {
	case ast.MapNode:
		for entry := n.MapRange(); entry.Next(); {
			if scalarText(entry.Key()) == part {
				return entry.Key(), entry.Value()
			}
		}
	case *ast.SequenceNode:
		if i, err := strconv.Atoi(strings.Trim(part, "[]")); err == nil && i >= 0 && i < len(n.Values) {
			return nil, n.Values[i]
		}
	}
	return nil, nil
}
