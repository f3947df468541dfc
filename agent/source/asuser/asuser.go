// Package asuser reads external sources as a user who is logged on: where a user's program is to run, the user reads, and
// what the user may not read is not read.
//
// A Source starts a small process of the user (Main, as `chandler-agent read`), with the user's groups and environment
// as userrunner makes them, and asks it to open, read and list by the sources that Main is given, as nobody in
// particular: with the rights of the user on files and the user's ticket of Kerberos on shares. It lends no account.
//
// # Under failure
//
// What comes from the user's process is taken for what any user's program could say: its lengths are bounded before
// anything is kept, nothing can be said unasked, names and words are cleaned, and a process that says anything else, or
// nothing for longer than the patience, is killed. What it reads is the user's own word; whether the bytes are the right
// ones is for the digest. The process has no way to more rights (no_new_privs) and leaves no core, on Linux; it ends with
// Close, and with its agent, whose end is the end of its input. When it has ended, whatever is open fails as
// [events.SourceUnreachable], and the next opening starts another one.
package asuser

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"sync"
	"time"

	"chandler/agent/execute"
	"chandler/agent/execute/userrunner"
	"chandler/agent/logon"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// DefaultPatience is how long the user's process may be silent while it is asked for something. Its own sources give up
// earlier, and say why.
const DefaultPatience = 2 * time.Minute

// notSupported is ERROR_NOT_SUPPORTED of Windows.
const notSupported source.Code = 50

// Options of a source.
type Options struct {
	// Program is what calls Main: this agent's own binary, absolute, and its arguments. The user must be allowed to
	// execute it.
	Program  []string
	Session  logon.Session  // of the user
	Runner   execute.Runner // gives the user's rights and environment; nil: a userrunner
	Patience time.Duration  // 0: DefaultPatience
}

// Source is a source.Source for every scheme that Main was given. Close it.
type Source struct {
	options Options

	mu     sync.Mutex // held while a process is started
	closed bool
	talk   *conversation // nil before the first opening
}

// New makes a source. It starts nothing.
func New(o Options) (*Source, error) {
	if len(o.Program) == 0 || !filepath.IsAbs(o.Program[0]) {
		return nil, errors.New("read as a user: the program is not an absolute path")
	}
	if o.Session.User == "" {
		return nil, errors.New("read as a user: the session is nobody's")
	}
	if o.Runner == nil {
		o.Runner = userrunner.New(userrunner.Options{})
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	return &Source{options: o}, nil
}

// Open opens an address as the user. A login is refused: the user has its own.
func (s *Source) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	where, err := resource.Parse(address)
	switch {
	case err != nil:
		return nil, refuse(events.SourceUnsupported, "not an address", notSupported)
	case !login.Nobody():
		return nil, refuse(events.SourceUnsupported, "who is logged on reads as themselves, and by no other account", notSupported)
	}
	talk, err := s.conversation(ctx)
	if err != nil {
		return nil, err
	}
	return talk.open(ctx, where.String(), path.Base(where.Path))
}

// conversation is with the process that lives, or with a new one.
func (s *Source) conversation(ctx context.Context) (*conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, &source.Error{Reason: events.OtherReason, Answer: "the reader is closed"}
	}
	if s.talk != nil && s.talk.failure() == nil {
		return s.talk, nil
	}
	session := s.options.Session
	prepared, err := s.options.Runner.Prepare(ctx, execute.Request{Session: &session})
	if err != nil {
		return nil, impossible(err)
	}
	if prepared.Release != nil {
		defer prepared.Release()
	}
	process, err := start(s.options.Program, prepared)
	if err != nil {
		return nil, &source.Error{Reason: events.CouldNotStart, Answer: fmt.Sprintf("the reader of user %s does not start: %v", prepared.Executor, err), Err: err}
	}
	s.talk = converse(process.input, process.output, process.kill, s.options.Patience)
	return s.talk, nil
}

// impossible keeps the reason why nothing runs as the user.
func impossible(err error) error {
	if why, ok := errors.AsType[*execute.Impossible](err); ok {
		return &source.Error{Reason: why.Reason, Answer: why.Answer, Err: err}
	}
	return &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer(err.Error(), source.BadNetworkPath), Err: err}
}

// Close ends the process, and whatever is open with it.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.talk != nil {
		s.talk.end(errClosed)
		<-s.talk.gone
	}
	return nil
}

func refuse(reason events.Reason, words string, code source.Code) error {
	return &source.Error{Reason: reason, Answer: source.Answer(words, code)}
}
