// Package order holds the signed statement of a deployment: what is installed, on which machines, with
// whose rights, until when. An administrator signs it; an agent verifies it and acts by it alone, so that
// neither the broker nor a service can make a machine run anything else.
//
// It is pure: bytes in, values out. Every refusal is a [sign.Refusal] with a reason of package events.
package order

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/manifest"
	"chandler/events/resource"
	"chandler/events/target"
)

// Format is the form of orders that this version writes; it reads no newer one. A newer order may hold a
// condition that this version would overlook, so unknown fields are refused, unlike in events.
const Format = 1

// MaxSize of an envelope in bytes.
const MaxSize = 256 << 10

// DefaultValidity of an order: validity is mandatory, and this is what the CLI gives when not told.
const DefaultValidity = 90 * 24 * time.Hour

// ClockTolerance is by how much a machine's clock may differ from the signer's.
const ClockTolerance = 5 * time.Minute

// Order is what is signed. Its digest (SHA-256 of the signed payload) names it everywhere.
type Order struct {
	Format     int            `json:"format"`
	Fleet      string         `json:"fleet"`
	Deployment string         `json:"deployment"`
	Revision   uint64         `json:"revision"` // serial per deployment, from 1; agents refuse to go back
	Package    string         `json:"package"`
	Version    string         `json:"version"`
	Manifest   string         `json:"manifest"` // digest: binds every file and the program's command
	Program    string         `json:"program"`
	Run        events.RunMode `json:"run"` // as in the manifest; both must agree
	// InstallationAccount names the software installation account of legacy clients, as in the manifest; both
	// must agree.
	InstallationAccount string `json:"installation_account,omitempty"`
	// Resources are the addresses on external sources that the program may be helped to read, sorted, as
	// [manifest.Resources] lists them; both must agree. Each stands for itself and all below.
	Resources  []string `json:"resources,omitempty"`
	Collection string   `json:"collection"`
	Expression string   `json:"expression,omitempty"`
	// IncludeDigest and ExcludeDigest bind the lists of agents (see [ListDigest]); empty: no list.
	IncludeDigest string `json:"include,omitempty"`
	ExcludeDigest string `json:"exclude,omitempty"`

	// Zone is that of the wall-clock times below and of cron.
	Zone      calendar.Zone    `json:"zone,omitempty"`
	Available *calendar.Moment `json:"available,omitempty"`
	// Assignments are when the program runs, at most [MaxAssignments]; none: when somebody at the machine asks for it.
	Assignments []Assignment     `json:"assignments"`
	Expires     *calendar.Moment `json:"expires,omitempty"`
	// Jitter delays each start by up to so much, by a different part of it on each machine and occurrence.
	Jitter events.Duration `json:"jitter,omitempty"`
	// Grace is what a machine that was away at its time gets before it starts the program: somebody there may choose the moment.
	Grace events.Duration `json:"grace,omitempty"`
	Rerun Rerun           `json:"rerun"`

	// Windows are the maintenance windows of collections; those of every collection that the machine is in count
	// together. A machine in none of them starts at any time.
	Windows []Windows `json:"windows,omitempty"`
	// IgnoreWindows lets the program start outside of them, RestartOutside the machine restart outside of them.
	IgnoreWindows  bool `json:"ignore_windows,omitempty"`
	RestartOutside bool `json:"restart_outside,omitempty"`

	// First are the programs that run before this one, in their order.
	First []Step `json:"first,omitempty"`
	// Rolls makes this the order that takes another one back; nil: it is none.
	Rolls *Rolls `json:"rolls,omitempty"`

	Issued   time.Time `json:"issued"`
	NotAfter time.Time `json:"not_after"`
}

// MaxAssignments of one order, as the original's (domain-facts §1.3); MaxSteps that run first.
const (
	MaxAssignments = 15
	MaxSteps       = 32
)

// Assignment is when the program is to run. Exactly one of its fields is set.
type Assignment struct {
	ASAP bool `json:"asap,omitempty"`
	// Logon and Logoff: when next a user logs on, or the last one logs off. The latter is for programs with
	// logon: none (domain-facts §1.3).
	Logon  bool             `json:"logon,omitempty"`
	Logoff bool             `json:"logoff,omitempty"`
	At     *calendar.Moment `json:"at,omitempty"`   // a deadline: content is fetched before it
	Cron   string           `json:"cron,omitempty"` // five fields, in the order's zone
}

