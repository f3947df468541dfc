package asuser

import (
	"bytes"
	"encoding/json"
	"io"
	"sync"
	"testing"
	"time"

	"chandler/agent/source"
)

// gate gives bytes to read when so many requests were written.
type gate struct {
	wanted int
	open   chan struct{}
	data   io.Reader
}

func (g *gate) Write(p []byte) (int, error) {
	if g.wanted -= bytes.Count(p, []byte("\n")); g.wanted == 0 {
		close(g.open)
	}
	return len(p), nil
}

func (g *gate) Read(p []byte) (int, error) {
	<-g.open
	return g.data.Read(p)
}

func (g *gate) Close() error { return nil }

func FuzzAnswers(f *testing.F) {
	frames := func(list string) []byte {
		var b bytes.Buffer
		writeFrame(&b, head{ID: 1, Info: &entry{Name: "x", Size: 3}}, nil)
		writeFrame(&b, head{ID: 2, End: true}, []byte("abc"))
		writeFrame(&b, head{ID: 3}, []byte(list))
		return b.Bytes()
	}
	f.Add(frames(`[{"name":"a","size":1},{"name":"b","folder":true}]`))
	f.Add(frames(`[{"name":"..","size":1}]`))
	f.Add(frames(`[{"name":"a"},{"name":"a"}]`))
	f.Add(append(frames(`[]`), 0, 0, 0, 2, 0, 0, 0, 0, '{', '}'))
	f.Add([]byte{0, 0, 0, 8, 255, 255, 255, 255, '{', '"', 'i', 'd', '"', ':', '3', '}'})
	f.Fuzz(func(t *testing.T, data []byte) {
		g := &gate{wanted: 3, open: make(chan struct{}), data: bytes.NewReader(data)}
		c := converse(g, g, func() {}, time.Hour)
		var all sync.WaitGroup
		all.Go(func() {
			if o, err := c.open(t.Context(), "smb://files/s/x", "x"); err == nil && (o.Info().Name != "x" || o.Info().Size < -1 || o.Info().Mode.Perm() != o.Info().Mode) {
				t.Errorf("opened %+v", o.Info())
			}
		})
		all.Go(func() {
			_, answer, _ := c.ask(t.Context(), request{Op: opRead, Object: 9, Length: 5}, 5)
			if len(answer.data) > 5 {
				t.Errorf("read %d bytes", len(answer.data))
			}
		})
		all.Go(func() {
			list, _ := (&object{talk: c, id: 9}).List(t.Context())
			for i, e := range list {
				if again, err := entryOf(e).info(); err != nil || again.Name != e.Name || i > 0 && list[i-1].Name >= e.Name {
					t.Errorf("entry %+v: %v", e, err)
				}
			}
		})
		all.Wait()
		<-c.gone
	})
}

func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"id":1,"op":"open","address":"smb://files/s/x"}` + "\n" + `{"id":2,"op":"read","object":1,"length":3}` + "\n" + `{"id":3,"op":"list","object":1}` + "\n" + `{"id":4,"op":"end","object":1}` + "\n"))
	f.Add([]byte(`{"id":1,"op":"open","address":"smb://files/s/wait"}` + "\n" + `{"id":2,"op":"end","object":1}`))
	f.Add([]byte("\n\n{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out := &answers{}
		m := &memory{files: map[string][]byte{"x": []byte("0123456789")}}
		serve(bytes.NewReader(data), out, map[string]source.Source{"smb": m})
		out.mu.Lock()
		defer out.mu.Unlock()
		for from := bytes.NewReader(out.Bytes()); from.Len() > 0; {
			h, data, err := readFrame(from, func(head) (int, error) { return maxList, nil })
			if err != nil || h.ID == 0 {
				t.Fatalf("answered %+v with %d bytes: %v", h, len(data), err)
			}
			if _, err := json.Marshal(h); err != nil {
				t.Error(err)
			}
		}
	})
}

// answers are those of several at once.
type answers struct {
	mu sync.Mutex
	bytes.Buffer
}

func (a *answers) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.Buffer.Write(p)
}
