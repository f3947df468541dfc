package events

import (
	"reflect"
	"slices"
	"strings"
)

// Caller is the least role that may make a call. The broker enforces it: a role's connection may publish
// on the subjects of its calls and no others (package access).
type Caller string

// The callers. An administrator may do what a deployer may, and a deployer what a viewer may.
const (
	ByEnrolling     Caller = "enrolling agent" // has no identity yet, or an expired one; proves its key in the body
	ByAgent         Caller = "agent"
	ByViewer        Caller = "viewer"   // looks and changes nothing
	ByDeployer      Caller = "deployer" // packages, collections, deployments, freezes
	ByAdministrator Caller = "administrator"
)

// Person says whether people make the call (or programs in their name), and not agents.
func (c Caller) Person() bool { return c != ByAgent && c != ByEnrolling }

// Includes says whether whoever has role c may make calls of role least.
func (c Caller) Includes(least Caller) bool {
	if !c.Person() || !least.Person() {
		return c == least
	}
	order := []Caller{ByViewer, ByDeployer, ByAdministrator}
	return slices.Index(order, c) >= slices.Index(order, least)
}

// NoKey stands for the key of a caller on a broker that asks for none.
const NoKey = "nokey"

// CallDeclaration is what there is to know about one request of a service.
type CallDeclaration struct {
	Service, Verb string
	By            Caller
	Summary       string
	Req, Resp     reflect.Type
}

// Changes says whether the call changes something: those are audited always, the others when refused.
func (c CallDeclaration) Changes() bool { return c.By.Person() && c.By != ByViewer }

// Call is the typed handle of a request. Agents ask on chandler.rpc.<service>.<verb>.<agent>, people on
// chandler.rpc.<service>.<verb>.<key>.<name>: the broker pins the last tokens to the connection, so that a
// service knows whom it audits. Targets are in the body.
type Call[Req, Resp any] struct{ CallDeclaration }

// Subject on which the given caller makes the request: an agent by its id, a person by key (public nkey, or
// [NoKey]) and name. They must have passed [ValidAgent], or [ValidToken] and [ValidKey].
func (c CallDeclaration) Subject(key, caller string) string {
	subject := Prefix + "rpc." + c.Service + "." + c.Verb + "."
	if c.By.Person() {
		subject += key + "."
	}
	return subject + caller
}

// Filter matches the requests of every caller.
func (c CallDeclaration) Filter() string { return c.Subject("*", "*") }

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
