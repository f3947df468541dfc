//go:build unix

package userrunner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"chandler/agent/account"
	"chandler/agent/execute"
	"chandler/agent/logon"
	"chandler/agent/supervise"
)

const (
	noShell   = "/bin/sh"        // of users whose account names none
	homeLimit = 30 * time.Second // for a file server
)

func (r *Runner) prepare(ctx context.Context, session logon.Session, interactive bool) (execute.Prepared, error) {
	return r.prepareAs(ctx, os.Geteuid(), session, interactive)
}

// prepareAs is for an agent with the rights of the user id own.
func (r *Runner) prepareAs(ctx context.Context, own int, session logon.Session, interactive bool) (execute.Prepared, error) {
	user, err := r.lookup(ctx, session.User)
	if err == nil && user.UID != session.UID {
		err = fmt.Errorf("the session is uid %d's, and the user database says that %s is %d", session.UID, session.User, user.UID)
	}
	if err != nil {
		if ctx.Err() != nil {
			return execute.Prepared{}, err
		}
		return execute.Prepared{}, unusable(session.User, err)
	}
	prepared := execute.Prepared{Executor: user.Name}
	switch {
	case own == 0:
		prepared.Credential = &supervise.Credential{UID: user.UID, GID: user.GID, Groups: user.Groups}
	case own == int(user.UID):
		prepared.Note = fmt.Sprintf("the agent does not run as root, but as %s itself: the program has the agent's own rights", user.Name)
	default:
		return execute.Prepared{}, unprivileged(user.Name, fmt.Sprintf("uid %d", own))
	}
	why := inTime(ctx, homeLimit, func() string { return whyNoHome(user) })
	if ctx.Err() != nil {
		return execute.Prepared{}, ctx.Err()
	}
	if err := checkHome(user.Name, user.Home, why); err != nil {
		return execute.Prepared{}, err
	}
	prepared.Env = append(loginEnvironment(user), session.Environment()...)
	if interactive {
		env, hidden := session.Desktop(user.Home)
		prepared.Env = append(prepared.Env, env...)
		prepared.Note = join(prepared.Note, notSeen(hidden))
	}
	return prepared, nil
}

// whyNoHome is "" for a directory that is the user's. One that not even the agent may look at, as on a file server that
// knows no root, is left to the user's program.
func whyNoHome(user account.Account) string {
	if !filepath.IsAbs(user.Home) {
		return "is not an absolute path"
	}
	info, err := os.Stat(user.Home)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return "does not exist"
	case err != nil:
		return "cannot be looked at: " + err.Error()
	case !info.IsDir():
		return "is not a directory"
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != user.UID {
		return fmt.Sprintf("belongs to uid %d", stat.Uid)
	}
	return ""
}

// inTime leaves behind a look at a directory whose file server does not answer: the kernel lets nobody interrupt it.
func inTime(ctx context.Context, limit time.Duration, look func() string) string {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	seen := make(chan string, 1)
	go func() { seen <- look() }()
	select {
	case why := <-seen:
		return why
	case <-ctx.Done():
		return "does not answer"
	}
}

// loginEnvironment is what a login gives, without what the user's own profile adds.
func loginEnvironment(user account.Account) []string {
	shell := user.Shell
	if shell == "" {
		shell = noShell
	}
	return append(locale(),
		"PATH="+standardPath,
		"HOME="+user.Home,
		"USER="+user.Name,
		"LOGNAME="+user.Name,
		"SHELL="+shell,
	)
}
