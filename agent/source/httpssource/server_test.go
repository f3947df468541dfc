package httpssource

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chandler/agent/source"
	"chandler/agent/source/sourcetest"
	"chandler/events"
)

const (
	testPatience = time.Second
	user, secret = `EXAMPLE\reader`, "hunter2 and more"
)

// site is a server of the web with files, an account that may read them, and one fault.
type site struct {
	*httptest.Server
	fault    sourcetest.Fault
	done     chan struct{} // closed when the test ends
	cut      atomic.Bool
	logons   atomic.Int32
	contacts atomic.Int32
	requests atomic.Int32

	mu    sync.Mutex
	files map[string][]byte
}

func newSite(t *testing.T, files map[string][]byte, fault sourcetest.Fault) *site {
	s := &site{fault: fault, files: map[string][]byte{}, done: make(chan struct{})}
	for name, data := range files {
		s.files["/pub/"+name] = bytes.Clone(data)
	}
	s.Server = quiet(httptest.NewUnstartedServer(s))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.contacts.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(func() { close(s.done) })
	return s
}

// quiet keeps a server from logging the faults that the tests make.
func quiet(s *httptest.Server) *httptest.Server {
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	name, given, ok := r.BasicAuth()
	if ok {
		s.logons.Add(1)
	}
	switch {
	case !ok || name != user || given != secret:
		http.Error(w, "you sent "+given, http.StatusUnauthorized)
		return
	case s.fault == sourcetest.Denied || s.fault == sourcetest.DeniedRoot:
		http.Error(w, "you sent "+given, http.StatusForbidden)
		return
	}
	s.mu.Lock()
	data, ok := s.files[r.URL.Path]
	s.mu.Unlock()
	if !ok || s.fault == sourcetest.NoShare {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(data)))
	if fault := s.faultOf(w, r, data); fault != nil {
		w = fault
	}
	http.ServeContent(w, r, "x.bin", time.Unix(1e9, 0), bytes.NewReader(data))
}

func (s *site) faultOf(w http.ResponseWriter, r *http.Request, data []byte) http.ResponseWriter {
	switch s.fault {
	case sourcetest.Slow:
		pause := time.Tick(testPatience / 5)
		return &troubled{ResponseWriter: w, piece: len(data)/4 + 1, before: func(int) { <-pause }}
	case sourcetest.Silent:
		return &troubled{ResponseWriter: w, piece: len(data)/2 + 1, before: func(written int) {
			if written > 0 {
				select {
				case <-s.done:
				case <-r.Context().Done():
				}
			}
		}}
	case sourcetest.Cut:
		return &troubled{ResponseWriter: w, piece: len(data)/2 + 1, before: func(written int) {
			if written > 0 && !s.cut.Swap(true) {
				panic(http.ErrAbortHandler)
			}
		}}
	}
	return nil
}

// troubled writes in pieces, and does something before each.
type troubled struct {
	http.ResponseWriter
	piece, written int
	before         func(written int)
}

func (w *troubled) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if w.written%w.piece == 0 {
			w.before(w.written)
		}
		got, err := w.ResponseWriter.Write(p[n:min(n+w.piece-w.written%w.piece, len(p))])
		n, w.written = n+got, w.written+got
		if err != nil {
			return n, err
		}
		http.NewResponseController(w.ResponseWriter).Flush()
	}
	return n, nil
}

func (s *site) set(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = data
}

// roots believes the test servers, whose certificates are all the same one.
func roots(t *testing.T) *tls.Config {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return &tls.Config{RootCAs: pool}
}

func TestHTTPSIsASource(t *testing.T) {
	s := New(Options{TLS: roots(t), Patience: testPatience})
	sourcetest.Run(t, sourcetest.Server{Source: s, Settle: s.CloseIdleConnections, Serve: serve})
}

func serve(t *testing.T, files map[string][]byte, fault sourcetest.Fault) (sourcetest.Served, bool) {
	s := newSite(t, files, fault)
	served := sourcetest.Served{
		Root: s.URL + "/pub", Login: source.Login{User: user, Method: events.ByPassword, Secret: []byte(secret)},
		Logons: func() int { return int(s.logons.Load()) }, Contacts: func() int { return int(s.contacts.Load()) },
	}
	const large = "/pub/software/setup.bin"
	old := files["software/setup.bin"]
	switch fault {
	case sourcetest.WrongSecret:
		served.Login.Secret = []byte("wrong " + secret)
	case sourcetest.NoUser:
		served.Login.User = `EXAMPLE\nobody`
	case sourcetest.Disabled, sourcetest.MustChange, sourcetest.Locked, sourcetest.Outdated:
		return served, false // servers of the web say no more than 401
	case sourcetest.Unreachable:
		s.Close()
	case sourcetest.Mute:
		served.Root = "https://" + mute(t) + "/pub"
	case sourcetest.Changed:
		served.Change = func() { s.set(large, bytes.Repeat([]byte{7}, len(old))); s.CloseClientConnections() }
	case sourcetest.Shortened:
		served.Change = func() { s.set(large, old[:len(old)/4]); s.CloseClientConnections() }
	case sourcetest.Replaced:
		served.Change = func() { s.set(large, []byte(strings.Repeat("new", 1e6))); s.CloseClientConnections() }
	}
	return served, true
}

// mute accepts connections and says nothing.
func mute(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return listener.Addr().String()
}

// open reads with the source that believes the test servers.
func open(t *testing.T, address string, login source.Login, o Options) (source.Object, error) {
	t.Helper()
	if o.TLS == nil {
		o.TLS = roots(t)
	}
	o.Patience = testPatience
	s := New(o)
	t.Cleanup(s.CloseIdleConnections)
	object, err := s.Open(t.Context(), address, login)
	if err == nil {
		t.Cleanup(func() { object.Close() })
	}
	return object, err
}

func hostPart(t *testing.T, address string) string {
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
