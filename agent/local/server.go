package local

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Options of Listen. All but Log are required.
type Options struct {
	Path  string // of the socket
	List  func(Caller) []Item
	Start func(ctx context.Context, c Caller, name string) (words string, err error) // a *Refused is told to the user, nothing else
	Log   *slog.Logger
	Clock func() time.Time
}

// Bounds of what is served.
const (
	maxCalls        = 16 // at once
	maxCallsOfUser  = 4
	maxCallsPerMin  = 60 // of one user
	requestLimit    = 10 * time.Second
	answerLimit     = 20 * time.Second
	acceptPause     = 100 * time.Millisecond
	maxUsersCounted = 1024
)

// Server answers local users.
type Server struct {
	Options
	listener net.Listener

	mu     sync.Mutex
	users  map[string]*usage
	minute time.Time // that the counts are of
}

type usage struct{ now, inMinute int }

// Listen takes the socket. It fails where another agent answers on it.
func Listen(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	listener, err := listen(o.Path)
	if err != nil {
		return nil, fmt.Errorf("listen to local users: %w", err)
	}
	return &Server{Options: o, listener: listener, users: map[string]*usage{}}, nil
}

// Serve answers until ctx ends, and returns when nothing is under way any more.
func (s *Server) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.listener.Close() })()
	defer s.listener.Close()
	var calls sync.WaitGroup
	defer calls.Wait()
	places := make(chan struct{}, maxCalls)
	for {
		conn, err := s.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("listen to local users: %w", err)
		case err != nil: // no file descriptors left, for a while
			s.Log.WarnContext(ctx, "a local user's call cannot be taken", "component", "local", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		caller, err := peer(conn)
		if err != nil {
			s.Log.WarnContext(ctx, "who calls cannot be found out", "component", "local", "error", err)
			conn.Close()
			continue
		}
		// Counted before it takes a place: one user cannot keep the others out.
		if !s.enter(caller.id) {
			conn.Close()
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			s.leave(caller.id)
			conn.Close()
			continue
		}
		calls.Go(func() {
			defer func() { <-places }()
			defer s.leave(caller.id)
			s.serve(ctx, conn, caller)
		})
	}
}

// enter counts a call of a user, and says whether it is within bounds.
func (s *Server) enter(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.Clock(); now.Sub(s.minute) >= time.Minute || now.Before(s.minute) {
		s.minute = now
		for id, u := range s.users {
			if u.inMinute = 0; u.now == 0 {
				delete(s.users, id)
			}
		}
	}
	u := s.users[user]
	if u == nil {
		if len(s.users) >= maxUsersCounted {
			return false
		}
		u = &usage{}
		s.users[user] = u
	}
	if u.now >= maxCallsOfUser || u.inMinute >= maxCallsPerMin {
		return false
	}
	u.now++
	u.inMinute++
	return true
}

func (s *Server) leave(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[user].now--
}

func (s *Server) serve(ctx context.Context, conn net.Conn, caller Caller) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetReadDeadline(time.Now().Add(requestLimit))
	line, err := bufio.NewReader(io.LimitReader(conn, maxRequest+1)).ReadSlice('\n')
	if err != nil {
		return // it said too much, or nothing in time
	}
	r, err := parseRequest(line)
	a := answer{Refusal: "the request is not understood"}
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, answerLimit)
		defer cancel()
		a = s.answer(limited, caller, r)
	}
	data, err := json.Marshal(a)
	if err == nil && len(data) > maxAnswer {
		data, err = json.Marshal(answer{Refusal: "there is more than can be listed"})
	}
	if err != nil {
		s.Log.WarnContext(ctx, "answer to a local user not written", "component", "local", "error", err)
		return
	}
	conn.SetWriteDeadline(time.Now().Add(requestLimit))
	conn.Write(append(data, '\n')) // a user who does not listen any more is nobody's fault
}

func (s *Server) answer(ctx context.Context, caller Caller, r request) answer {
	if r.Verb == verbList {
		return answer{Items: s.List(caller)}
	}
	words, err := s.Start(ctx, caller, r.Name)
	refused, ok := errors.AsType[*Refused](err)
	switch {
	case ok:
		s.Log.InfoContext(ctx, "local user's start refused", "component", "local", "user", caller.Name, "name", r.Name, "why", refused.Why)
		return answer{Refusal: refused.Why}
	case err != nil:
		s.Log.WarnContext(ctx, "local user's start not done", "component", "local", "user", caller.Name, "name", r.Name, "error", err)
		return answer{Refusal: "the agent could not do it now; its log says why"}
	}
	s.Log.InfoContext(ctx, "started by a local user", "component", "local", "user", caller.Name, "name", r.Name)
	return answer{Words: words}
}
