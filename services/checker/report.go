package checker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rule names what was broken.
type Rule string

// The rules.
const (
	Names         Rule = "names"          // witnesses of one job disagree on which it is
	ReleasedTwice Rule = "released-twice" // an agent is in two batches of one revision
	ReleaseLost   Rule = "release-lost"   // scheduling handed over others than EVENTS says
	NotOffered    Rule = "not-offered"    // a released agent was offered nothing
	NotReleased   Rule = "not-released"   // an agent was offered what it was not released for
	WrongOffer    Rule = "wrong-offer"    // an offer is not what the order says, or has no cause
	NoOffer       Rule = "no-offer"       // an agent speaks of an attempt that nobody offered
	StatusID      Rule = "status-id"      // a status is not stored under the id of what it states
	Hole          Rule = "hole"           // a transition is missing
	Sequence      Rule = "order"          // transitions contradict their numbers
	AfterEnd      Rule = "after-end"      // something follows an end
	NotStopped    Rule = "not-stopped"    // a job was cancelled and nobody stopped it
	AckLost       Rule = "ack-lost"       // an acknowledged status is not stored
	InJournal     Rule = "journal"        // the journal's last word is not the last in STATUS
	Unfinished    Rule = "unfinished"     // a job has no end
	InExecution   Rule = "execution"      // execution says something else
	RanTwice      Rule = "ran-twice"      // a program ran twice
	RanUntold     Rule = "ran-untold"     // a program ran and nobody said so
	NotRun        Rule = "not-run"        // a program did not run and somebody said so
	Outcome       Rule = "outcome"        // an end is not what its run gave
	NotFinished   Rule = "finished"       // an end is not told once
	NotInHistory  Rule = "history"        // HISTORY holds other ends than EVENTS
)

// Violation is something that must not be, with the least that proves it.
type Violation struct {
	Rule                   Rule
	Deployment, Agent, Job string
	Text                   string
	// History are the lines that prove it, oldest first: time, witness, what it says. What is missing has no line.
	History []string
}

// line is one piece of evidence.
type line struct {
	at   time.Time
	who  Witness
	text string
}

func (l line) String() string {
	at := "(no time)               "
	if !l.at.IsZero() {
		at = l.at.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return at + " " + string(l.who) + ": " + l.text
}

func lines(list []line) []string {
	slices.SortFunc(list, func(a, b line) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.who, b.who), cmp.Compare(a.text, b.text))
	})
	all := make([]string, len(list))
	for i, l := range list {
		all[i] = l.String()
	}
	return all
}

func (o *Order) line() line {
	return line{o.At, InEvents, fmt.Sprintf("revision %d of %s was created, order %.12s", o.Revision, o.Deployment, o.Order)}
}

func (r *Release) line(agent string) line {
	return line{r.At, InEvents, fmt.Sprintf("#%d releases %s for revision %d in wave %s batch %d", r.Sequence, agent, r.Revision, r.Wave, r.Batch)}
}

func (o *Offer) line() line {
	return line{o.At, InJobs, fmt.Sprintf("#%d offers attempt %d of job %s, order %.12s, to %s", o.Sequence, o.Attempt, o.Job, o.Order, o.Agent)}
}

func (s *Status) line() line {
	return line{s.At, InStatus, fmt.Sprintf("#%d transition %d, attempt %d: %s%s", s.Sequence, s.Transition, s.Attempt, s.State, because(string(s.Reason), s.Exited, s.Exit))}
}

func (a *Ack) line() line {
	return line{a.At, Agents, fmt.Sprintf("transition %d, attempt %d, %s was acknowledged as #%d", a.Transition, a.Attempt, a.State, a.Sequence)}
}

func (j *Journal) line() line {
	return line{j.At, InJournals, fmt.Sprintf("transition %d, attempt %d: %s%s; started attempt %d", j.Transition, j.Attempt, j.State, because(string(j.Reason), false, 0), j.Started)}
}

func (r *Run) line() line {
	how := "how it ended is not known"
	if !r.Ended.IsZero() {
		how = fmt.Sprintf("ended at %s with exit code %d", r.Ended.UTC().Format("15:04:05.000"), r.Exit)
	}
	what := "the program"
	if r.Step != "" {
		what = r.Step
	}
	return line{r.At, Executor, fmt.Sprintf("attempt %d started %s, %s", r.Attempt, what, how)}
}

func (e *End) line(who Witness) line {
	how := "ended"
	if e.Silent {
		how = "ended in silence"
	}
	return line{e.At, who, fmt.Sprintf("#%d attempt %d %s at transition %d: %s%s", e.Sequence, e.Attempt, how, e.Transition, e.State, because(string(e.Reason), false, 0))}
}

func because(reason string, exited bool, exit int) string {
	var parts []string
	if reason != "" {
		parts = append(parts, reason)
	}
	if exited {
		parts = append(parts, fmt.Sprintf("exit code %d", exit))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// sorted puts violations with the smallest history first.
func sorted(all []Violation) []Violation {
	slices.SortFunc(all, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(len(a.History), len(b.History)), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Deployment, b.Deployment),
			cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Job, b.Job), cmp.Compare(a.Text, b.Text), slices.Compare(a.History, b.History))
	})
	return all
}

// Report is what people read: how many violations there are of each rule, and the first limit of them (0: all).
func Report(v []Violation, limit int) string {
	if len(v) == 0 {
		return "no violations\n"
	}
	count := map[Rule]int{}
	for _, one := range v {
		count[one.Rule]++
	}
	var rules []string
	for rule, n := range count {
		rules = append(rules, fmt.Sprintf("%s %d", rule, n))
	}
	slices.Sort(rules)
	var b strings.Builder
	noun := "violations"
	if len(v) == 1 {
		noun = "violation"
	}
	fmt.Fprintf(&b, "%d %s: %s\n", len(v), noun, strings.Join(rules, ", "))
	shown := v
	if limit > 0 && limit < len(v) {
		shown = v[:limit]
	}
	for _, one := range shown {
		fmt.Fprintf(&b, "\n%s: deployment %s", one.Rule, one.Deployment)
		if one.Agent != "" {
			fmt.Fprintf(&b, ", agent %s", one.Agent)
		}
		if one.Job != "" {
			fmt.Fprintf(&b, ", job %s", one.Job)
		}
		fmt.Fprintf(&b, "\n  %s\n", one.Text)
		for _, l := range one.History {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	if left := len(v) - len(shown); left > 0 {
		fmt.Fprintf(&b, "\nand %d more\n", left)
	}
	return b.String()
}
