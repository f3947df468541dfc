package agent

import (
	"context"
	"fmt"
	"time"

	"chandler/agent/cmlog"
	"chandler/agent/execute"
	"chandler/agent/journal"
	"chandler/events"
)

// Rights keeps what accounts are given for a run. elevate.Keeper is the one of machines.
type Rights interface {
	execute.Rights
	// Restore takes back what an earlier process of the agent had given.
	Restore(ctx context.Context) error
	// Tell names the function that every note goes to; it is given again until the function takes it.
	Tell(func(events.Type[events.AccountNote], events.AccountNote) error)
}

// restoreRights takes back what an earlier process of the agent had given. Until all of it is, no program is given any:
// to restore is to take back whatever is given.
func (a *Agent) restoreRights(ctx context.Context) {
	if a.Rights == nil {
		return
	}
	err := a.Rights.Restore(ctx)
	if err != nil {
		a.log.ErrorContext(ctx, "rights left to an account are not taken back yet", "error", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil && a.left == nil:
		a.left = make(chan struct{})
	case err == nil && a.left != nil:
		close(a.left)
		a.left = nil
	}
}

// restoreLeftRights tries again for as long as rights are left.
func (a *Agent) restoreLeftRights(ctx context.Context) error {
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		if left, _ := a.rightsLeft(); !left || !sleep(ctx, pause) {
			return nil
		}
		a.restoreRights(ctx)
	}
}

// rightsLeft says whether rights that an earlier process gave are not all taken back, and gives a channel that is closed
// when they are.
func (a *Agent) rightsLeft() (bool, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.left != nil, a.left
}

// noteAccount journals what was done with an account, so that it is told as an event sooner or later, and logs it.
func (a *Agent) noteAccount(t events.Type[events.AccountNote], n events.AccountNote) error {
	facts := a.Facts()
	n.Agent, n.Hostname = a.id, facts.Hostname
	if err := a.journal.Notify(journal.Notice{Type: t.Name, Note: n}); err != nil {
		return fmt.Errorf("journal notice about account %s: %w", n.Account, err)
	}
	if a.reporter != nil { // else it looks when it is there
		a.reporter.Wake()
	}
	level, text := accountWords(t.Name, n)
	entry := cmlog.Entry{Time: n.At, Component: accountManager, Type: level, Context: n.Job, Text: text}
	if err := a.jobLogs.write(facts.ClientKind, entry); err != nil {
		a.log.Warn("log line not written", "error", err)
	}
	a.log.Info("rights of an account changed", "account", n.Account, "what", text, "job", n.Job)
	return nil
}

// accountWords are the log line of a note.
func accountWords(name string, n events.AccountNote) (cmlog.Type, string) {
	means := ""
	if n.Means != "" {
		means = " (" + n.Means + ")"
	}
	switch name {
	case events.AgentAccountCreated.Name:
		return info, fmt.Sprintf("Created account %s, a typical user%s", n.Account, means)
	case events.AgentAccountElevated.Name:
		if n.Standing {
			return warning, fmt.Sprintf("Account %s already has the rights of %s and keeps them; it should be an ordinary user%s", n.Account, n.ElevatedTo, means)
		}
		return info, fmt.Sprintf("Granting rights of %s to account %s for %s%s", n.ElevatedTo, n.Account, n.Program, means)
	case events.AgentAccountRestored.Name:
		return warning, fmt.Sprintf("Rights of %s that were left to account %s are taken back%s", n.ElevatedTo, n.Account, means)
	}
	if n.Standing {
		return info, fmt.Sprintf("The run by account %s is over; it keeps the rights of its own%s", n.Account, means)
	}
	return info, fmt.Sprintf("Taking rights of %s back from account %s%s", n.ElevatedTo, n.Account, means)
}
