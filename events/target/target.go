// Package target decides which machines are meant: CEL expressions over an agent's facts, plus agents
// included by id, minus agents excluded by id. Services use it to find members, agents to check that
// they are meant, so both sides decide by the same code.
//
// It is pure: no I/O, no clock. An expression that cannot be evaluated on some facts is an error, never
// "false": callers treat such an agent as not meant and say so.
package target

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"chandler/events"
)

// MaxExpression is the longest expression accepted, in bytes.
const MaxExpression = 8 << 10

// costLimit bounds one evaluation; an expression of a few hundred comparisons costs far less.
const costLimit = 100_000

// Expression is a compiled expression. It is safe for concurrent use.
type Expression struct {
	source  string
	program cel.Program
	clauses []clause // top-level && operands, for explanations
}

type clause struct {
	source  string
	program cel.Program
}

// environment is built once: it is costly and never changes.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		ext.NativeTypes(reflect.TypeFor[events.Facts](), ext.ParseStructTag("json")),
		ext.Strings(),
		cel.Variable("agent", cel.ObjectType(factsTypeName)),
		quickFacts,
	)
})

// Compile checks an expression. Errors carry the position as line:column and show the place.
func Compile(source string) (*Expression, error) {
	if len(source) > MaxExpression {
		return nil, fmt.Errorf("expression of %d bytes is longer than %d", len(source), MaxExpression)
	}
	if strings.TrimSpace(source) == "" {
		return nil, errors.New("expression is empty")
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("make CEL environment: %w", err)
	}
	checked, issues := env.Compile(source)
	if issues.Err() != nil {
		return nil, compileError(issues)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("expression gives %s, not true or false: %s", checked.OutputType(), source)
	}
	program, err := programOf(env, checked)
	if err != nil {
		return nil, fmt.Errorf("prepare expression: %w", err)
	}
	return &Expression{source: source, program: program, clauses: split(env, checked)}, nil
}

// compileError tells each mistake once, with its place, and what was probably meant.
func compileError(issues *cel.Issues) error {
	said := strings.ReplaceAll(issues.String(), "ERROR: <input>:", "")
	return fmt.Errorf("expression does not compile: %s%s", strings.TrimRight(said, "\n"), compileHint(said))
}

// compileHint knows the commonest mistakes: a fact that there is not, one without "agent.", and "=" for "==".
func compileHint(said string) string {
	switch {
	case strings.Contains(said, "undefined field"):
		return "\nthe facts are " + strings.Join(factNames(), ", ")
	case strings.Contains(said, "undeclared reference"):
		return "\nfacts are written agent.os, texts in quotes: agent.os == \"linux\""
	case strings.Contains(said, "token recognition error at: '='") || strings.Contains(said, "token recognition error at: '= "):
		return "\nequality is written with two signs: =="
	}
	return ""
}

// factNames lists the names of all facts, sorted.
func factNames() []string {
	var names []string
	for i := range factsType.NumField() {
		names = append(names, factName(i))
	}
	slices.Sort(names)
	return names
}

var factsType = reflect.TypeFor[events.Facts]()

// factName is the name by which expressions see a field of the facts.
func factName(field int) string {
	name, _, _ := strings.Cut(factsType.Field(field).Tag.Get("json"), ",")
	return name
}

// String is the source text.
func (e *Expression) String() string { return e.source }

// Eval says whether the facts satisfy the expression.
func (e *Expression) Eval(facts events.Facts) (bool, error) { return eval(e.program, e.source, facts) }

func eval(p cel.Program, source string, facts events.Facts) (bool, error) {
	a := activations.Get().(*activation)
	a.facts = facts
	defer func() {
		a.facts = events.Facts{}
		activations.Put(a)
	}()
	out, _, err := p.Eval(a)
	if err != nil {
		return false, fmt.Errorf("evaluate %s on agent %s: %w", source, facts.ID, err)
	}
	return out == types.True, nil
}

