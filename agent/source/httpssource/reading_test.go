package httpssource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chandler/agent/source"
	"chandler/agent/source/sourcetest"
	"chandler/events"
)

var reader = source.Login{User: user, Method: events.ByPassword, Secret: []byte(secret)}

// pages is a server whose every address is the handler's.
func pages(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	s := quiet(httptest.NewUnstartedServer(handler))
	s.StartTLS()
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return s
}

func wantReason(t *testing.T, err error, reason events.Reason, words string) {
	t.Helper()
	e, ok := errors.AsType[*source.Error](err)
	if !ok || e.Reason != reason || !strings.Contains(e.Answer, words) {
		t.Errorf("error %v, want %s with %q", err, reason, words)
	}
	if strings.Contains(fmt.Sprintf("%v %+v", err, errors.Unwrap(err)), secret) {
		t.Error("the secret is in the error")
	}
}

func TestReadingOnIsOneRequest(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	s := newSite(t, map[string][]byte{"x": data}, sourcetest.None)
	o, err := open(t, s.URL+"/pub/x", reader, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(at{o}, 0, o.Info().Size))
	if err != nil || !bytes.Equal(got, data) || s.requests.Load() != 1 {
		t.Errorf("%d bytes in %d requests: %v", len(got), s.requests.Load(), err)
	}
	// From the middle on it is two: a small one, in case nobody reads on, and the rest.
	got, err = io.ReadAll(io.NewSectionReader(at{o}, 1000, o.Info().Size))
	if err != nil || !bytes.Equal(got, data[1000:]) || s.requests.Load() != 3 {
		t.Errorf("%d bytes after %d requests: %v", len(got), s.requests.Load(), err)
	}
	if !o.Info().Modified.Equal(time.Unix(1e9, 0)) || o.Info().Name != "x" {
		t.Errorf("said to be %+v", o.Info())
	}
}

// at is an io.ReaderAt without a context.
type at struct{ source.Object }

func (a at) ReadAt(p []byte, offset int64) (int, error) {
	return a.Object.ReadAt(context.Background(), p, offset)
}

func TestASecretThatIsRefusedWhileReadingIsNotSentAgain(t *testing.T) {
	var asked atomic.Int32
	s := pages(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.ServeContent(w, r, "x.bin", time.Unix(1e9, 0), strings.NewReader(strings.Repeat("x", 1<<20)))
	})
	o, err := open(t, s.URL+"/x", reader, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := o.ReadAt(t.Context(), make([]byte, 10), 1<<19)
		wantReason(t, err, events.CredentialRejected, "http 401 unauthorized (1326/")
	}
	if asked.Load() != 2 {
		t.Errorf("%d requests", asked.Load())
	}
}

func TestAnotherFileIsNoticedByWhateverTheServerSays(t *testing.T) {
	for name, c := range map[string]struct {
		head func(h http.Header, now bool)
		size int // of the file afterwards; it was 1<<20
	}{
		"a strong tag":       {func(h http.Header, now bool) { h.Set("ETag", fmt.Sprintf(`"%v"`, now)) }, 1 << 20},
		"a weak tag":         {func(h http.Header, now bool) { h.Set("ETag", fmt.Sprintf(`W/"%v"`, now)) }, 1 << 20},
		"a tag that is gone": {func(h http.Header, now bool) { h["Etag"] = map[bool][]string{false: {`W/"x"`}}[now] }, 1 << 20},
		"a date":             {func(h http.Header, now bool) { h.Set("Last-Modified", date(now)) }, 1 << 20},
		"the size":           {func(http.Header, bool) {}, 1<<20 + 1},
		"a shorter file":     {func(http.Header, bool) {}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			var now atomic.Bool
			s := pages(t, func(w http.ResponseWriter, r *http.Request) {
				c.head(w.Header(), now.Load())
				size := 1 << 20
				if now.Load() {
					size = c.size
				}
				http.ServeContent(w, r, "x.bin", time.Time{}, strings.NewReader(strings.Repeat("x", size)))
			})
			o, err := open(t, s.URL+"/x", source.Login{}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			now.Store(true)
			for _, offset := range []int64{1 << 19, 1<<20 - 5} {
				_, err = o.ReadAt(t.Context(), make([]byte, 5), offset)
				wantReason(t, err, events.ContentChanged, "another file")
			}
		})
	}
}

func date(now bool) string {
	at := time.Unix(1e9, 0)
	if now {
		at = at.Add(time.Hour)
	}
	return at.UTC().Format(http.TimeFormat)
}