// String says it in words, a time in RFC 3339.
func (a Assignment) String() string {
	switch {
	case a.Logon:
		return "when a user logs on"
	case a.Logoff:
		return "when the last user has logged off"
	case a.At != nil:
		return "at " + a.At.String()
	case a.Cron != "":
		return "by cron " + a.Cron
	}
	return "as soon as possible"
}

func (a Assignment) kinds() (n int) {
	for _, set := range []bool{a.ASAP, a.At != nil, a.Logon, a.Logoff, a.Cron != ""} {
		if set {
			n++
		}
	}
	return n
}

// Occurrence numbers an assignment at a time in job ids: as the Unix time of its wall clock read as UTC, so that it is
// the same in every zone; 0 where it names none.
func (a Assignment) Occurrence() int64 {
	if a.At == nil {
		return 0
	}
	return a.At.In(time.UTC).Unix()
}

// Windows are the maintenance windows of one collection, with its definition when the order was signed.
type Windows struct {
	Collection string            `json:"collection"`
	Expression string            `json:"expression,omitempty"`
	Include    []string          `json:"include,omitempty"` // sorted agent ids
	Exclude    []string          `json:"exclude,omitempty"`
	Windows    []calendar.Window `json:"windows"`
}

// Why a [Step] is there.
const (
	StepFirst     = "run-first" // the program, or one of its steps, depends on it
	StepUninstall = "uninstall" // it removes what the package supersedes
)

// Step is a program that runs before the order's own, bound as that one is.
type Step struct {
	Why                 string         `json:"why"`
	Package             string         `json:"package"`
	Version             string         `json:"version"`
	Manifest            string         `json:"manifest"`
	Program             string         `json:"program"`
	Run                 events.RunMode `json:"run"`
	InstallationAccount string         `json:"installation_account,omitempty"`
	Resources           []string       `json:"resources,omitempty"`
	// Always: also where it succeeded before.
	Always bool `json:"always,omitempty"`
}

// Rolls names the order whose program is taken back. Only a machine on which a job of that deployment, of that revision,
// ran obeys.
type Rolls struct {
	Deployment string `json:"deployment"`
	Revision   uint64 `json:"revision"`
	Package    string `json:"package"`
	Version    string `json:"version"`
	Program    string `json:"program"`
}

// Standing says that the order is one out of which the machine opens occurrences by itself: it has a recurring
// assignment, several, or none. Its own job, with occurrence 0, runs nothing.
func (o Order) Standing() bool { return len(o.Assignments) != 1 || o.Assignments[0].Cron != "" }

// Occurrence is that of the job which is offered for the order.
func (o Order) Occurrence() int64 {
	if o.Standing() {
		return 0
	}
	return o.Assignments[0].Occurrence()
}

// Over is when nothing of the order starts any more on any machine.
func (o Order) Over() time.Time {
	last := o.NotAfter.Add(ClockTolerance)
	if o.Expires != nil && o.Expires.In(o.Zone.Location(lastZone)).Before(last) {
		return o.Expires.In(o.Zone.Location(lastZone))
	}
	return last
}

// Begins is when the order is available to the first machine; zero: at once.
func (o Order) Begins() time.Time {
	if o.Available == nil {
		return time.Time{}
	}
	return o.Available.In(o.Zone.Location(firstZone))
}

// The first and the last zone in which a wall-clock time comes.
var (
	firstZone = time.FixedZone("first", 14*3600)
	lastZone  = time.FixedZone("last", -12*3600)
)

// Rerun says what to do on a machine where the program ran before (domain-facts §1.3).
type Rerun string

// The rerun behaviours.
const (
	RerunNever       Rerun = "never"
	RerunAlways      Rerun = "always"
	RerunIfFailed    Rerun = "if-failed"
	RerunIfSucceeded Rerun = "if-succeeded"
)

// Deadline is the time of the first assignment that names one.
func (o Order) Deadline() *calendar.Moment {
	for _, a := range o.Assignments {
		if a.At != nil {
			return a.At
		}
	}
	return nil
}