// split takes the expression's top-level && operands apart, each with its own text. An expression that
// cannot be written back is its own only clause.
func split(env *cel.Env, checked *cel.Ast) []clause {
	var found []clause
	var walk func(e ast.Expr)
	walk = func(e ast.Expr) {
		if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == "_&&_" {
			for _, arg := range e.AsCall().Args() {
				walk(arg)
			}
			return
		}
		source, err := cel.ExprToString(e, checked.NativeRep().SourceInfo())
		if err != nil {
			return
		}
		part, issues := env.Compile(source)
		if issues.Err() != nil {
			return
		}
		if p, err := programOf(env, part); err == nil {
			found = append(found, clause{source, p})
		}
	}
	walk(checked.NativeRep().Expr())
	return found
}

// Explain says, for facts that do not satisfy the expression, which clause fails and what the machine's
// facts named in it are: `agent.os == "windows" is false: agent.os is "linux"`.
func (e *Expression) Explain(facts events.Facts) string {
	for _, c := range e.clauses {
		ok, err := eval(c.program, c.source, facts)
		if err != nil {
			return fmt.Sprintf("%s cannot be evaluated: %v", c.source, err)
		}
		if !ok {
			return fmt.Sprintf("%s is false: %s", c.source, strings.Join(factsNamed(c.source, facts), ", "))
		}
	}
	return e.source + " is satisfied"
}

// factsNamed lists the facts whose names appear in source, with their values.
func factsNamed(source string, facts events.Facts) []string {
	var named []string
	v := reflect.ValueOf(facts)
	for i := range v.NumField() {
		name := factName(i)
		if mentions(source, "agent."+name) {
			named = append(named, fmt.Sprintf("agent.%s is %#v", name, v.Field(i).Interface()))
		}
	}
	return named
}

// mentions finds name in source where it is not the beginning of a longer name (agent.os, agent.os_name).
func mentions(source, name string) bool {
	for rest := source; ; {
		i := strings.Index(rest, name)
		if i < 0 {
			return false
		}
		rest = rest[i+len(name):]
		if rest == "" || !strings.ContainsAny(rest[:1], "abcdefghijklmnopqrstuvwxyz_0123456789") {
			return true
		}
	}
}

// Target is who is meant. Include and Exclude are sorted agent ids; exclusion wins.
type Target struct {
	Expression *Expression // nil: only the included
	Include    []string
	Exclude    []string
}

// New compiles a target; an empty expression means nobody beyond the included.
func New(expression string, include, exclude []string) (Target, error) {
	t := Target{Include: slices.Sorted(slices.Values(include)), Exclude: slices.Sorted(slices.Values(exclude))}
	for _, id := range slices.Concat(include, exclude) {
		if err := events.ValidAgent(id); err != nil {
			return Target{}, err
		}
	}
	if expression == "" {
		return t, nil
	}
	e, err := Compile(expression)
	t.Expression = e
	return t, err
}

// Matches says whether the agent with these facts is meant. An error means that the expression could not
// be evaluated: the agent is not meant.
func (t Target) Matches(facts events.Facts) (bool, error) {
	if _, excluded := slices.BinarySearch(t.Exclude, facts.ID); excluded {
		return false, nil
	}
	if _, included := slices.BinarySearch(t.Include, facts.ID); included {
		return true, nil
	}
	if t.Expression == nil {
		return false, nil
	}
	return t.Expression.Eval(facts)
}

// Explain says why the agent is or is not meant.
func (t Target) Explain(facts events.Facts) string {
	if _, excluded := slices.BinarySearch(t.Exclude, facts.ID); excluded {
		return "excluded by id"
	}
	if _, included := slices.BinarySearch(t.Include, facts.ID); included {
		return "included by id"
	}
	if t.Expression == nil {
		return "not included by id, and there is no expression"
	}
	return t.Expression.Explain(facts)
}

// Holds says whether a freeze holds the machine with these facts; one of a deployment holds no machine. What cannot be decided holds it too: a
// freeze errs on the side of doing nothing.
func Holds(f events.Freeze, facts events.Facts) bool {
	switch f.Scope {
	case "fleet":
		return true
	case "site":
		return f.Name == facts.Site
	case "deployment":
		return false
	}
	if f.Collection == nil {
		return true
	}
	members, err := New(f.Collection.Expression, f.Collection.Include, f.Collection.Exclude)
	if err != nil {
		return true
	}
	member, err := members.Matches(facts)
	return member || err != nil
}
