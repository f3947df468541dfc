package declared

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/rollout"
	"chandler/events/strictyaml"
)

// Deployment declares a deployment: what is signed, and the plan that is not. What it leaves out is as the zero values
// say: as soon as possible, to everybody at once, valid for 90 days.
type Deployment struct {
	place      `yaml:"-"`
	API        string           `yaml:"api"`
	Deployment string           `yaml:"deployment"`
	Program    string           `yaml:"program"` // package@version/program
	Collection string           `yaml:"collection"`
	Available  *calendar.Moment `yaml:"available,omitempty"`
	Zone       calendar.Zone    `yaml:"zone,omitempty"` // of wall-clock times and cron
	// Purpose is required, or available: nobody's machine runs it unless somebody there asks for it.
	Purpose     string           `yaml:"purpose,omitempty"`
	Deadline    *calendar.Moment `yaml:"deadline,omitempty"` // an assignment at that time
	Assignments []Assignment     `yaml:"assignments,omitempty"`
	Expires     *calendar.Moment `yaml:"expires,omitempty"`
	Grace       events.Duration  `yaml:"grace,omitempty"`
	Jitter      events.Duration  `yaml:"jitter,omitempty"`
	Rerun       order.Rerun      `yaml:"rerun,omitempty"` // empty: if-failed

	IgnoreWindows  bool `yaml:"ignore-windows,omitempty"`
	RestartOutside bool `yaml:"restart-outside,omitempty"`

	Validity Span `yaml:"validity,omitempty"` // of the signature; 0: 90 days

	events.Plan `yaml:",inline"`
	// Rollback is signed with the deployment: uninstall, or package@version/program.
	Rollback string `yaml:"rollback,omitempty"`
}

// The purposes.
const (
	PurposeRequired  = "required"
	PurposeAvailable = "available"
)

// RollbackUninstall takes a program back by the one of its package that undoes it.
const RollbackUninstall = "uninstall"

// Assignment is one of a deployment's: {at: asap}, {at: logon}, {at: logoff}, {at: 2026-12-01T08:00}, or {cron: "0 2 * * SAT"}.
type Assignment struct {
	At   string `yaml:"at,omitempty"`
	Cron string `yaml:"cron,omitempty"`
}

// Words of an assignment's at, beside times.
const (
	AtASAP   = "asap"
	AtLogon  = "logon"
	AtLogoff = "logoff"
)

// Order reads the assignment.
func (a Assignment) Order() (order.Assignment, error) {
	switch {
	case (a.At == "") == (a.Cron == ""):
		return order.Assignment{}, fmt.Errorf("an assignment has either at (asap, logon, logoff or a time) or cron")
	case a.Cron != "":
		_, err := calendar.ParseCron(a.Cron)
		return order.Assignment{Cron: a.Cron}, err
	case a.At == AtASAP:
		return order.Assignment{ASAP: true}, nil
	case a.At == AtLogon:
		return order.Assignment{Logon: true}, nil
	case a.At == AtLogoff:
		return order.Assignment{Logoff: true}, nil
	}
	m, err := calendar.ParseMoment(a.At)
	if err != nil {
		return order.Assignment{}, fmt.Errorf("at %.50q: it is %s, %s, %s or a time, written as 2026-12-01T08:00 or 2026-12-01T08:00:00Z", a.At, AtASAP, AtLogon, AtLogoff)
	}
	return order.Assignment{At: &m}, nil
}

func assignmentOf(a order.Assignment) Assignment {
	switch {
	case a.Cron != "":
		return Assignment{Cron: a.Cron}
	case a.Logon:
		return Assignment{At: AtLogon}
	case a.Logoff:
		return Assignment{At: AtLogoff}
	case a.At != nil:
		return Assignment{At: a.At.String()}
	}
	return Assignment{At: AtASAP}
}

// Span is a length of time, written "30m", "12h" or "90d".
type Span time.Duration

// MarshalText writes whole days as days.
func (s Span) MarshalText() ([]byte, error) {
	const day = 24 * time.Hour
	if d := time.Duration(s); d >= day && d%day == 0 {
		return []byte(strconv.Itoa(int(d/day)) + "d"), nil
	}
	return calendar.Duration(s).MarshalText()
}

