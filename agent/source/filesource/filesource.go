// Package filesource reads files and folders that this machine has in its own tree (file:///srv/software), such as those
// of a mounted file server, and on Windows those of a share (file://files/software/app, which is \\files\software\app).
//
// A local path is read with the rights of the process and has no network account, so a login is refused. A share is read
// as the process too, or by a login with a password, as which one thread poses while it opens the file (package
// newcredentials); on other systems shares are smb:// addresses. Who is to read as another user, reads by package asuser.
//
// Links are followed as the system does, since a mount may be laid out by them, and since whatever they lead to is read
// with rights that the process has anyway. A folder's list has files, folders, and links to files as what they lead to;
// not links to folders, so that walking a tree ends, nor names that no address can hold. Only files and folders are
// opened: no device, pipe or socket, nor anything that waits for a writer.
//
// # Under failure
//
// A system call on a dead mount cannot be interrupted: it is waited for no longer than the patience, and left behind. At most
// [maxCalls] are under way or left behind at once; more wait, and fail as [events.SourceUnreachable]. A file whose size
// or date becomes another while it is open is [events.ContentChanged].
package filesource

import (
	"context"
	"errors"
	"os"
	"time"

	"chandler/agent/account/newcredentials"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// DefaultPatience is how long a file system may be silent.
const DefaultPatience = 30 * time.Second

// Options of a source. The zero value is right outside tests.
type Options struct {
	Patience time.Duration // 0: DefaultPatience
}

// Source reads file addresses.
type Source struct {
	calls  calls
	system system
}

// New makes a source. It starts nothing.
func New(o Options) *Source {
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	return &Source{calls: calls{patience: o.Patience, slots: make(chan struct{}, maxCalls)}, system: newSystem()}
}

// system is what this package needs of an operating system. Tests stand in for parts of it, because users are make-believe
// under Wine.
type system interface {
	// Local is the name of a local path of an address, and Share that of one on a host. An error is what is wrong with it.
	Local(path string) (name string, err error)
	Share(host, path string) (name string, err error)
	// Open opens a file or folder, and nothing else: errNeither, without having waited for anybody.
	Open(name string) (*os.File, error)
	// Pose makes the calling thread the user of a token on the network, and Revert undoes it.
	Pose(token uint64) error
	Revert() error
}

// errNeither is said of devices, pipes and sockets.
var errNeither = errors.New("is neither a file nor a folder")

// Open opens a file or folder.
func (s *Source) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	where, err := resource.Parse(address)
	if err != nil || where.Scheme != resource.File {
		return nil, unsupported("not a file address")
	}
	if err := s.calls.enter(ctx); err != nil {
		return nil, explain(err)
	}
	open, err := s.opener(where, login)
	if err != nil {
		s.calls.leave()
		return nil, err
	}
	o, err := wait(ctx, &s.calls, func() (*object, error) {
		file, err := open()
		if err != nil {
			return nil, err
		}
		return newObject(file, where, &s.calls)
	}, func(o *object) { o.Close() })
	if err != nil {
		return nil, explain(err)
	}
	return o, nil
}

// opener decides how an address is opened, and by whom. What it gives is to be called.
func (s *Source) opener(where resource.Resource, login source.Login) (func() (*os.File, error), error) {
	if where.Host == "" {
		if !login.Nobody() {
			return nil, unsupported("a local path has no network account: it is read with the agent's own rights, and needs none")
		}
		name, err := s.system.Local(where.Path)
		if err != nil {
			return nil, unsupported(err.Error())
		}
		return func() (*os.File, error) { return s.system.Open(name) }, nil
	}
	name, err := s.system.Share(where.Host, where.Path)
	if err != nil {
		return nil, unsupported(err.Error())
	}
	if login.Nobody() {
		return func() (*os.File, error) { return s.system.Open(name) }, nil
	}
	if err := check(login); err != nil {
		return nil, err
	}
	return posing{s.system, newcredentials.Token}.opener(name, login), nil
}

func unsupported(words string) error {
	return &source.Error{Reason: events.SourceUnsupported, Answer: source.Answer(words, notSupported)}
}