// Validate checks that the parts of an order agree; where it looks at no clock.
func (o Order) Validate() error {
	checks := []error{
		events.ValidToken(o.Fleet), events.ValidToken(o.Deployment), events.ValidPackage(o.Package), events.ValidVersion(o.Version),
		events.ValidDigest(o.Manifest), events.ValidToken(o.Program), events.ValidToken(o.Collection),
	}
	if err := errors.Join(checks...); err != nil {
		return err
	}
	if o.InstallationAccount != "" {
		if err := events.ValidToken(o.InstallationAccount); err != nil {
			return fmt.Errorf("installation account: %w", err)
		}
	}
	if err := validResources(o.Resources); err != nil {
		return err
	}
	if err := errors.Join(o.validateSteps(), o.validateWindows(), o.validateRolls()); err != nil {
		return err
	}
	for _, d := range []string{o.IncludeDigest, o.ExcludeDigest} {
		if d != "" && events.ValidDigest(d) != nil {
			return fmt.Errorf("digest of a target list %q is malformed", d)
		}
	}
	if o.Expression == "" && o.IncludeDigest == "" {
		return errors.New("the target has neither an expression nor included agents: it would reach nobody")
	}
	if o.Expression != "" {
		if _, err := target.Compile(o.Expression); err != nil {
			return err
		}
	}
	return o.validateTimes()
}

func (o Order) validateTimes() error {
	switch {
	case o.Revision == 0:
		return errors.New("revision must count from 1")
	case o.Run != events.RunUser && o.Run != events.RunAdministrative:
		return fmt.Errorf("run is %q: it must be user or administrative", o.Run)
	case !slices.Contains([]Rerun{RerunNever, RerunAlways, RerunIfFailed, RerunIfSucceeded}, o.Rerun):
		return fmt.Errorf("rerun is %q: it must be never, always, if-failed or if-succeeded", o.Rerun)
	case o.Issued.IsZero() || !o.NotAfter.After(o.Issued):
		return errors.New("validity must end after it begins")
	case o.Expires != nil && !o.Over().After(o.Issued):
		return errors.New("expires lies before the order was issued")
	case o.Available != nil && o.Expires != nil && !o.earlier(*o.Available, *o.Expires):
		return errors.New("expires lies before available")
	case o.Jitter < 0 || o.Grace < 0 || time.Duration(o.Jitter) > MaxDelay || time.Duration(o.Grace) > MaxDelay:
		return fmt.Errorf("jitter and grace must be at most %s", MaxDelay)
	}
	return o.validateAssignments()
}

// MaxDelay bounds jitter and grace.
const MaxDelay = 60 * 24 * time.Hour

func (o Order) validateAssignments() error {
	if err := o.Zone.Validate(); err != nil {
		return err
	}
	if len(o.Assignments) > MaxAssignments {
		return fmt.Errorf("%d assignments: at most %d", len(o.Assignments), MaxAssignments)
	}
	for i, a := range o.Assignments {
		switch {
		case a.kinds() != 1:
			return fmt.Errorf("assignment %d: an assignment is as soon as possible, at a time, by cron, at logon or at logoff: exactly one of them", i+1)
		case a.At != nil && o.Expires != nil && !o.earlier(*a.At, *o.Expires):
			return errors.New("expires lies before the deadline")
		case a.At != nil && o.Available != nil && *a.At != *o.Available && !o.earlier(*o.Available, *a.At):
			return errors.New("the deadline lies before available")
		case slices.ContainsFunc(o.Assignments[:i], a.same):
			return fmt.Errorf("assignment %d, %s, is there twice", i+1, a)
		}
		if a.Cron != "" {
			if _, err := calendar.ParseCron(a.Cron); err != nil {
				return fmt.Errorf("assignment %d: %w", i+1, err)
			}
		}
	}
	return nil
}

func (a Assignment) same(b Assignment) bool {
	return a.ASAP == b.ASAP && a.Logon == b.Logon && a.Logoff == b.Logoff && a.Cron == b.Cron && (a.At == nil) == (b.At == nil) && (a.At == nil || *a.At == *b.At)
}

