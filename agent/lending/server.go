package lending

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"chandler/agent/source"
	"chandler/events"
)

// maxCallers are served at a time; further ones wait.
const maxCallers = 32

// Options of Listen.
type Options struct {
	// Path of the socket, absolute, in a directory that is this user's alone.
	Path string
	// Supervisor gives the process that watches over the run in dir now; an error where none does. It must know the
	// process from a later one of the same id (supervise.Run.Supervisor does).
	Supervisor func(dir string) (pid int, err error)
	// Lend gives the account that reads an address for the run in dir. A *source.Error says why there is none, and the
	// Loan then who was to read; any other error is told as credential_unavailable. The server clears the loan.
	Lend func(ctx context.Context, dir, address string) (Loan, error)
	Log  *slog.Logger // nil: slog.Default()
}

// Server answers the supervisors of this machine.
type Server struct {
	Options
	listener *net.UnixListener
	own      int // user id
}

// Listen takes the place of a socket that an earlier agent left there.
func Listen(o Options) (*Server, error) {
	if !filepath.IsAbs(o.Path) || o.Supervisor == nil || o.Lend == nil {
		return nil, fmt.Errorf("lending: socket %q is not absolute, or there is nobody to ask", o.Path)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if err := supported(); err != nil {
		return nil, fmt.Errorf("lending: %w", err)
	}
	dir, err := os.Stat(filepath.Dir(o.Path))
	if err != nil {
		return nil, fmt.Errorf("lending: %w", err)
	}
	if dir.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("lending: %s is open to other users", filepath.Dir(o.Path))
	}
	if old, err := os.Lstat(o.Path); err == nil && old.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("lending: %s is not a socket", o.Path)
	}
	if err := os.Remove(o.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lending: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: o.Path})
	if err != nil {
		return nil, fmt.Errorf("lending: %w", err)
	}
	if err := os.Chmod(o.Path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("lending: %w", err)
	}
	return &Server{Options: o, listener: listener, own: os.Geteuid()}, nil
}

// Serve answers until ctx ends, and returns when nothing is under way any more.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	defer s.listener.Close()
	var calls sync.WaitGroup
	defer calls.Wait()
	places := make(chan struct{}, maxCallers)
	for {
		conn, err := s.listener.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("lending: %w", err)
		}
		if err != nil { // no file descriptors left, for a while
			s.Log.Warn("a supervisor's call cannot be taken", "component", "lending", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(redialPause):
			}
			continue
		}
		places <- struct{}{}
		calls.Go(func() {
			defer func() { <-places }()
			s.serve(ctx, conn)
		})
	}
}

func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	uid, pid, err := peer(conn)
	if err != nil || uid != s.own {
		s.Log.Warn("a call that is not a supervisor's is refused", "component", "lending", "pid", pid, "uid", uid, "error", err)
		return
	}
	conn.SetDeadline(time.Now().Add(frameLimit))
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	body, err := readFrame(conn)
	if err != nil {
		s.Log.Warn("a call is not understood", "component", "lending", "pid", pid, "error", err)
		return
	}
	asked, err := parseRequest(body)
	if err != nil {
		s.Log.Warn("a call is not understood", "component", "lending", "pid", pid, "error", err)
		return
	}
	holder, err := s.Supervisor(asked.dir)
	if err != nil || holder != pid {
		s.Log.Warn("a call that is not a supervisor's is refused", "component", "lending", "pid", pid, "uid", uid, "dir", asked.dir, "error", err)
		s.reply(conn, asked, answer{refusal: &source.Error{Reason: events.CredentialDenied, Answer: "the caller does not watch over this run, or the run is over"}})
		return
	}
	lendCtx, cancel := context.WithTimeout(ctx, lendLimit)
	defer cancel()
	loan, err := s.Lend(lendCtx, asked.dir, asked.address)
	defer loan.Clear()
	if ctx.Err() == nil { // else the next agent is asked again
		s.reply(conn, asked, answer{loan: loan, refusal: refusalOf(err)})
	}
}

func (s *Server) reply(conn *net.UnixConn, asked request, given answer) {
	data := given.encode()
	defer clear(data)
	if len(data) > maxFrame {
		given.refusal = &source.Error{Reason: events.CredentialUnavailable, Answer: "the secret is too large"}
		data = given.encode()
	}
	conn.SetDeadline(time.Now().Add(frameLimit))
	if _, err := conn.Write(data); err != nil {
		s.Log.Warn("a supervisor did not hear its answer", "component", "lending", "dir", asked.dir, "error", err)
	}
}

const maxAnswer = 1 << 10 // bytes of words

func refusalOf(err error) *source.Error {
	if err == nil {
		return nil
	}
	refusal, ok := errors.AsType[*source.Error](err)
	if !ok {
		return &source.Error{Reason: events.CredentialUnavailable, Answer: "the credential service gave no account", Err: err}
	}
	if len(refusal.Answer) > maxAnswer {
		refusal = &source.Error{Reason: refusal.Reason, Answer: strings.ToValidUTF8(refusal.Answer[:maxAnswer], ""), Err: err}
	}
	return refusal
}
