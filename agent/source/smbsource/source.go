package smbsource

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// Options of a Source. The zero value is what agents use.
type Options struct {
	Patience time.Duration // how long a server may say nothing; 30 s
	Linger   time.Duration // how long a session is kept in which nothing is open; 5 s
	// Dial connects; nil: as the system does.
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	Kerberos Kerberos
}

// Source opens files and folders of shares. It is safe for concurrent use.
type Source struct {
	patience time.Duration
	linger   time.Duration
	connect  func(ctx context.Context, network, address string) (net.Conn, error)
	kerberos Kerberos
	blind    [32]byte // keys the digests by which sessions are found

	mu       sync.Mutex
	sessions map[string]*session // those that may be used again, and those that are logging on
	idle     int
	closed   bool
}

// maxIdle sessions are kept for later openings.
const maxIdle = 8

// New makes a source without sessions.
func New(o Options) *Source {
	s := &Source{patience: o.Patience, linger: o.Linger, connect: o.Dial, kerberos: o.Kerberos, sessions: map[string]*session{}}
	if s.patience <= 0 {
		s.patience = 30 * time.Second
	}
	if s.linger <= 0 {
		s.linger = 5 * time.Second
	}
	if s.connect == nil {
		s.connect = (&net.Dialer{}).DialContext
	}
	_, _ = rand.Read(s.blind[:]) // never fails
	return s
}

// target is an address taken apart.
type target struct {
	host  string // without a port
	at    string // host and port
	share string
	path  string // below the share, with /; "" is the share itself
}

// pipes is the share of named pipes, which are no files.
const pipes = "IPC$"

func parse(address string) (target, error) {
	r, err := resource.Parse(address)
	if err != nil || r.Scheme != resource.SMB {
		return target{}, &source.Error{Reason: events.SourceUnsupported, Answer: "not the address of a share", Err: err}
	}
	u := url.URL{Host: r.Host}
	port := u.Port()
	if port == "" {
		port = "445"
	}
	t := target{host: u.Hostname(), at: net.JoinHostPort(u.Hostname(), port)}
	t.share, t.path = r.Share()
	switch {
	case strings.EqualFold(t.share, pipes):
		return target{}, &source.Error{Reason: events.SourceUnsupported, Answer: "a share of named pipes holds no files"}
	case strings.ContainsAny(t.share+t.path, `:*?"<>|`): // a colon would name a stream beside the file
		return target{}, &source.Error{Reason: events.SourceNotFound, Answer: source.Answer("no file can have such a name", invalidName)}
	}
	return t, nil
}

// Open opens a file or folder. It logs on at most once.
func (s *Source) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	t, err := parse(address)
	if err != nil {
		return nil, err
	}
	who, err := s.proof(t, login)
	if err != nil {
		return nil, err
	}
	who.anew = login.Anew
	ses, err := s.acquire(ctx, t, who)
	if err != nil {
		return nil, unless(ctx, err)
	}
	o, err := await(ctx, func() (*object, error) {
		o, err := ses.open(t)
		if err != nil {
			s.release(ses)
			return nil, err
		}
		o.source = s
		return o, nil
	}, func(o *object) { o.Close() }) // what is opened too late is closed again
	if err != nil {
		return nil, err
	}
	return o, nil
}

// await waits for requests as long as the context lasts. What comes later is given to late, which may be nil.
func await[T any](ctx context.Context, requests func() (T, error), late func(T)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := requests()
		done <- answer{value, err}
	}()
	select {
	case got := <-done:
		return got.value, got.err
	case <-ctx.Done():
		if late != nil {
			go func() {
				if got := <-done; got.err == nil {
					late(got.value)
				}
			}()
		}
		var none T
		return none, context.Cause(ctx)
	}
}

// unless replaces an error by the context's, where that is why.
func unless(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// errClosed is what a closed source answers.
var errClosed = errors.New("closed")

// CloseIdle ends the sessions in which nothing is open.
func (s *Source) CloseIdle() { s.end(func(ses *session) bool { return ses.users == 0 }) }

// Close ends all sessions. What is open fails, and so does every later opening.
func (s *Source) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end(func(*session) bool { return true })
	return nil
}

func (s *Source) end(which func(*session) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.sessions {
		if which(ses) {
			s.forget(ses)
			ses.end(fmt.Errorf("source: %w", errClosed))
		}
	}
}