// UnmarshalText reads Go's notation, or days.
func (s *Span) UnmarshalText(text []byte) error {
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 100*365 {
			return fmt.Errorf("span %.50q: write it as 30m, 12h or 90d", text)
		}
		*s = Span(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	var d events.Duration
	if err := d.UnmarshalText(text); err != nil {
		return fmt.Errorf("span %.50q: write it as 30m, 12h or 90d", text)
	}
	*s = Span(d)
	return nil
}

// Reference is a program as people name it.
type Reference struct{ Package, Version, Program string }

// String is package@version/program.
func (r Reference) String() string { return r.Package + "@" + r.Version + "/" + r.Program }

// ParseReference reads package@version/program.
func ParseReference(s string) (r Reference, err error) {
	name, program, ok := strings.Cut(s, "/")
	r.Program = program
	if ok {
		r.Package, r.Version, ok = strings.Cut(name, "@")
	}
	if !ok {
		return r, fmt.Errorf("%.100q: write it as package@version/program", s)
	}
	return r, cmp.Or(events.ValidPackage(r.Package), events.ValidVersion(r.Version), events.ValidToken(r.Program))
}

// Check says what is wrong with the document by itself.
func (d Deployment) Check() error {
	if err := events.ValidToken(d.Deployment); err != nil {
		return d.At("deployment", err.Error())
	}
	if _, err := ParseReference(d.Program); err != nil {
		return d.At("program", err.Error())
	}
	if err := events.ValidToken(d.Collection); err != nil {
		return d.At("collection", err.Error())
	}
	if err := d.Zone.Validate(); err != nil {
		return d.At("zone", err.Error())
	}
	if err := d.checkAssignments(); err != nil {
		return err
	}
	if d.Rerun != "" && !slices.Contains([]order.Rerun{order.RerunNever, order.RerunAlways, order.RerunIfFailed, order.RerunIfSucceeded}, d.Rerun) {
		return d.At("rerun", fmt.Sprintf("%q: it must be never, always, if-failed or if-succeeded", d.Rerun))
	}
	for _, delay := range []struct {
		key   string
		value events.Duration
	}{{"grace", d.Grace}, {"jitter", d.Jitter}} {
		if time.Duration(delay.value) > order.MaxDelay {
			return d.At(delay.key, fmt.Sprintf("at most %s", Span(order.MaxDelay).text()))
		}
	}
	if err := d.checkTogether(); err != nil {
		return err
	}
	return d.checkPlan()
}

// checkTogether holds times and assignments against each other as whoever gets the order will. When it is signed is not
// known here.
func (d Deployment) checkTogether() error {
	o, err := d.order(time.Unix(0, 0))
	if err != nil {
		return err
	}
	o.Fleet, o.Manifest, o.Expression, o.Revision, o.Run = "any", events.DigestOf(nil), "true", 1, events.RunAdministrative
	endless := o
	if endless.Expires = nil; endless.Validate() != nil {
		return d.At("assignments", endless.Validate().Error())
	}
	if err := o.Validate(); err != nil {
		return d.At("expires", strings.TrimPrefix(err.Error(), "expires "))
	}
	return nil
}

func (s Span) text() string { text, _ := s.MarshalText(); return string(text) }

func (d Deployment) checkAssignments() error {
	switch d.Purpose {
	case "", PurposeRequired:
	case PurposeAvailable:
		if len(d.Assignments) > 0 || d.Deadline != nil {
			return d.At("purpose", "available has no assignments and no deadline: somebody at the machine starts it")
		}
	default:
		return d.At("purpose", fmt.Sprintf("%q: it must be required or available", d.Purpose))
	}
	if n := len(d.Assignments); n > order.MaxAssignments {
		return d.At("assignments", fmt.Sprintf("%d assignments: at most %d", n, order.MaxAssignments))
	}
	for i, a := range d.Assignments {
		if _, err := a.Order(); err != nil {
			return d.At(fmt.Sprintf("assignments[%d]", i), err.Error())
		}
	}
	return nil
}

func (d Deployment) checkPlan() error {
	if err := rollout.Check(d.Plan); err != nil {
		return d.At(planKey(d.Plan), err.Error())
	}
	if d.Rollback != "" && d.Rollback != RollbackUninstall {
		if _, err := ParseReference(d.Rollback); err != nil {
			return d.At("rollback", "it is uninstall, or a program: "+err.Error())
		}
	}
	if d.OnHalt == events.OnHaltRollback && d.Rollback == "" {
		return d.At("on-halt", "rollback takes back what was signed with the deployment: say rollback: uninstall, or rollback: package@version/program")
	}
	return nil
}

// planKey is the key that a plan's mistake stands under.
func planKey(p events.Plan) string {
	for i := range p.Phases {
		// A prefix of the plan that is wrong already ends with the phase that is.
		part := events.Plan{Phases: slices.Clone(p.Phases[:i+1])}
		if i < len(p.Phases)-1 {
			part.Phases = append(part.Phases, events.Phase{Name: "rest-of-it", Collection: "rest-of-it"})
		}
		if rollout.Check(part) != nil {
			return fmt.Sprintf("phases[%d]", i)
		}
	}
	if len(p.Phases) > 0 {
		return "phases"
	}
	return "max-in-flight"
}

// Order is what of an order the document says: all but package digest, target, steps, windows and revision. issued is
// when it is signed.
func (d Deployment) Order(issued time.Time) (order.Order, error) {
	if err := d.Check(); err != nil {
		return order.Order{}, err
	}
	return d.order(issued)
}

func (d Deployment) order(issued time.Time) (order.Order, error) {
	ref, err := ParseReference(d.Program)
	if err != nil {
		return order.Order{}, d.At("program", err.Error())
	}
	o := order.Order{
		Format: order.Format, Deployment: d.Deployment, Package: ref.Package, Version: ref.Version, Program: ref.Program, Collection: d.Collection,
		Zone: d.Zone, Available: d.Available, Expires: d.Expires, Jitter: d.Jitter, Grace: d.Grace, Rerun: cmp.Or(d.Rerun, order.RerunIfFailed),
		IgnoreWindows: d.IgnoreWindows, RestartOutside: d.RestartOutside, Issued: issued.UTC().Truncate(time.Second), Assignments: []order.Assignment{},
	}
	o.NotAfter = o.Issued.Add(cmp.Or(time.Duration(d.Validity), order.DefaultValidity))
	for _, a := range d.Assignments {
		read, err := a.Order()
		if err != nil {
			return o, d.At("assignments", err.Error())
		}
		o.Assignments = append(o.Assignments, read)
	}
	if d.Deadline != nil {
		o.Assignments = append(o.Assignments, order.Assignment{At: d.Deadline})
	}
	if len(o.Assignments) == 0 && d.Purpose != PurposeAvailable {
		o.Assignments = []order.Assignment{{ASAP: true}}
	}
	return o, nil
}

// OfOrder is the document of an order and its plan; rollback as the document says it. Order gives the same again.
func OfOrder(o order.Order, plan *events.Plan, rollback string) Deployment {
	d := Deployment{
		API: API, Deployment: o.Deployment, Program: Reference{o.Package, o.Version, o.Program}.String(), Collection: o.Collection, Zone: o.Zone,
		Available: o.Available, Expires: o.Expires, Jitter: o.Jitter, Grace: o.Grace, Rerun: o.Rerun, IgnoreWindows: o.IgnoreWindows,
		RestartOutside: o.RestartOutside, Rollback: rollback,
	}
	if validity := o.NotAfter.Sub(o.Issued); validity != order.DefaultValidity {
		d.Validity = Span(validity)
	}
	if len(o.Assignments) == 0 {
		d.Purpose = PurposeAvailable
	}
	for _, a := range o.Assignments {
		d.Assignments = append(d.Assignments, assignmentOf(a))
	}
	if plan != nil {
		d.Plan = *plan
	}
	return d
}

// ParsePlan reads a file with a plan alone: phases, max-in-flight and the like. A deployment's document will do too.
func ParsePlan(name string, data []byte) (events.Plan, error) {
	docs, err := strictyaml.Parse(name, data, rule)
	if err != nil {
		return events.Plan{}, err
	}
	if len(docs) != 1 {
		return events.Plan{}, fmt.Errorf("%s has %d documents: one plan to a file", name, len(docs))
	}
	if slices.Contains(docs[0].Keys(), "deployment") {
		s, err := parseOne(docs[0])
		if err != nil {
			return events.Plan{}, err
		}
		return s.Deployments[0].Plan, nil
	}
	var p struct {
		events.Plan `yaml:",inline"`
	}
	if err := docs[0].Into(&p); err != nil {
		return events.Plan{}, err
	}
	if err := rollout.Check(p.Plan); err != nil {
		return events.Plan{}, docs[0].At("$."+planKey(p.Plan), err.Error())
	}
	return p.Plan, nil
}
