package smbsource

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudsoda/go-smb2"

	"chandler/agent/source"
)

// session is one logon at one server, or an attempt at it. The library's own contexts are never cancelled, because a request
// that is given up while it is sent spoils the connection: what is to end ends by closing the connection, which ends
// every request of the session.
type session struct {
	key      string
	patience time.Duration
	ready    chan struct{} // closed when smb or err is set
	smb      *smb2.Session
	err      error
	stop     context.CancelCauseFunc // ends the connection
	conn     *guard
	requests atomic.Int64 // that are under way

	mounting sync.Mutex // held while a share is connected
	mounts   map[string]*smb2.Share

	// Kept by Source.mu:
	users  int
	linger *time.Timer // nil unless users is 0
	parted bool        // no longer in the pool
}

// acquire finds a session or logs on. Whoever gets one gives it back by release.
func (s *Source) acquire(ctx context.Context, t target, who proof) (*session, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		who.wipe()
		return nil, fmt.Errorf("source: %w", errClosed)
	}
	ses := s.sessions[who.key]
	if ses != nil && (ses.dead() || who.anew) {
		s.forget(ses)
		if ses.users == 0 {
			ses.end(errClosed)
		}
		ses = nil
	}
	if ses == nil {
		life, stop := context.WithCancelCause(context.Background())
		ses = &session{key: who.key, patience: s.patience, ready: make(chan struct{}), stop: stop, mounts: map[string]*smb2.Share{}}
		s.sessions[who.key] = ses
		go func() {
			s.logon(life, ses, t, who)
			close(ses.ready)
		}()
	} else {
		who.wipe()
	}
	ses.users++
	if ses.linger != nil {
		ses.linger.Stop()
		ses.linger = nil
		s.idle--
	}
	s.mu.Unlock()

	select {
	case <-ses.ready:
		if ses.err != nil {
			s.release(ses)
			return nil, ses.err
		}
		return ses, nil
	case <-ctx.Done():
		s.release(ses)
		return nil, context.Cause(ctx)
	}
}

// release gives back what acquire gave. A session that nobody uses lingers, unless it is of no use: not logged on, broken, or
// with a request that nobody waits for any more.
func (s *Source) release(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses.users--
	if ses.users > 0 {
		return
	}
	if ses.parted || ses.dead() || ses.requests.Load() > 0 || s.idle >= maxIdle {
		s.forget(ses)
		ses.end(errClosed)
		return
	}
	s.idle++
	ses.linger = time.AfterFunc(s.linger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if ses.users == 0 && !ses.parted {
			s.forget(ses)
			ses.end(errClosed)
		}
	})
}

// forget takes a session out of the pool. Its users go on with it.
func (s *Source) forget(ses *session) {
	if ses.linger != nil {
		ses.linger.Stop()
		ses.linger = nil
		s.idle--
	}
	if s.sessions[ses.key] == ses {
		delete(s.sessions, ses.key)
	}
	ses.parted = true
}

// dead says that a session is of no use for another opening. One that still logs on is of use while somebody waits for it.
func (ses *session) dead() bool {
	select {
	case <-ses.ready:
		return ses.err != nil || ses.conn.failed() != nil
	default:
		return ses.users == 0
	}
}

// end closes the connection, and with it fails every request of the session.
func (ses *session) end(why error) { ses.stop(why) }

// do makes requests of the library, which block until they are answered or the server has been silent for too long. Whatever
// a server sends, it cannot end the process.
func (ses *session) do(requests func() error) error {
	ses.requests.Add(1)
	defer ses.requests.Add(-1)
	defer ses.conn.watch(ses.patience, ses.end)()
	if err := guarded(requests); err != nil {
		return ses.answer(err)
	}
	return nil
}

// guarded turns a panic over malformed answers into an error.
func guarded(requests func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &smb2.InvalidResponseError{Message: fmt.Sprint(p)}
		}
	}()
	return requests()
}

// open opens what lies at the target's path.
func (ses *session) open(t target) (*object, error) {
	o := &object{session: ses, target: t}
	err := ses.do(func() error {
		share, err := ses.mount(t)
		if err != nil {
			return err
		}
		o.share = share
		return o.open()
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// mount connects a share once in a session.
func (ses *session) mount(t target) (*smb2.Share, error) {
	ses.mounting.Lock()
	defer ses.mounting.Unlock()
	if share := ses.mounts[t.share]; share != nil {
		return share, nil
	}
	share, err := ses.smb.Mount(`\\` + t.host + `\` + t.share)
	if err != nil {
		return nil, &shareError{err}
	}
	ses.mounts[t.share] = share
	return share, nil
}

// shareError is a share's refusal, as opposed to a file's.
type shareError struct{ err error }

func (e *shareError) Error() string { return "connect share: " + e.err.Error() }
func (e *shareError) Unwrap() error { return e.err }

var _ source.Source = (*Source)(nil)

// endSole ends a session that has one user, who has closed what was open.
func (s *Source) endSole(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses.users == 1 {
		s.forget(ses)
		ses.end(errClosed)
	}
}
