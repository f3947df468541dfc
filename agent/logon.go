package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"chandler/agent/execute"
	"chandler/agent/logon"
	"chandler/events"
)

// logonHindrance says what the job waits for as long as the wrong users, or none, are logged on; "": nothing. It
// leaves with the session of the user that the program runs as, or is shown to.
// At the last moment it looks at what is, rather than at what was told.
func (t *task) logonHindrance(ctx context.Context, last bool) (what events.WaitingFor, why string, err error) {
	need, at := t.program.LogonNeeded(), t.order.Assignments[0]
	if need == events.LogonAny && !at.Logon && !at.Logoff && !t.program.Interactive {
		return "", "", nil
	}
	if last {
		t.a.Logon.Refresh(ctx)
	}
	sessions, err := t.a.Logon.Sessions()
	if err != nil {
		if need == events.LogonAny && !at.Logon && !at.Logoff {
			return "", "", nil // it is only to be shown to somebody, if there is anybody
		}
		return events.WaitLogon, fmt.Sprintf("who is logged on cannot be found out: %v", err), nil
	}
	if len(sessions) > 0 && !t.job.SawUser {
		t.job.SawUser = true
		if err := t.a.journal.Keep(t.job); err != nil {
			return "", "", err
		}
	}
	if need == events.LogonNone || at.Logoff {
		return t.logoffHindrance(sessions)
	}
	if at.Logon {
		sessions = slices.DeleteFunc(slices.Clone(sessions), func(s logon.Session) bool { return s.Since.Before(t.job.Opened) })
	}
	session, ok := logon.Choose(sessions, t.job.Offer.User)
	t.session = nil
	switch {
	case ok:
		t.session = &session
		return "", "", nil
	case need == events.LogonAny && !at.Logon:
		return "", "", nil
	case t.job.Offer.User != "":
		return events.WaitLogon, "runs when user " + t.job.Offer.User + " is logged on", nil
	case at.Logon:
		return events.WaitLogon, "runs when next a user logs on", nil
	}
	return events.WaitLogon, "runs only when a user is logged on", nil
}

func (t *task) logoffHindrance(sessions []logon.Session) (events.WaitingFor, string, error) {
	switch {
	case len(sessions) > 0:
		return events.WaitLogoff, "runs only when no user is logged on; logged on now: " + list(logon.Users(sessions)), nil
	case t.order.Assignments[0].Logoff && !t.job.SawUser:
		return events.WaitLogoff, "runs when next the last user logs off", nil
	}
	return "", "", nil
}

// endWithSession ends a program that runs as a user when the session it runs in is over: its runtime directory,
// bus and display are gone. It returns when over is closed.
func (t *task) endWithSession(ctx context.Context, session *logon.Session, x *execute.Execution, over <-chan struct{}) {
	for {
		changed := t.a.Logon.Changed()
		if t.loggedOff(session) {
			t.say(warning, "The user %s has logged off while the program ran; it is ended", session.User)
			if err := x.Kill(); err != nil {
				t.a.log.WarnContext(ctx, "program not ended after logoff", "job", t.job.Offer.Job, "error", err)
			}
			return
		}
		select {
		case <-changed:
		case <-over:
			return
		}
	}
}

// loggedOff says that the session is certainly over.
func (t *task) loggedOff(session *logon.Session) bool {
	if session == nil {
		return false
	}
	sessions, err := t.a.Logon.Sessions()
	return err == nil && !slices.ContainsFunc(sessions, func(s logon.Session) bool {
		return s.ID == session.ID && strings.EqualFold(s.User, session.User)
	})
}

// logOffUsers ends every session, for a program that asks for it. What fails is told; the program has done its work.
func (t *task) logOffUsers(ctx context.Context) {
	t.a.Logon.Refresh(ctx) // somebody may have come a moment ago
	sessions, err := t.a.Logon.Sessions()
	if err != nil {
		t.say(warning, "Users are not logged off: who is logged on cannot be found out: %v", err)
		return
	}
	for _, s := range sessions {
		if err := t.a.Logon.LogOff(ctx, s); err != nil {
			t.say(warning, "User %s is not logged off: %v", s.User, err)
			continue
		}
		t.say(info, "User %s is logged off, as the program asks", s.User)
	}
}

// nobody is ever logged on: the driver of an agent that was given none.
type nobody struct{}

func (nobody) List(context.Context) ([]logon.Session, error) { return nil, nil }
func (nobody) LogOff(context.Context, logon.Session) error   { return nil }

func (nobody) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}
