package userrunner

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/windows"

	"chandler/agent/execute"
	"chandler/agent/logon"
	"chandler/agent/supervise"
)

// prepare needs no database: the session has a token of its user.
func (*Runner) prepare(_ context.Context, session logon.Session, interactive bool) (execute.Prepared, error) {
	own := windows.GetCurrentProcessToken()
	who, err := own.GetTokenUser()
	if err != nil {
		return execute.Prepared{}, fmt.Errorf("find the agent's own user: %w", err)
	}
	if !who.User.Sid.IsWellKnown(windows.WinLocalSystemSid) {
		return asSelf(own, who.User.Sid, session)
	}
	var token windows.Token
	if err := windows.WTSQueryUserToken(session.Number, &token); err != nil {
		return execute.Prepared{}, unusable(session.User, fmt.Errorf("session %d has no user's token: %w", session.Number, err))
	}
	defer token.Close()
	// The number of a session may have become another user's since the sessions were listed.
	name, err := nameOf(token)
	if err != nil || !strings.EqualFold(name, session.User) {
		return execute.Prepared{}, unusable(session.User, fmt.Errorf("session %d is of %q (%v)", session.Number, name, err))
	}
	prepared := execute.Prepared{Executor: name, Logon: &supervise.Logon{Session: session.Number, Visible: interactive}}
	if interactive {
		_, hidden := session.Desktop("")
		prepared.Note = notSeen(hidden)
	}
	prepared.Env, err = environment(token, name)
	return prepared, err
}

// asSelf is for an agent that a user has started, as in a trial.
func asSelf(own windows.Token, sid *windows.SID, session logon.Session) (execute.Prepared, error) {
	account, domain, _, err := sid.LookupAccount("")
	if err != nil {
		return execute.Prepared{}, fmt.Errorf("find the agent's own user: %w", err)
	}
	name := domain + `\` + account
	if !strings.EqualFold(name, session.User) {
		return execute.Prepared{}, unprivileged(session.User, name)
	}
	prepared := execute.Prepared{Executor: name, Note: fmt.Sprintf("the agent does not run as SYSTEM, but as %s itself: the program has the agent's own rights", name)}
	prepared.Env, err = environment(own, name)
	return prepared, err
}

func nameOf(token windows.Token) (string, error) {
	who, err := token.GetTokenUser()
	if err != nil {
		return "", err
	}
	account, domain, _, err := who.User.Sid.LookupAccount("")
	if err != nil {
		return "", err
	}
	return domain + `\` + account, nil
}

// environment is what the system and the user's profile define, as for a new logon. The profile is loaded for as long as
// the user is logged on.
func environment(token windows.Token, name string) ([]string, error) {
	env, err := token.Environ(false)
	if err != nil {
		return nil, fmt.Errorf("make the environment of %s: %w", name, err)
	}
	home, err := token.GetUserProfileDirectory()
	if err != nil {
		return nil, checkHome(name, "the user's profile", "is not known: "+err.Error())
	}
	if info, err := os.Stat(home); err != nil || !info.IsDir() {
		return nil, checkHome(name, home, "is not a directory")
	}
	return env, nil
}