// earlier says whether a moment comes before another one on every machine.
func (o Order) earlier(m, than calendar.Moment) bool {
	if m.Floating() == than.Floating() { // one zone for both: each machine has one
		return m.In(o.Zone.Location(time.UTC)).Before(than.In(o.Zone.Location(time.UTC)))
	}
	return m.In(o.Zone.Location(lastZone)).Before(than.In(o.Zone.Location(firstZone)))
}

func validResources(resources []string) error {
	if len(resources) > manifest.MaxResources || !slices.IsSorted(resources) {
		return fmt.Errorf("resources must be sorted, and at most %d", manifest.MaxResources)
	}
	for i, text := range resources {
		r, err := resource.Parse(text)
		if err == nil && (r.String() != text || i > 0 && resources[i-1] == text) {
			err = errors.New("is not written in its one form, or twice")
		}
		if err != nil {
			return fmt.Errorf("resource %d %w", i+1, err)
		}
	}
	return nil
}

// Agrees holds the order against its manifest, for whoever has both. Every error is a [sign.Refusal]: ManifestMismatch
// where order and manifest differ, ContextUnsupported where the program cannot run when the order says.
func (o Order) Agrees(m events.Manifest) error {
	p, ok := m.Programs[o.Program]
	switch {
	case !ok:
		return refuse(events.ManifestMismatch, "the manifest of %s %s has no program %s", m.Package, m.Version, o.Program)
	case !slices.Equal(o.Resources, manifest.Resources(m, o.Program)):
		return refuse(events.ManifestMismatch, "the order names resources %q, the manifest %q", o.Resources, manifest.Resources(m, o.Program))
	case p.Run != o.Run:
		return refuse(events.ManifestMismatch, "the order says run: %s, the manifest run: %s", o.Run, p.Run)
	case p.InstallationAccount != o.InstallationAccount:
		return refuse(events.ManifestMismatch, "the order names installation account %q, the manifest %q", o.InstallationAccount, p.InstallationAccount)
	case p.EveryUser && o.Standing():
		return refuse(events.ContextUnsupported, "program %s runs once for every user, which takes exactly one assignment that does not recur", o.Program)
	case p.LogonNeeded() != events.LogonNone && slices.ContainsFunc(o.Assignments, func(a Assignment) bool { return a.Logoff }):
		return refuse(events.ContextUnsupported, "program %s is to start when the last user has logged off: that is for programs with logon: none, this one has logon: %s", o.Program, p.LogonNeeded())
	case p.LogonNeeded() == events.LogonNone && slices.ContainsFunc(o.Assignments, func(a Assignment) bool { return a.Logon }):
		return refuse(events.ContextUnsupported, "program %s is to start when a user logs on, but has logon: none, which keeps it from starting while anybody is logged on: it could not start at any logon", o.Program)
	}
	return nil
}

// ListDigest binds a list of agent ids: the SHA-256 of the sorted ids, one a line; "" for an empty list.
func ListDigest(ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(ids)))
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\n") + "\n"))
	return hex.EncodeToString(sum[:])
}

// Target compiles the order's target after checking that the lists are those that were signed.
func (o Order) Target(include, exclude []string) (target.Target, error) {
	if ListDigest(include) != o.IncludeDigest || ListDigest(exclude) != o.ExcludeDigest {
		return target.Target{}, refuse(events.OrderAltered, "the lists of included and excluded agents are not those that were signed")
	}
	t, err := target.New(o.Expression, include, exclude)
	if err != nil {
		return target.Target{}, refuse(events.OrderMalformed, "%v", err)
	}
	return t, nil
}

// decode reads a payload strictly.
func decode(payload []byte) (Order, error) {
	var o Order
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(payload, &format); err != nil {
		return o, refuse(events.OrderMalformed, "the order is not JSON: %v", err)
	}
	if format.Format > Format {
		return o, refuse(events.UnsupportedFormat, "the order has format %d, this version reads up to %d", format.Format, Format)
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		if strings.Contains(err.Error(), "unknown field") {
			return o, refuse(events.UnsupportedFormat, "the order says something this version does not know: %v", err)
		}
		return o, refuse(events.OrderMalformed, "%v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return o, refuse(events.OrderMalformed, "something follows the order")
	}
	if err := o.Validate(); err != nil {
		return o, refuse(events.OrderMalformed, "%v", err)
	}
	return o, nil
}
