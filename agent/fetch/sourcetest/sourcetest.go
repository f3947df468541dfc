// Package sourcetest says what a source must do, as a test that every source passes.
//
// The source's own test serves blobs the way that its addresses are served (a Server) and calls Run. What
// is checked: whole blobs and offsets, that every fault is an error and not a short blob, that reading ends
// with its context and after silence, that nothing secret is in errors, and that a Fetcher over the source
// delivers right bytes or none.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"chandler/agent/fetch"
	"chandler/events"
)

// Fault is what a server does wrong.
type Fault string

// The faults.
const (
	None      Fault = "none"
	Missing   Fault = "missing"      // it has no such blob
	Expired   Fault = "expired"      // the address is no longer valid
	Cut       Fault = "cut"          // the connection breaks in the middle of what was asked for
	Slow      Fault = "slow"         // bytes come in pieces, with pauses shorter than the source's patience
	Silent    Fault = "silent"       // after half of what was asked for nothing comes and nothing ends
	Altered   Fault = "altered"      // the bytes are others, of the right size
	TooShort  Fault = "too short"    // a blob one byte shorter, and it says so
	TooLong   Fault = "too long"     // a blob one byte longer, and it says so
	NoOffsets Fault = "no offsets"   // it knows no offsets and sends the whole, or says so
	Down      Fault = "out of order" // it answers that it cannot
)

// Server is how a test serves a blob.
type Server struct {
	// Source to be tested, with a patience of at most two seconds.
	Source fetch.Source
	// Scheme of its addresses.
	Scheme string
	// Serve makes the blob available with a fault, until the test ends, and returns its address, with the word
	// "secret" where the address would hold a signature or password. ok is false where the kind of source
	// cannot have the fault.
	Serve func(t *testing.T, data []byte, fault Fault) (address string, ok bool)
}

// Secret is the word that must not appear in errors.
const Secret = "secret"

// Run tests a source.
func Run(t *testing.T, s Server) {
	// More than one block, and no multiple of anything.
	large := random(1, events.BlockSize+events.BlockSize/2+17)
	t.Run("whole blobs arrive as they are", func(t *testing.T) {
		for _, data := range [][]byte{{}, []byte("x"), large} {
			got, err := s.read(t, s.serve(t, data, None), data, 0)
			s.want(t, got, err, data)
		}
	})
	t.Run("reading begins at the offset", func(t *testing.T) {
		for _, offset := range []int{1, events.BlockSize, len(large) - 1} {
			got, err := s.read(t, s.serve(t, large, None), large, int64(offset))
			s.want(t, got, err, large[offset:])
		}
	})
	t.Run("a size that is not known is no obstacle", func(t *testing.T) {
		got, err := s.readRef(t, fetch.Ref{URL: s.serve(t, large, None), SHA256: events.DigestOf(large), Size: -1}, 0)
		s.want(t, got, err, large)
	})
	t.Run("slow is not wrong", func(t *testing.T) {
		got, err := s.read(t, s.serve(t, large, Slow), large, 0)
		s.want(t, got, err, large)
	})
	t.Run("a server without offsets gives the rest or an error", func(t *testing.T) {
		got, err := s.read(t, s.serve(t, large, NoOffsets), large, events.BlockSize)
		if err == nil {
			s.want(t, got, err, large[events.BlockSize:])
		}
		s.clean(t, err)
	})
	t.Run("each fault has its reason", func(t *testing.T) { s.faults(t, large) })
	t.Run("reading ends with its context", func(t *testing.T) { s.cancelled(t, large) })
	t.Run("through a fetcher", func(t *testing.T) { s.fetcher(t, large) })
}

