package netfs

import (
	"slices"
	"strings"

	"chandler/events/resource"
)

// place is a folder or file below the mount point. The zero value is the mount point itself.
type place struct {
	scheme string // "" at the top, where hosts of SMB are too
	host   string
	path   string // as in a Resource; "" of a host
}

// child is what lies there under a name; false: nothing can. Names come from programs, and from hosts that list folders.
func (p place) child(name string) (place, bool) {
	switch {
	case strings.Contains(name, "/"):
		return place{}, false
	case p.scheme == "":
		if scheme, ok := strings.CutSuffix(name, ":"); ok {
			return place{scheme: scheme}, slices.Contains(resource.Schemes(), scheme)
		}
		return place{scheme: resource.SMB}.child(name)
	case p.host == "":
		r, err := resource.Parse(p.scheme + "://" + name + "/x")
		return place{scheme: p.scheme, host: r.Host}, err == nil && r.Host != "" && r.Path == "/x"
	}
	below := resource.Resource{Scheme: p.scheme, Host: p.host, Path: p.path + "/" + name}
	again, err := resource.Parse(below.String())
	return place{p.scheme, p.host, below.Path}, err == nil && again == below
}

// resource is the address of a place with a path.
func (p place) resource() resource.Resource {
	return resource.Resource{Scheme: p.scheme, Host: p.host, Path: p.path}
}

// standing of a place to the resources of an order.
type standing int

const (
	foreign standing = iota // the order does not name it
	above                   // the way to something named
	named
)

// order is what an order names.
type order struct {
	patterns  []string
	resources []resource.Resource
}

func newOrder(patterns []string) order {
	o := order{patterns: patterns}
	for _, p := range patterns {
		if r, err := resource.ParsePattern(p); err == nil {
			o.resources = append(o.resources, r)
		}
	}
	return o
}

func (o order) standing(p place) standing {
	if p.path == "" {
		return above // hosts that are not named have nothing in them
	}
	at, found := p.resource(), foreign
	for _, r := range o.resources {
		if at.Within(r) {
			return named
		}
		if r.Within(at) {
			found = above
		}
	}
	return found
}

// covering is the resource by which an address is read.
func (o order) covering(r resource.Resource) string { return resource.Longest(o.patterns, r.String()) }

// names says that an address is a resource of the order itself.
func (o order) names(at resource.Resource) bool { return slices.Contains(o.resources, at) }

// meets says whether the order names anything on a host.
func (o order) meets(p place) bool {
	return p.host == "" || slices.ContainsFunc(o.resources, func(r resource.Resource) bool { return r.Scheme == p.scheme && r.Host == p.host })
}

// children are the names in a place above resources, each once, but for resources that are gone.
func (o order) children(p place, gone func(resource.Resource) bool) []string {
	var names []string
	add := func(name string) {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			names = append(names, name)
		}
	}
	for _, r := range o.resources {
		switch {
		case gone(r):
		case p.scheme == "" && r.Scheme == resource.SMB:
			add(r.Host)
		case p.scheme == "":
			add(r.Scheme + ":")
		case p.scheme != r.Scheme:
		case p.host == "":
			add(r.Host)
		case p.host != r.Host:
		case p.path == "" || r.Within(p.resource()) && len(r.Path) > len(p.path):
			next, _, _ := strings.Cut(r.Path[len(p.path)+1:], "/")
			add(next)
		}
	}
	slices.Sort(names)
	return names
}
