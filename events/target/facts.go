package target

import (
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"chandler/events"
)

// factsTypeName is what expressions know the facts by.
const factsTypeName = "events.Facts"

// factsProvider reads the fields of facts without reflection: an expression is evaluated on every machine of the
// fleet.
type factsProvider struct{ types.Provider }

// quickFacts is applied after the native types, on which it builds.
func quickFacts(env *cel.Env) (*cel.Env, error) {
	return cel.CustomTypeProvider(factsProvider{env.CELTypeProvider()})(env)
}

// FindStructFieldType gives what the native types know of a field, with another way to it.
func (p factsProvider) FindStructFieldType(structType, name string) (*types.FieldType, bool) {
	found, ok := p.Provider.FindStructFieldType(structType, name)
	if !ok || structType != factsTypeName {
		return found, ok
	}
	quick, slow := *found, found.GetFrom
	get := factGetter(name)
	if get == nil {
		return found, true
	}
	quick.GetFrom = func(object any) (any, error) {
		if f, ok := object.(*events.Facts); ok {
			return get(f), nil
		}
		return slow(object)
	}
	return &quick, true
}

// factGetter is the way to a fact by its name; nil where it takes reflection.
func factGetter(name string) func(*events.Facts) any {
	return map[string]func(*events.Facts) any{
		"id":                func(f *events.Facts) any { return f.ID },
		"hostname":          func(f *events.Facts) any { return f.Hostname },
		"domain":            func(f *events.Facts) any { return f.Domain },
		"os":                func(f *events.Facts) any { return f.OS },
		"os_name":           func(f *events.Facts) any { return f.OSName },
		"os_version":        func(f *events.Facts) any { return f.OSVersion },
		"arch":              func(f *events.Facts) any { return f.Arch },
		"kernel":            func(f *events.Facts) any { return f.Kernel },
		"addresses":         func(f *events.Facts) any { return f.Addresses },
		"site":              func(f *events.Facts) any { return f.Site },
		"tags":              func(f *events.Facts) any { return f.Tags },
		"client_kind":       func(f *events.Facts) any { return string(f.ClientKind) },
		"domain_controller": func(f *events.Facts) any { return f.DomainController },
		"memory_bytes":      func(f *events.Facts) any { return f.MemoryBytes },
		"version":           func(f *events.Facts) any { return f.Version },
		"privileged":        func(f *events.Facts) any { return f.Privileged },
		"zone":              func(f *events.Facts) any { return f.Zone },
		"offer_format":      func(f *events.Facts) any { return int64(f.OfferFormat) },
		"trust":             func(f *events.Facts) any { return int64(f.Trust) },
		"incomplete":        func(f *events.Facts) any { return f.Incomplete },
		"boot_id":           func(f *events.Facts) any { return f.BootID },
	}[name]
}

// activation is the one variable that expressions have.
type activation struct{ facts events.Facts }

// activations are used again: facts are large, and there are as many evaluations as machines.
var activations = sync.Pool{New: func() any { return new(activation) }}

// ResolveName gives the evaluator the variable.
func (a *activation) ResolveName(name string) (any, bool) {
	if name != "agent" {
		return nil, false
	}
	return &a.facts, true
}

// Parent is nil: there are no other variables.
func (*activation) Parent() cel.Activation { return nil }

// programOf prepares a checked expression. What it may cost is bounded: where it holds nothing but comparisons its own length and
// the size of the facts bound it, else each evaluation is counted, which takes longer.
func programOf(env *cel.Env, checked *cel.Ast) (cel.Program, error) {
	var options []cel.ProgramOption
	if !comparesOnly(checked.NativeRep().Expr()) {
		options = append(options, cel.CostLimit(costLimit))
	}
	return env.Program(checked, options...)
}

// linear are the functions that take no longer than their arguments are long, and make nothing that is longer.
var linear = map[string]bool{
	operators.LogicalAnd: true, operators.LogicalOr: true, operators.LogicalNot: true, operators.Conditional: true,
	operators.Equals: true, operators.NotEquals: true, operators.Less: true, operators.LessEquals: true, operators.Greater: true, operators.GreaterEquals: true,
	operators.In: true, operators.Index: true, "startsWith": true, "endsWith": true, "contains": true, "size": true,
}

// comparesOnly says that an expression has no loops, and builds nothing.
func comparesOnly(e ast.Expr) bool {
	var parts []ast.Expr
	switch e.Kind() {
	case ast.LiteralKind, ast.IdentKind:
		return true
	case ast.SelectKind:
		return comparesOnly(e.AsSelect().Operand())
	case ast.ListKind:
		parts = e.AsList().Elements()
	case ast.CallKind:
		call := e.AsCall()
		if !linear[call.FunctionName()] {
			return false
		}
		parts = call.Args()
		if call.IsMemberFunction() {
			parts = append(parts[:len(parts):len(parts)], call.Target())
		}
	default:
		return false
	}
	for _, part := range parts {
		if !comparesOnly(part) {
			return false
		}
	}
	return true
}