func (s Server) faults(t *testing.T, data []byte) {
	for fault, reason := range map[Fault]events.Reason{
		Missing: events.SourceNotFound, Expired: "", Down: events.SourceUnreachable, Cut: "", Silent: events.SourceUnreachable,
		TooShort: events.ContentMismatch, TooLong: events.ContentMismatch,
	} {
		for _, offset := range []int64{0, 1000} {
			t.Run(string(fault), func(t *testing.T) {
				got, err := s.read(t, s.serve(t, data, fault), data, offset)
				if err == nil {
					t.Fatalf("%d bytes of %d and no error", len(got), len(data))
				}
				s.clean(t, err)
				if !bytes.HasPrefix(data[offset:], got) {
					t.Error("the bytes before the error are wrong")
				}
				e, ok := errors.AsType[*fetch.Error](err)
				switch {
				case fault == Cut:
					// The fetcher says where it was cut.
				case !ok || e.Identity == "" || e.Resource == "":
					t.Errorf("the error tells neither who tried nor what: %v", err)
				case fault == Expired && !errors.Is(err, fetch.ErrExpired):
					t.Errorf("an expired address is not said to be one: %v", err)
				case fault != Expired && e.Reason != reason:
					t.Errorf("reason %s, want %s: %v", e.Reason, reason, err)
				}
			})
		}
	}
}

func (s Server) cancelled(t *testing.T, data []byte) {
	ctx, cancel := context.WithCancel(t.Context())
	body, err := s.Source.Open(ctx, fetch.Ref{URL: s.serve(t, data, Silent), SHA256: events.DigestOf(data), Size: int64(len(data))}, 0)
	if err == nil {
		defer body.Close()
		if _, err := body.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		cancel()
		_, err = io.Copy(io.Discard, body)
	}
	cancel()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}

// fetcher checks what the source is for: right bytes in the end, or none.
func (s Server) fetcher(t *testing.T, data []byte) {
	file := events.File{Path: "a", Size: int64(len(data)), Mode: 0o644, SHA256: events.DigestOf(data)}
	for at := 0; at < len(data); at += events.BlockSize {
		file.Blocks = append(file.Blocks, events.DigestOf(data[at:min(at+events.BlockSize, len(data))]))
	}
	for _, c := range []struct {
		first, second Fault
		reason        events.Reason // none: it succeeds
	}{
		{None, "", ""}, {Cut, None, ""}, {Cut, Cut, ""}, {Altered, None, ""}, {Missing, None, ""}, {Expired, None, ""}, {TooLong, None, ""}, {Down, Cut, ""}, {Silent, None, ""},
		{Altered, "", events.ContentMismatch}, {Missing, "", events.ContentUnavailable}, {Expired, "", events.ContentUnavailable}, {Down, "", events.SourceUnreachable},
		{TooShort, "", events.ContentMismatch},
	} {
		t.Run(string(c.first)+" then "+string(c.second), func(t *testing.T) {
			addresses := []string{s.serve(t, data, c.first)}
			if c.second != "" {
				addresses = append(addresses, s.serve(t, data, c.second))
			}
			f, err := fetch.New(fetch.Options{Dir: t.TempDir(), Sources: map[string]fetch.Source{s.Scheme: s.Source}, Attempts: 2, Pause: time.Millisecond,
				Locate: func(context.Context, []string) (map[string][]string, error) {
					return map[string][]string{file.SHA256: addresses}, nil
				}})
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Fetch(t.Context(), "job", []events.File{file}, fetch.Outside{}, nil)
			s.clean(t, err)
			if c.reason == "" {
				if err != nil || got.Bytes < file.Size || strings.Contains(got.From, Secret) {
					t.Errorf("fetched %+v: %v", got, err)
				}
				return
			}
			if e, ok := errors.AsType[*fetch.Error](err); !ok || e.Reason != c.reason || e.Identity != fetch.Agent && e.Identity == "" {
				t.Errorf("error %v, want %s", err, c.reason)
			}
		})
	}
}

func (s Server) serve(t *testing.T, data []byte, fault Fault) string {
	t.Helper()
	address, ok := s.Serve(t, data, fault)
	if !ok {
		t.Skipf("this kind of source cannot be %s", fault)
	}
	return address
}

func (s Server) read(t *testing.T, address string, data []byte, offset int64) ([]byte, error) {
	t.Helper()
	return s.readRef(t, fetch.Ref{URL: address, SHA256: events.DigestOf(data), Size: int64(len(data))}, offset)
}

func (s Server) readRef(t *testing.T, ref fetch.Ref, offset int64) ([]byte, error) {
	t.Helper()
	body, err := s.Source.Open(t.Context(), ref, offset)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (s Server) want(t *testing.T, got []byte, err error, want []byte) {
	t.Helper()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, want %d: %v", len(got), len(want), err)
	}
}

func (s Server) clean(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), Secret) {
		t.Errorf("the address's secret is in the error: %v", err)
	}
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}
