package strictyaml

import (
	"fmt"
	"strconv"

	"github.com/goccy/go-yaml/ast"
)

// lint finds what YAML reads otherwise than it looks.
type lint struct {
	doc      *Document
	rule     Rule
	problems []error
}

func (l *lint) add(n ast.Node, format string, args ...any) {
	l.problems = append(l.problems, l.doc.at(n, fmt.Sprintf(format, args...)))
}

// Visit looks at one node; the values of some keys are looked at with their key.
func (l *lint) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.MappingValueNode:
		key, text := n.Key.String(), scalarText(n.Value)
		if key == "version" && number(n.Value) {
			l.add(n.Value, "version: %s is a number to YAML, which may change it: write  version: %q", text, text)
			return nil
		}
		if l.rule == nil {
			return l
		}
		problem, done := l.rule(key, Value{Text: text, Number: number(n.Value), Empty: empty(n.Value)})
		if problem != "" {
			l.add(n.Value, "%s", problem)
		}
		if done {
			return nil
		}
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		l.add(n, "anchors, aliases and tags are not allowed here: write the value out")
		return nil
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		l.add(n, "%s is a number to YAML, which may change it: write %q", scalarText(n), scalarText(n))
	case *ast.IntegerNode:
		text := scalarText(n)
		if v, err := strconv.ParseInt(text, 10, 64); err != nil || strconv.FormatInt(v, 10) != text {
			l.add(n, "%s is a number to YAML, which may change it: write %q", text, text)
		}
	case *ast.BoolNode:
		if text := scalarText(n); text != "true" && text != "false" {
			l.add(n, "%s: write true or false, or %q where text is meant", text, text)
		}
	case *ast.SequenceNode:
		for _, v := range n.Values {
			if v == nil || v.Type() == ast.NullType {
				l.add(n, "the list has an empty entry")
			}
		}
	}
	return l
}

// empty says whether a value is nothing, or a text of nothing.
func empty(n ast.Node) bool {
	text, quoted := n.(*ast.StringNode)
	return n == nil || n.Type() == ast.NullType || quoted && text.Value == ""
}

func number(n ast.Node) bool {
	switch n.(type) {
	case *ast.FloatNode, *ast.IntegerNode, *ast.InfinityNode, *ast.NanNode, *ast.BoolNode:
		return true
	}
	return false
}

// scalarText is a scalar as it is written, without quotes.
func scalarText(n ast.Node) string {
	if n == nil || n.GetToken() == nil {
		return ""
	}
	return n.GetToken().Value
}
