// Package declared is configuration as code: collections, deployments, packages and limits of the fleet as strict YAML
// documents, read into and written from what the events say.
//
//	api: chandler/v1
//	collection: workstations
//	expression: agent.os == "linux"
//	windows: [{weekly: [sat], at: "02:00", for: 4h, zone: agent}]
//	---
//	api: chandler/v1
//	deployment: hello-everywhere
//	program: hello@2.10-3/install
//	collection: workstations
//
// It is pure: bytes in, values out; it asks nobody, and whether what a document names is there its reader finds out. An
// error names file, line and column and quotes the line. What is written is read again as the same.
package declared

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/strictyaml"
	"chandler/events/target"
)

// API is what every document begins with.
const API = "chandler/v1"

// MaxDocuments of one set.
const MaxDocuments = 10_000

// Set is what documents declare, in the order in which they were read.
type Set struct {
	Packages    []Package
	Collections []Collection
	Deployments []Deployment
	Limits      *Limits // nil: nothing is said of them
}

// place is where a document stands; the zero one is nowhere.
type place struct{ doc *strictyaml.Document }

// At is an error about a key of the document; without a document, about the key alone.
func (p place) At(key, text string) error {
	if p.doc == nil {
		return fmt.Errorf("%s: %s", key, text)
	}
	return p.doc.At("$."+key, key+": "+text)
}

// Package names a version that must be published.
type Package struct {
	place   `yaml:"-"`
	API     string `yaml:"api"`
	Package string `yaml:"package"`
	Version string `yaml:"version"`
	// Path leads to the package, from the document: a directory with package.yaml, or a .deb, .rpm, .msi or script file.
	// Empty: it must be published already.
	Path string `yaml:"path,omitempty"`
	// Run is with whose rights the programs of a file run.
	Run events.RunMode `yaml:"run,omitempty"`
	// Manifest is the digest that the published version must have; empty: any.
	Manifest string `yaml:"manifest,omitempty"`
}

// Title is the name and version that a package.yaml gives its package. What else it says is read when it is published.
func Title(name string, data []byte) (pkg, version string, err error) {
	docs, err := strictyaml.Parse(name, data, rule)
	if err != nil {
		return "", "", err
	}
	if len(docs) != 1 {
		return "", "", fmt.Errorf("%s has %d documents: one package to a file", name, len(docs))
	}
	p := Package{place: place{docs[0]}, Package: docs[0].Text("package"), Version: docs[0].Text("version")}
	return p.Package, p.Version, p.Check()
}

// Name is package@version.
func (p Package) Name() string { return p.Package + "@" + p.Version }

// Collection declares a collection. Include and Exclude name agents by id or host name.
type Collection struct {
	place      `yaml:"-"`
	API        string            `yaml:"api"`
	Collection string            `yaml:"collection"`
	Expression string            `yaml:"expression,omitempty"`
	Include    []string          `yaml:"include,omitempty"`
	Exclude    []string          `yaml:"exclude,omitempty"`
	Windows    []calendar.Window `yaml:"windows,omitempty"`
	Comment    string            `yaml:"comment,omitempty"`
}

// Limits declares the limits of the whole fleet.
type Limits struct {
	place  `yaml:"-"`
	API    string      `yaml:"api"`
	Limits FleetLimits `yaml:"limits"`
}

// FleetLimits are those of [events.Limits]; 0: no bound, or the default.
type FleetLimits struct {
	MaxInFlight        int `yaml:"max-in-flight,omitempty"`
	MaxInFlightPerSite int `yaml:"max-in-flight-per-site,omitempty"`
	RetriesPerMinute   int `yaml:"retries-per-minute,omitempty"`
}

