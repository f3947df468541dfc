package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"chandler/agent/source"
	"chandler/events"
)

func (s Server) whole(t *testing.T, files map[string][]byte) {
	v := s.serve(t, files, None)
	for name, data := range files {
		o := s.open(t, v, name)
		if i := o.Info(); i.Name != path.Base(name) || i.Folder || i.Size != int64(len(data)) && i.Size != -1 {
			t.Errorf("%s of %d bytes is said to be %+v", name, len(data), i)
		}
		wantBytes(t, o, data)
	}
}

func (s Server) offsets(t *testing.T, files map[string][]byte) {
	o, data := s.open(t, s.serve(t, files, None), large), files[large]
	for _, c := range []struct{ offset, length int }{
		{0, 1}, {1, 10}, {events.BlockSize - 1, 2}, {events.BlockSize, len(data) - events.BlockSize}, {len(data) - 1, 1}, {7, 0}, {3, len(data) - 3},
	} {
		p := make([]byte, c.length)
		n, err := o.ReadAt(t.Context(), p, int64(c.offset))
		if n != c.length || err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], data[c.offset:c.offset+c.length]) {
			t.Errorf("%d bytes at %d: read %d: %v", c.length, c.offset, n, err)
		}
	}
	p := make([]byte, 100)
	if n, err := o.ReadAt(t.Context(), p, int64(len(data)-40)); n != 40 || !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], data[len(data)-40:]) {
		t.Errorf("at the end: read %d: %v", n, err)
	}
	for _, beyond := range []int{len(data), len(data) + 1000} {
		if n, err := o.ReadAt(t.Context(), p, int64(beyond)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("at %d of %d: read %d: %v", beyond, len(data), n, err)
		}
	}
	if n, err := o.ReadAt(t.Context(), p, -1); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("before the beginning: read %d: %v", n, err)
	}
	got, err := read(t.Context(), o, events.BlockSize+5)
	if err != nil || !bytes.Equal(got, data[events.BlockSize+5:]) {
		t.Errorf("from the middle on: %d bytes: %v", len(got), err)
	}
}

func (s Server) concurrent(t *testing.T, files map[string][]byte) {
	v, data := s.serve(t, files, None), files[large]
	objects := []source.Object{s.open(t, v, large), s.open(t, v, large)}
	const piece = 100_003
	var all sync.WaitGroup
	for at := 0; at < len(data); at += piece {
		all.Go(func() {
			want := data[at:min(at+piece, len(data))]
			got := make([]byte, len(want))
			n, err := objects[at%len(objects)].ReadAt(t.Context(), got, int64(at))
			if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], want) {
				t.Errorf("at %d: %d bytes of %d: %v", at, n, len(want), err)
			}
		})
	}
	all.Wait()
}

func (s Server) folders(t *testing.T, files map[string][]byte) {
	if !s.Folders {
		t.Skip("this kind of source has no folders")
	}
	v := s.serve(t, files, None)
	for folder, want := range map[string][]string{"": {"software/"}, "software": {"My App/", "empty 0", fmt.Sprint("setup.bin ", len(files[large]))}, path.Dir(odd): {path.Base(odd) + " 1"}} {
		o := s.open(t, v, folder)
		if !o.Info().Folder {
			t.Errorf("%q is said to be no folder", folder)
		}
		entries, err := o.List(t.Context())
		var got []string
		for _, e := range entries {
			if e.Folder {
				got = append(got, e.Name+"/")
			} else {
				got = append(got, fmt.Sprint(e.Name, " ", e.Size))
			}
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q holds %q, want %q: %v", folder, got, want, err)
		}
		if n, err := o.ReadAt(t.Context(), make([]byte, 1), 0); n != 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a folder reads as %d bytes: %v", n, err)
		}
	}
	if entries, err := s.open(t, v, large).List(t.Context()); err == nil {
		t.Errorf("a file is a folder of %v", entries)
	}
}

// changes: whoever reads a file that becomes another gets the one that was opened, or learns that it is gone.
func (s Server) changes(t *testing.T, files map[string][]byte) {
	for _, fault := range []Fault{Changed, Shortened, Replaced} {
		t.Run(string(fault), func(t *testing.T) {
			v, data := s.serve(t, files, fault), files[large]
			o := s.open(t, v, large)
			got := make([]byte, len(data)/2)
			if n, err := o.ReadAt(t.Context(), got, 0); n != len(got) || err != nil {
				t.Fatalf("the first half: %d bytes: %v", n, err)
			}
			v.Change()
			rest, err := read(t.Context(), o, int64(len(got)))
			v.clean(t, err)
			if err == nil && bytes.Equal(append(got, rest...), data) {
				return // the source holds on to the file that it opened
			}
			wantReason(t, err, events.ContentChanged)
		})
	}
}

func (s Server) cut(t *testing.T, files map[string][]byte) {
	v, data := s.serve(t, files, Cut), files[large]
	var got []byte
	for opened := 1; ; opened++ {
		o := s.open(t, v, large)
		more, err := read(t.Context(), o, int64(len(got)))
		got = append(got, more...)
		if !bytes.HasPrefix(data, got) {
			t.Fatal("the bytes before the error are wrong")
		}
		if err == nil {
			break
		}
		v.clean(t, err)
		wantReason(t, err, events.SourceUnreachable)
		if opened == 3 {
			t.Fatalf("%d of %d bytes after %d openings: %v", len(got), len(data), opened, err)
		}
	}
	if len(got) != len(data) {
		t.Errorf("%d bytes of %d and no error", len(got), len(data))
	}
}

func (s Server) silence(t *testing.T, files map[string][]byte) {
	t.Run("while it opens", func(t *testing.T) {
		v := s.serve(t, files, Mute)
		within(t, "opening", func() {
			_, err := s.tryOpen(t, t.Context(), v, large)
			wantReason(t, err, events.SourceUnreachable)
		})
	})
	t.Run("while it reads", func(t *testing.T) {
		v := s.serve(t, files, Silent)
		within(t, "reading", func() {
			o, err := s.tryOpen(t, t.Context(), v, large)
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			got, err := read(t.Context(), o, 0)
			v.clean(t, err)
			wantReason(t, err, events.SourceUnreachable)
			if !bytes.HasPrefix(files[large], got) {
				t.Error("the bytes before the error are wrong")
			}
		})
	})
}

func (s Server) cancelled(t *testing.T, files map[string][]byte) {
	t.Run("opening", func(t *testing.T) {
		v := s.serve(t, files, Mute)
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		within(t, "opening", func() {
			if _, err := s.tryOpen(t, ctx, v, large); !errors.Is(err, context.Canceled) {
				t.Errorf("error: %v", err)
			}
		})
	})
	t.Run("reading", func(t *testing.T) {
		v := s.serve(t, files, Silent)
		o := s.open(t, v, large)
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := o.ReadAt(ctx, make([]byte, 1), 0); err != nil {
			t.Fatal(err)
		}
		go cancel()
		within(t, "reading", func() {
			_, err := read(ctx, o, 0)
			v.clean(t, err)
			if !errors.Is(err, context.Canceled) || strings.Contains(fmt.Sprint(err), string(events.ContentChanged)) {
				t.Errorf("error: %v", err)
			}
		})
	})
}