func TestAServerWithoutRangesIsReadFromTheBeginning(t *testing.T) {
	for name, sized := range map[string]bool{"that says how long the file is": true, "that does not": false} {
		t.Run(name, func(t *testing.T) {
			data := bytes.Repeat([]byte("x"), 300<<10)
			s := pages(t, func(w http.ResponseWriter, _ *http.Request) {
				if sized {
					w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				}
				w.Write(data[:1000])
				http.NewResponseController(w).Flush()
				w.Write(data[1000:])
			})
			o, err := open(t, s.URL+"/x", source.Login{}, Options{})
			if err != nil || (o.Info().Size == -1) == sized {
				t.Fatalf("%+v: %v", o.Info(), err)
			}
			_, err = o.ReadAt(t.Context(), make([]byte, 10), 10)
			wantReason(t, err, events.SourceUnsupported, "from the beginning on")
			for range 2 {
				got, err := io.ReadAll(io.NewSectionReader(at{o}, 0, 1<<40))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes: %v", len(got), err)
				}
			}
			if n, err := o.ReadAt(t.Context(), make([]byte, 10), int64(len(data))); n != 0 || err != io.EOF {
				t.Errorf("at the end: %d, %v", n, err)
			}
		})
	}
}

func TestATransferThatBreaksIsAskedForOnceMore(t *testing.T) {
	data := strings.Repeat("0123456789", 1e5)
	var asked atomic.Int32
	s := pages(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if asked.Add(1); asked.Load() != 2 {
			http.ServeContent(&troubled{ResponseWriter: w, piece: 1e5, before: func(written int) {
				if written > 0 {
					panic(http.ErrAbortHandler)
				}
			}}, r, "x.bin", time.Time{}, strings.NewReader(data))
			return
		}
		http.ServeContent(w, r, "x.bin", time.Time{}, strings.NewReader(data))
	})
	o, err := open(t, s.URL+"/x", source.Login{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, len(data))
	if n, err := o.ReadAt(t.Context(), p, 0); n != len(p) || err != nil || string(p) != data || asked.Load() != 2 {
		t.Errorf("%d bytes, %d requests: %v", n, asked.Load(), err)
	}
	n, err := o.ReadAt(t.Context(), p, 0)
	wantReason(t, err, events.SourceUnreachable, "ended the connection")
	if string(p[:n]) != data[:n] || asked.Load() > 4 {
		t.Errorf("%d bytes, %d requests", n, asked.Load())
	}
}

func TestAnswersThatAreNotWhatWasAskedForAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc // to a request for bytes from the middle
		reason events.Reason
		words  string
	}{
		"bytes from elsewhere": {ranged("bytes 1-10/1048576"), events.SourceUnreachable, "other bytes"},
		"no range":             {ranged(""), events.SourceUnreachable, "other bytes"},
		"nonsense":             {ranged("bytes 524288-x/y"), events.SourceUnreachable, "other bytes"},
		"another length":       {ranged("bytes 524288-524290/1048576"), events.SourceUnreachable, "other bytes"},
		"another size":         {ranged("bytes 524288-524297/1048577"), events.ContentChanged, "another file"},
		"beyond the end":       {ranged("bytes 524288-1048576/1048576"), events.SourceUnreachable, "other bytes"},
		"squeezed":             {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "gzip") }, events.SourceUnsupported, "middle of a file"},
		"a broken precondition": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPreconditionFailed) },
			events.ContentChanged, "another file"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			s := pages(t, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) > 1 {
					c.answer(w, r)
					return
				}
				w.Write(make([]byte, 1<<20))
			})
			// The first answer has no length: the file is larger than what servers keep to count.
			s.Config.Handler = sized(s.Config.Handler, &asked)
			o, err := open(t, s.URL+"/x", source.Login{}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = o.ReadAt(t.Context(), make([]byte, 10), 1<<19)
			wantReason(t, err, c.reason, c.words)
		})
	}
}

func sized(next http.Handler, asked *atomic.Int32) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Load() == 0 {
			w.Header().Set("Content-Length", fmt.Sprint(1<<20))
		}
		next.ServeHTTP(w, r)
	})
}

// ranged answers ten bytes and says that they are those of a range.
func ranged(said string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if said != "" {
			w.Header().Set("Content-Range", said)
		}
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusPartialContent)
		w.Write(make([]byte, 10))
	}
}

func FuzzContentRange(f *testing.F) {
	for _, text := range []string{"bytes 0-9/100", "bytes 0-9/*", "bytes */100", "bytes 9-0/100", "bytes -1-9/100", "bytes 0-9223372036854775807/9223372036854775807", "", "bytes 0-0/0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, last, total, ok := parseContentRange(text)
		if !ok {
			return
		}
		if first < 0 || last < first || last+1 < last || total >= 0 && last >= total {
			t.Errorf("%q is read as %d to %d of %d", text, first, last, total)
		}
	})
}
