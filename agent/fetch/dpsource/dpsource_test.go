package dpsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"chandler/agent/fetch"
	"chandler/agent/fetch/sourcetest"
	"chandler/events"
)

const testIdle = 300 * time.Millisecond

func TestConformance(t *testing.T) {
	sourcetest.Run(t, sourcetest.Server{Source: New(Options{Idle: testIdle}), Scheme: "http", Serve: serve})
}

// serve is a distribution point with faults.
func serve(t *testing.T, data []byte, fault sourcetest.Fault) (string, bool) {
	digest := events.DigestOf(data)
	over := make(chan struct{})
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+digest+`"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		content := data
		switch fault {
		case sourcetest.Missing:
			http.Error(w, "no such blob", http.StatusNotFound)
			return
		case sourcetest.Expired:
			http.Error(w, "the address has expired", http.StatusForbidden)
			return
		case sourcetest.Down:
			http.Error(w, "later", http.StatusBadGateway)
			return
		case sourcetest.NoOffsets:
			r.Header.Del("Range")
		case sourcetest.Altered:
			content = bytes.Clone(data)
			content[len(content)-1] ^= 1
		case sourcetest.TooShort:
			content = data[:len(data)-1]
		case sourcetest.TooLong:
			content = append(bytes.Clone(data), 'x')
		case sourcetest.Cut, sourcetest.Silent, sourcetest.Slow:
			w = &faulty{ResponseWriter: w, fault: fault, over: over}
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
	server := httptest.NewServer(http.HandlerFunc(handler))
	t.Cleanup(func() { close(over); server.Close() })
	return server.URL + "/v1/blobs/" + digest + "?signature=" + sourcetest.Secret, true
}

// faulty writes as its fault has it.
type faulty struct {
	http.ResponseWriter
	fault  sourcetest.Fault
	over   chan struct{}
	length int
	sent   int
	pauses int
}

func (f *faulty) WriteHeader(status int) {
	fmt.Sscan(f.Header().Get("Content-Length"), &f.length)
	f.ResponseWriter.WriteHeader(status)
}

func (f *faulty) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	f.sent += n
	http.NewResponseController(f.ResponseWriter).Flush()
	switch {
	case f.fault == sourcetest.Slow && f.pauses < 5:
		f.pauses++
		select {
		case <-time.After(testIdle / 3):
		case <-f.over:
		}
	case f.fault == sourcetest.Cut && f.sent > f.length/2:
		panic(http.ErrAbortHandler)
	case f.fault == sourcetest.Silent && f.sent > f.length/2:
		<-f.over
	}
	return n, err
}

func open(t *testing.T, handler http.HandlerFunc, offset int64) error {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	body, err := New(Options{Idle: testIdle}).Open(t.Context(), fetch.Ref{URL: server.URL + "/x?s=" + sourcetest.Secret, SHA256: events.DigestOf(nil), Size: 10}, offset)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.ReadAll(body)
	return err
}

func TestAnswersThatContradictTheRequestAreRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		reason events.Reason
		handle http.HandlerFunc
	}{
		{"another range", events.ContentMismatch, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 4-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}},
		{"a range of another whole", events.ContentMismatch, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-10/11")
			w.WriteHeader(http.StatusPartialContent)
		}},
		{"a range that ends early", events.ContentMismatch, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-6/10")
			w.WriteHeader(http.StatusPartialContent)
		}},
		{"no range", events.ContentMismatch, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) }},
		{"another blob", events.ContentMismatch, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"other"`)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
		}},
		{"compressed", events.ContentMismatch, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "0123456789")
		}},
		{"redirects without end", events.SourceUnreachable, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }},
		{"no answer", events.SourceUnreachable, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"a name in the way", events.SourceUnreachable, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "proxy", http.StatusProxyAuthRequired) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := open(t, c.handle, 5)
			if e, ok := errors.AsType[*fetch.Error](err); !ok || e.Reason != c.reason || strings.Contains(err.Error(), sourcetest.Secret) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestARedirectNeverLeavesTLS(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "0123456789") }))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	s := New(Options{TLS: secure.Client().Transport.(*http.Transport).TLSClientConfig})
	if _, err := s.Open(t.Context(), fetch.Ref{URL: secure.URL, SHA256: events.DigestOf(nil), Size: 10}, 0); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("error: %v", err)
	}
}

func TestAServerThatIsAwayIsUnreachable(t *testing.T) {
	for _, address := range []string{"http://127.0.0.1:1/x?signature=secret", "http://name.invalid/x?signature=secret", "http://[::1"} {
		_, err := New(Options{Idle: testIdle}).Open(t.Context(), fetch.Ref{URL: address, Size: 1}, 0)
		if e, ok := errors.AsType[*fetch.Error](err); !ok || e.Reason != events.SourceUnreachable && e.Reason != events.SourceUnsupported || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestTimeBetweenReadsDoesNotCount(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 1<<20)
	address, _ := serve(t, data, sourcetest.None)
	body, err := New(Options{Idle: testIdle}).Open(t.Context(), fetch.Ref{URL: address, SHA256: events.DigestOf(data), Size: int64(len(data))}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*testIdle)
	defer cancel()
	<-ctx.Done() // the agent throttles
	if n, err := io.Copy(io.Discard, body); err != nil || n != int64(len(data)) {
		t.Errorf("read %d bytes: %v", n, err)
	}
}
