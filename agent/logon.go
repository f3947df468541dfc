package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"chandler/agent/execute"
	"chandler/agent/logon"
	"chandler/agent/supervise"
	"chandler/events"
)

// logonHindrance says what the job waits for as long as the wrong users, or none, are logged on; "": nothing. It
// leaves with the session of the user that the program runs as, or is shown to.
// At the last moment it looks at what is, rather than at what was told.
func (t *task) logonHindrance(ctx context.Context, last bool) (what events.WaitingFor, why string, err error) {
	need, at := t.program.LogonNeeded(), t.assignment()
	t.session = nil
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
		if need == events.LogonNone || at.Logoff {
			return events.WaitLogoff, fmt.Sprintf("runs only when no user is logged on, and who is cannot be found out: %v", err), nil
		}
		return events.WaitLogon, fmt.Sprintf("runs only when a user is logged on, and who is cannot be found out: %v", err), nil
	}
	if err := t.sawUsers(sessions); err != nil {
		return "", "", err
	}
	if need == events.LogonNone || at.Logoff {
		return t.logoffHindrance(sessions)
	}
	if t.job.Offer.User == "" { // else the job was opened for a logon
		sessions = t.atLogon(sessions)
	}
	session, ok := logon.Choose(sessions, orDefault(t.job.Offer.User, t.asker()))
	switch {
	case ok:
		t.session = &session
		return "", "", nil
	case need == events.LogonAny && !at.Logon:
		return "", "", nil
	case t.job.Offer.User != "":
		return events.WaitLogon, "runs when user " + t.job.Offer.User + " is logged on", nil
	case t.asker() != "":
		return events.WaitLogon, "runs when user " + t.asker() + ", who asked for it, is logged on", nil
	case at.Logon:
		return events.WaitLogon, "runs when next a user logs on", nil
	}
	return events.WaitLogon, "runs only when a user is logged on", nil
}

// atLogon leaves the sessions that count for the assignment: at logon, those that were opened since the job was.
func (t *task) atLogon(sessions []logon.Session) []logon.Session {
	if !t.assignment().Logon {
		return sessions
	}
	return slices.DeleteFunc(slices.Clone(sessions), func(s logon.Session) bool { return s.Since.Before(t.job.Opened) })
}

// noteUsers notes for a job that is assigned to a logoff that somebody is logged on now: whoever logs off while the
// content is fetched does count.
func (t *task) noteUsers(ctx context.Context) error {
	if !t.assignment().Logoff {
		return nil
	}
	sessions, err := t.a.Logon.Sessions()
	if err != nil {
		return nil // the wait finds out
	}
	return t.sawUsers(sessions)
}

// sawUsers remembers that somebody was logged on.
func (t *task) sawUsers(sessions []logon.Session) error {
	if len(sessions) == 0 || t.job.SawUser {
		return nil
	}
	t.job.SawUser = true
	return t.a.journal.Keep(t.job)
}

func (t *task) logoffHindrance(sessions []logon.Session) (events.WaitingFor, string, error) {
	switch {
	case len(sessions) > 0:
		return events.WaitLogoff, "runs only when no user is logged on; logged on now: " + list(logon.Users(sessions)), nil
	case t.assignment().Logoff && !t.job.SawUser:
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
		return s.ID == session.ID && strings.EqualFold(s.User, session.User) && (s.Since.IsZero() || s.Since.Equal(session.Since))
	})
}

const (
	// logoffPatience is how long after a program was ended its session may still be seen: logging off ends programs first.
	logoffPatience = 15 * time.Second
	// logoffRecent is how long ago a program may have failed for a session that is over now to explain it.
	logoffRecent = time.Minute
)

// logoffCodes are exit codes of programs that Windows ends with their session: DBG_TERMINATE_PROCESS,
// STATUS_CONTROL_C_EXIT and STATUS_DLL_INIT_FAILED_LOGOFF.
var logoffCodes = []int{0x40010004, -0x3ffffec6, -0x3ffffd95}

// endedByLogoff says that the program's end, which was no success, is that of its user's session.
func (t *task) endedByLogoff(ctx context.Context, o supervise.Outcome) bool {
	session := t.job.Work.Session
	if session == nil || !o.Started || o.TimedOut {
		return false
	}
	torn := o.Killed || o.Signal != "" || slices.Contains(logoffCodes, int(int32(o.ExitCode)))
	if !torn && t.a.Clock().Sub(o.EndedAt) > logoffRecent {
		return false // it had failed by itself long before anybody looked
	}
	if !torn {
		t.a.Logon.Refresh(ctx)
		return t.loggedOff(session)
	}
	return t.sessionEnds(ctx, session)
}

// sessionEnds says that the session is over now, or soon.
func (t *task) sessionEnds(ctx context.Context, session *logon.Session) bool {
	deadline, cancel := context.WithTimeout(ctx, logoffPatience)
	defer cancel()
	for {
		changed := t.a.Logon.Changed()
		t.a.Logon.Refresh(ctx)
		if t.loggedOff(session) {
			return true
		}
		select {
		case <-changed:
		case <-deadline.Done():
			return t.loggedOff(session)
		}
	}
}

// logOffUsers ends every session, for a program that asks for it, and says in words what did not go; "": all did.
// The program has done its work whatever comes of that.
func (t *task) logOffUsers(ctx context.Context) (failed string) {
	t.a.Logon.Refresh(ctx) // somebody may have come a moment ago
	sessions, err := t.a.Logon.Sessions()
	if err != nil {
		return fmt.Sprintf("users are not logged off: who is logged on cannot be found out: %v", err)
	}
	for _, s := range sessions {
		if err := t.a.Logon.LogOff(ctx, s); err != nil {
			failed = fmt.Sprintf("user %s is not logged off: %v", s.User, err)
			t.say(warning, "%s", failed)
			continue
		}
		t.say(info, "User %s is logged off, as the program asks", s.User)
	}
	return failed
}

// nobody is ever logged on: the driver of an agent that was given none.
type nobody struct{}

func (nobody) List(context.Context) ([]logon.Session, error) { return nil, nil }
func (nobody) LogOff(context.Context, logon.Session) error   { return nil }

func (nobody) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}
