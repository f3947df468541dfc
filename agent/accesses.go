package agent

import (
	"slices"
	"sync"

	"chandler/events"
)

// accesses are what came of reading external sources in one attempt, in order: each resource once with each answer. The
// first ones are kept.
type accesses struct {
	mu    sync.Mutex
	list  []events.Access
	begun int // how many of them were there when the program under way was started
}

func (l *accesses) add(a events.Access) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.Answer, a.Resource = brief(a.Answer), brief(a.Resource)
	same := func(b events.Access) bool {
		return a.Resource == b.Resource && a.When == b.When && a.Reason == b.Reason && a.Account == b.Account && a.Version == b.Version
	}
	if len(l.list) < events.MaxAccesses && !slices.ContainsFunc(l.list, same) {
		l.list = append(l.list, a)
	}
}

func (l *accesses) all() []events.Access {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

func (l *accesses) forget() { l.restore(nil) }

// restore takes what an earlier process of the agent had kept.
func (l *accesses) restore(list []events.Access) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list, l.begun = slices.Clone(list), len(list)
}

// begin says that a program is about to start: what comes from now on is of its run.
func (l *accesses) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun = len(l.list)
}

// refused is the first access of the running program that failed otherwise than for a file that is not there, which
// programs look for without needing it.
func (l *accesses) refused() (events.Access, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.list[l.begun:] {
		if a.When == events.AccessRun && a.Reason != events.NoReason && a.Reason != events.SourceNotFound {
			return a, true
		}
	}
	return events.Access{}, false
}