// Parse reads the documents of a file; name is how errors call it.
func Parse(name string, data []byte) (Set, error) {
	docs, err := strictyaml.Parse(name, data, rule)
	if err != nil {
		return Set{}, err
	}
	var all Set
	var problems []error
	for _, d := range docs {
		one, err := parseOne(d)
		if err == nil {
			err = all.Add(one)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	return all, errors.Join(problems...)
}

// fractions are the keys whose values may be numbers with a point.
var fractions = []string{"percent"}

func rule(key string, v strictyaml.Value) (problem string, done bool) {
	return "", v.Number && slices.Contains(fractions, key)
}

// kinds are the keys that say what a document declares.
const kinds = "package, collection, deployment or limits"

func parseOne(d *strictyaml.Document) (s Set, err error) {
	var found []string
	for _, k := range d.Keys() {
		// A deployment names its collection too.
		if k == "package" || k == "deployment" || k == "limits" || k == "collection" && !slices.Contains(d.Keys(), "deployment") {
			found = append(found, k)
		}
	}
	if len(found) != 1 {
		return s, d.At("$", fmt.Sprintf("a document declares exactly one of %s; this one has %s", kinds, cellOr(strings.Join(found, ", "), "none of them")))
	}
	at := place{d}
	switch found[0] {
	case "package":
		p := Package{}
		err = read(d, &p, &p.API, func() error { p.place = at; return p.Check() })
		s.Packages = []Package{p}
	case "collection":
		c := Collection{}
		err = read(d, &c, &c.API, func() error { c.place = at; return c.Check() })
		s.Collections = []Collection{c}
	case "deployment":
		p := Deployment{}
		err = read(d, &p, &p.API, func() error { p.place = at; return p.Check() })
		s.Deployments = []Deployment{p}
	default:
		l := Limits{}
		err = read(d, &l, &l.API, func() error { l.place = at; return l.Check() })
		s.Limits = &l
	}
	return s, err
}

// read reads a document into what v points to, and checks it.
func read(d *strictyaml.Document, v any, api *string, check func() error) error {
	if err := d.Into(v); err != nil {
		return err
	}
	if *api != API {
		return d.At("$.api", fmt.Sprintf("api is %q: write  api: %s", *api, API))
	}
	return check()
}

func cellOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Add puts what another set declares behind what is there. What is declared twice is an error.
func (s *Set) Add(more Set) error {
	var problems []error
	for _, p := range more.Packages {
		if slices.ContainsFunc(s.Packages, func(o Package) bool { return o.Name() == p.Name() }) {
			problems = append(problems, p.At("package", p.Name()+" is declared twice"))
			continue
		}
		s.Packages = append(s.Packages, p)
	}
	for _, c := range more.Collections {
		if slices.ContainsFunc(s.Collections, func(o Collection) bool { return o.Collection == c.Collection }) {
			problems = append(problems, c.At("collection", c.Collection+" is declared twice"))
			continue
		}
		s.Collections = append(s.Collections, c)
	}
	for _, d := range more.Deployments {
		if slices.ContainsFunc(s.Deployments, func(o Deployment) bool { return o.Deployment == d.Deployment }) {
			problems = append(problems, d.At("deployment", d.Deployment+" is declared twice"))
			continue
		}
		s.Deployments = append(s.Deployments, d)
	}
	if more.Limits != nil {
		if s.Limits != nil {
			problems = append(problems, more.Limits.At("limits", "they are declared twice"))
		} else {
			s.Limits = more.Limits
		}
	}
	if n := len(s.Packages) + len(s.Collections) + len(s.Deployments); n > MaxDocuments {
		problems = append(problems, fmt.Errorf("%d documents: at most %d", n, MaxDocuments))
	}
	return errors.Join(problems...)
}

// Check says what is wrong with the document by itself.
func (p Package) Check() error {
	switch {
	case events.ValidPackage(p.Package) != nil:
		return p.At("package", events.ValidPackage(p.Package).Error())
	case events.ValidVersion(p.Version) != nil:
		return p.At("version", events.ValidVersion(p.Version).Error())
	case p.Run != "" && p.Run != events.RunUser && p.Run != events.RunAdministrative:
		return p.At("run", fmt.Sprintf("%q: it must be user or administrative", p.Run))
	case p.Run != "" && p.Path == "":
		return p.At("run", "it is said of a file that path leads to; here is none")
	case p.Manifest != "" && events.ValidDigest(p.Manifest) != nil:
		return p.At("manifest", events.ValidDigest(p.Manifest).Error())
	}
	return nil
}

// Check says what is wrong with the document by itself.
func (c Collection) Check() error {
	if err := events.ValidToken(c.Collection); err != nil {
		return c.At("collection", err.Error())
	}
	if c.Expression == "" && len(c.Include) == 0 {
		return c.At("collection", "it would reach nobody: say who belongs to it with expression or include (expression: \"true\" is everybody)")
	}
	if c.Expression != "" {
		if _, err := target.Compile(c.Expression); err != nil {
			return c.At("expression", err.Error())
		}
	}
	if n := len(c.Include) + len(c.Exclude); n > events.MaxListed {
		return c.At("include", fmt.Sprintf("%d agents by name, at most %d can be: describe them by the expression, for instance over tags", n, events.MaxListed))
	}
	if len(c.Windows) > order.MaxWindows {
		return c.At("windows", fmt.Sprintf("%d maintenance windows: at most %d", len(c.Windows), order.MaxWindows))
	}
	for i, w := range c.Windows {
		if err := w.Validate(); err != nil {
			return c.At(fmt.Sprintf("windows[%d]", i), err.Error())
		}
	}
	return nil
}

// Check says what is wrong with the document by itself.
func (l Limits) Check() error {
	for _, n := range []struct {
		key   string
		value int
	}{{"max-in-flight", l.Limits.MaxInFlight}, {"max-in-flight-per-site", l.Limits.MaxInFlightPerSite}, {"retries-per-minute", l.Limits.RetriesPerMinute}} {
		if n.value < 0 {
			return l.At("limits."+n.key, "it must not be negative")
		}
	}
	return nil
}

// ParseWindow reads one maintenance window by itself, as an entry of windows: has it.
func ParseWindow(name, text string) (w calendar.Window, err error) {
	docs, err := strictyaml.Parse(name, []byte(text), rule)
	if err != nil {
		return w, err
	}
	if len(docs) != 1 {
		return w, fmt.Errorf("%s has %d windows: name one", name, len(docs))
	}
	if err := docs[0].Into(&w); err != nil {
		return w, err
	}
	if err := w.Validate(); err != nil {
		return w, docs[0].At("$", err.Error())
	}
	return w, nil
}

// ParseWindows reads a file with maintenance windows alone, as windows: of a collection's document, which will do too.
func ParseWindows(name string, data []byte) ([]calendar.Window, error) {
	docs, err := strictyaml.Parse(name, data, rule)
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("%s has %d documents: the windows of one collection to a file", name, len(docs))
	}
	if slices.Contains(docs[0].Keys(), "collection") {
		s, err := parseOne(docs[0])
		if err != nil {
			return nil, err
		}
		return s.Collections[0].Windows, nil
	}
	var w struct {
		Windows []calendar.Window `yaml:"windows"`
	}
	if err := docs[0].Into(&w); err != nil {
		return nil, err
	}
	for i, one := range w.Windows {
		if err := one.Validate(); err != nil {
			return nil, docs[0].At(fmt.Sprintf("$.windows[%d]", i), err.Error())
		}
	}
	return w.Windows, nil
}
