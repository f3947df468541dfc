package events

import (
	"reflect"
	"slices"
	"strings"
)

// Caller says who may make a call.
type Caller string

// The callers.
const (
	ByAgent         Caller = "agent"
	ByAdministrator Caller = "administrator"
)

// CallDeclaration is what there is to know about one request of a service.
type CallDeclaration struct {
	Service, Verb string
	By            Caller
	Summary       string
	Req, Resp     reflect.Type
}

// Call is the typed handle of a request: chandler.rpc.<service>.<verb>.<caller>. The broker pins the
// caller token to the connection; targets are in the body.
type Call[Req, Resp any] struct{ CallDeclaration }

// Subject on which the given caller makes the request. The caller must have passed [ValidToken].
func (c CallDeclaration) Subject(caller string) string {
	return Prefix + "rpc." + c.Service + "." + c.Verb + "." + caller
}

var calls []CallDeclaration

func call[Req, Resp any](service, verb string, by Caller, summary string) Call[Req, Resp] {
	d := CallDeclaration{Service: service, Verb: verb, By: by, Summary: summary, Req: reflect.TypeFor[Req](), Resp: reflect.TypeFor[Resp]()}
	calls = append(calls, d)
	return Call[Req, Resp]{d}
}

// Calls lists every declared request by service and verb.
func Calls() []CallDeclaration {
	all := slices.Clone(calls)
	slices.SortFunc(all, func(a, b CallDeclaration) int { return strings.Compare(a.Service+"."+a.Verb, b.Service+"."+b.Verb) })
	return all
}

// Nothing is the body of a request or answer that needs none.
type Nothing struct{}

// Named is a request about one thing.
type Named struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Why     string `json:"why,omitempty"`
}
