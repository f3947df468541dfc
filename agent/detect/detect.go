// Package detect finds out whether a product is on this machine, before and
// after a program runs.
//
// The answer has three states, and Unknown is never success: whatever cannot be
// found out (no such tool, an unreadable file, a script that fails, a rule this
// agent does not know) is Unknown with an explanation, never a guess and never a
// Go error. Nothing is installed or changed, and every rule has a time limit. A
// rule whose file system hangs leaves a goroutine behind that waits for it.
package detect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chandler/events"
)

// State is what is known of a product.
type State int

// The states. The zero value is the one that claims nothing.
const (
	Unknown State = iota
	Installed
	NotInstalled
)

func (s State) String() string {
	switch s {
	case Installed:
		return "installed"
	case NotInstalled:
		return "not installed"
	}
	return "unknown"
}

// Result is a state and why, in words for an administrator.
type Result struct {
	State       State
	Explanation string
}

// Kind evaluates rules of one kind. Rules reach it with exactly that kind's
// fields set. It returns soon after ctx is done.
type Kind interface {
	Detect(ctx context.Context, rule events.Detect) Result
}

// The names of the kinds, which are the fields of events.Detect.
const (
	KindFile   = "file"
	KindDpkg   = "dpkg"
	KindRpm    = "rpm"
	KindMSI    = "msi"
	KindScript = "script"
)

// KindNames lists the kinds that a rule may be of. An agent's table has one of each.
func KindNames() []string { return []string{KindFile, KindDpkg, KindRpm, KindMSI, KindScript} }

// Options of a Detector.
type Options struct {
	Kinds   map[string]Kind // by name, see KindNames; a rule whose kind is missing is Unknown
	Timeout time.Duration   // of one rule; 0 means two minutes
}

const defaultTimeout = 2 * time.Minute

// Detector evaluates rules. It may be used concurrently.
type Detector struct {
	kinds   map[string]Kind
	timeout time.Duration
}

// New checks the options. A kind that no rule can be of is an error.
func New(opt Options) (*Detector, error) {
	for name, kind := range opt.Kinds {
		if !slices.Contains(KindNames(), name) || kind == nil {
			return nil, fmt.Errorf("detection kind %q: not one of %s, or nil", name, strings.Join(KindNames(), ", "))
		}
	}
	if opt.Timeout < 0 {
		return nil, fmt.Errorf("detection time limit %v is negative", opt.Timeout)
	}
	if opt.Timeout == 0 {
		opt.Timeout = defaultTimeout
	}
	return &Detector{kinds: opt.Kinds, timeout: opt.Timeout}, nil
}

// Detect evaluates rules, all of which must hold: one that is NotInstalled
// decides, else one that is Unknown, else the product is Installed. The
// explanation is that of the rules with the deciding state. No rules at all is
// Unknown.
func (d *Detector) Detect(ctx context.Context, rules []events.Detect) Result {
	if len(rules) == 0 {
		return Result{Unknown, "there is no detection rule"}
	}
	explanations := map[State][]string{}
	for i, rule := range rules {
		result := d.one(ctx, rule)
		if len(rules) > 1 {
			result.Explanation = fmt.Sprintf("rule %d: %s", i+1, result.Explanation)
		}
		if result.State == NotInstalled {
			return result
		}
		explanations[result.State] = append(explanations[result.State], result.Explanation)
	}
	state := Installed
	if len(explanations[Unknown]) > 0 {
		state = Unknown
	}
	return Result{state, strings.Join(explanations[state], "; ")}
}

func (d *Detector) one(ctx context.Context, rule events.Detect) Result {
	name, err := kindOf(rule)
	if err != nil {
		return unknown("%v", err)
	}
	kind, ok := d.kinds[name]
	if !ok {
		return unknown("this agent cannot detect by %s", name)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	return kind.Detect(ctx, rule)
}

// kindOf names the kind of a rule and refuses a rule that states more or less
// than its kind can check: half of a rule must not pass for the whole.
func kindOf(rule events.Detect) (string, error) {
	var names []string
	for _, field := range []struct{ name, value string }{
		{KindFile, rule.File}, {KindDpkg, rule.Dpkg}, {KindRpm, rule.Rpm}, {KindMSI, rule.MSI}, {KindScript, rule.Script},
	} {
		if field.value != "" {
			names = append(names, field.name)
		}
	}
	switch {
	case len(names) == 0:
		return "", fmt.Errorf("the rule states none of %s", strings.Join(KindNames(), ", "))
	case len(names) > 1:
		return "", fmt.Errorf("the rule states %s, but must state one", strings.Join(names, " and "))
	case rule.SHA256 != "" && names[0] != KindFile:
		return "", errors.New("a sha256 can only be checked of a file")
	case rule.Shell != "" && names[0] != KindScript:
		return "", errors.New("a shell can only be stated with a script")
	case rule.Version != "" && (names[0] == KindFile || names[0] == KindScript):
		return "", fmt.Errorf("a version cannot be checked of a %s", names[0])
	}
	return names[0], nil
}

func unknown(format string, args ...any) Result {
	return Result{Unknown, fmt.Sprintf(format, args...)}
}

func installed(format string, args ...any) Result {
	return Result{Installed, fmt.Sprintf(format, args...)}
}

func notInstalled(format string, args ...any) Result {
	return Result{NotInstalled, fmt.Sprintf(format, args...)}
}
