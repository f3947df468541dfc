package asuser

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chandler/agent/source"
	"chandler/events"
)

// memory is a source of one scheme: files by address.
type memory struct {
	files  map[string][]byte
	stop   chan struct{} // openings of "wait" wait for it; nil: for their context
	open   atomic.Int32  // objects
	waited atomic.Int32  // openings that were called off
}

func (m *memory) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	name := address[strings.LastIndex(address, "/")+1:]
	switch data, ok := m.files[name]; {
	case !login.Nobody():
		return nil, errors.New("a login")
	case name == "wait":
		select {
		case <-ctx.Done():
			m.waited.Add(1)
			return nil, ctx.Err()
		case <-m.stop:
		}
	case name == "hostile":
		return nil, &source.Error{Reason: "such a reason", Answer: "line\nline\x1b[2J" + strings.Repeat("x", 2*maxWords)}
	case !ok:
		return nil, &source.Error{Reason: events.SourceNotFound, Answer: source.Answer("no such file", source.FileNotFound)}
	default:
		m.open.Add(1)
		return &memoryObject{memory: m, name: name, Reader: bytes.NewReader(data)}, nil
	}
	m.open.Add(1)
	return &memoryObject{memory: m, name: name, Reader: bytes.NewReader(nil)}, nil
}

type memoryObject struct {
	*memory
	*bytes.Reader
	name string
	once sync.Once
}

func (o *memoryObject) Info() source.Info {
	return source.Info{Name: o.name, Size: o.Reader.Size(), Modified: time.Unix(1e9, 0), Mode: fs.ModeSetuid | 0o755}
}

func (o *memoryObject) ReadAt(_ context.Context, p []byte, offset int64) (int, error) {
	return o.Reader.ReadAt(p, offset)
}

func (o *memoryObject) List(context.Context) ([]source.Info, error) {
	return []source.Info{{Name: "b", Size: -1}, {Name: "a", Folder: true}}, nil
}

func (o *memoryObject) Close() error {
	o.once.Do(func() { o.memory.open.Add(-1) })
	return nil
}

// talkTo converses with a reader of the same process. killed is closed when it would have been killed.
func talkTo(t *testing.T, patience time.Duration, serve func(in io.Reader, out io.Writer) error) (c *conversation, ended <-chan error) {
	in, input := io.Pipe()
	output, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- serve(in, out)
		in.Close()
		out.Close()
	}()
	c = converse(input, output, func() {}, patience)
	t.Cleanup(func() { c.end(errClosed) })
	return c, done
}

func talkToMemory(t *testing.T, m *memory) (*conversation, <-chan error) {
	return talkTo(t, time.Minute, func(in io.Reader, out io.Writer) error {
		return serve(in, out, map[string]source.Source{"smb": m})
	})
}

func wantReason(t *testing.T, err error, reason events.Reason, words string) {
	t.Helper()
	e, ok := errors.AsType[*source.Error](err)
	if !ok || e.Reason != reason || !strings.Contains(e.Answer, words) {
		t.Errorf("error %v, want %s with %q", err, reason, words)
	}
}

func TestWhatIsReadIsWhatTheUsersSourcesRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := bytes.Repeat([]byte("0123456789abcdef"), maxPiece/8)
		m := &memory{files: map[string][]byte{"x": data}}
		c, ended := talkToMemory(t, m)
		o, err := c.open(t.Context(), "smb://files/s/x", "x")
		if err != nil {
			t.Fatal(err)
		}
		if i := o.Info(); i.Name != "x" || i.Size != int64(len(data)) || !i.Modified.Equal(time.Unix(1e9, 0)) || i.Mode != 0o755 {
			t.Errorf("said to be %+v", i)
		}
		got := make([]byte, len(data)+5)
		if n, err := o.ReadAt(t.Context(), got, 3); n != len(data)-3 || err != io.EOF || !bytes.Equal(got[:n], data[3:]) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if list, err := o.List(t.Context()); err != nil || len(list) != 2 || list[0].Name != "a" || !list[0].Folder || list[1].Size != -1 {
			t.Errorf("list %+v: %v", list, err)
		}
		for offset, want := range map[int64]string{-1: "no file is", 1<<63 - 3: "no file is"} {
			_, err := o.ReadAt(t.Context(), got, offset)
			wantReason(t, err, events.SourceUnsupported, want)
		}
		o.Close()
		if _, err := o.ReadAt(t.Context(), got, 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		if _, err := o.List(t.Context()); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		_, err = c.open(t.Context(), "smb://files/s/nothing", "nothing")
		wantReason(t, err, events.SourceNotFound, "no such file (2/0x80070002)")
		_, err = c.open(t.Context(), "https://files/s/x", "x")
		wantReason(t, err, events.SourceUnsupported, "nothing reads https:// as a user")
		_, err = c.open(t.Context(), "smb://files/s/hostile", "hostile")
		wantReason(t, err, events.OtherReason, "line?line?[2Jxxx")
		if len(err.Error()) > 2*maxWords || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("words %q", err)
		}
		c.end(errClosed)
		if err := <-ended; err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
		synctest.Wait()
		if n := m.open.Load(); n != 0 {
			t.Errorf("%d files are open", n)
		}
	})
}

func TestWhoGivesUpIsFreeAndTheReaderHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{files: map[string][]byte{"x": []byte("x")}}
		c, _ := talkToMemory(t, m)
		ctx, cancel := context.WithCancel(t.Context())
		for range maxCalls {
			go func() {
				if _, err := c.open(ctx, "smb://files/s/wait", "wait"); !errors.Is(err, context.Canceled) {
					t.Errorf("error: %v", err)
				}
			}()
		}
		synctest.Wait()
		// No more are asked for at once; whoever waits for a turn may give up too.
		soon, done := context.WithTimeout(t.Context(), time.Second)
		defer done()
		if _, err := c.open(soon, "smb://files/s/x", "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error: %v", err)
		}
		cancel()
		synctest.Wait()
		if n := m.waited.Load(); n != maxCalls {
			t.Errorf("%d openings were called off", n)
		}
		if _, err := c.open(t.Context(), "smb://files/s/x", "x"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if c.objects != 1 || m.open.Load() != 1 {
			t.Errorf("%d files count, %d are open", c.objects, m.open.Load())
		}
		c.end(errClosed)
		synctest.Wait()
	})
}

func TestWhatIsOpenedTooLateIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{stop: make(chan struct{})}
		stubborn := sourceFunc(func(_ context.Context, address string, login source.Login) (source.Object, error) {
			return m.Open(context.WithoutCancel(t.Context()), address, login)
		})
		c, _ := talkTo(t, time.Minute, func(in io.Reader, out io.Writer) error {
			return serve(in, out, map[string]source.Source{"smb": stubborn})
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := c.open(ctx, "smb://files/s/wait", "wait"); !errors.Is(err, context.Canceled) {
			t.Errorf("error: %v", err)
		}
		close(m.stop)
		synctest.Wait()
		if n := m.open.Load(); n != 0 || c.failure() != nil || len(c.slots) != 0 {
			t.Errorf("%d files are open, %d calls: %v", n, len(c.slots), c.failure())
		}
		c.end(errClosed)
		synctest.Wait()
	})
}

type sourceFunc func(context.Context, string, source.Login) (source.Object, error)

func (f sourceFunc) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	return f(ctx, address, login)
}

func TestAReaderThatIsSilentOrDeafIsKilled(t *testing.T) {
	for name, listens := range map[string]bool{"silent": true, "deaf": false} {
		t.Run(name, func(t *testing.T) {
			killed := make(chan struct{})
			in, input := io.Pipe()
			output, _ := io.Pipe()
			if listens {
				go io.Copy(io.Discard, in)
			}
			c := converse(input, output, func() { close(killed) }, 50*time.Millisecond)
			_, err := c.open(t.Context(), "smb://files/s/x", "x")
			wantReason(t, err, events.SourceUnreachable, "it does not answer (53/")
			<-killed
			<-c.gone
			if _, err := c.open(t.Context(), "smb://files/s/x", "x"); err == nil {
				t.Error("it goes on")
			}
		})
	}
}

// lie answers each request with what the user's process may have written there instead.
func lie(answer func(req request, out io.Writer)) func(in io.Reader, out io.Writer) error {
	return func(in io.Reader, out io.Writer) error {
		for from := json.NewDecoder(in); ; {
			var req request
			if err := from.Decode(&req); err != nil {
				return err
			}
			answer(req, out)
		}
	}
}

func TestAReaderThatLiesIsNotHeardAnyMore(t *testing.T) {
	long := make([]byte, 10)
	opened := func(req request, out io.Writer) bool {
		if req.Op == opOpen {
			writeFrame(out, head{ID: req.ID, Info: &entry{Name: "../x", Size: 5}}, nil)
		}
		return req.Op == opOpen
	}
	whenRead := func(answer func(req request, out io.Writer)) func(req request, out io.Writer) {
		return func(req request, out io.Writer) {
			if !opened(req, out) {
				answer(req, out)
			}
		}
	}
	listed := func(list string) func(req request, out io.Writer) {
		return whenRead(func(req request, out io.Writer) { writeFrame(out, head{ID: req.ID}, []byte(list)) })
	}
	for name, answer := range map[string]func(req request, out io.Writer){
		"an answer to nothing":    func(req request, out io.Writer) { writeFrame(out, head{ID: req.ID + 7}, nil) },
		"no answer at all":        func(req request, out io.Writer) { out.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) },
		"a head without end":      func(req request, out io.Writer) { out.Write([]byte{255, 255, 255, 255, 0, 0, 0, 0}) },
		"no JSON":                 func(req request, out io.Writer) { out.Write([]byte("\x00\x00\x00\x01\x00\x00\x00\x00{")) },
		"opened without a word":   func(req request, out io.Writer) { writeFrame(out, head{ID: req.ID}, nil) },
		"opened with data":        func(req request, out io.Writer) { writeFrame(out, head{ID: req.ID, Info: &entry{}}, long) },
		"a size below none":       func(req request, out io.Writer) { writeFrame(out, head{ID: req.ID, Info: &entry{Size: -2}}, nil) },
		"more than was asked for": whenRead(func(req request, out io.Writer) { writeFrame(out, head{ID: req.ID}, make([]byte, req.Length+1)) }),
		"nothing for ever":        whenRead(func(req request, out io.Writer) { writeFrame(out, head{ID: req.ID}, nil) }),
		"the same answer twice": whenRead(func(req request, out io.Writer) {
			writeFrame(out, head{ID: req.ID}, long[:1])
			writeFrame(out, head{ID: req.ID}, long[:1])
		}),
		"a list with a way out":      listed(`[{"name":"../x"}]`),
		"a list with a folder":       listed(`[{"name":"a/b"}]`),
		"a list with a name twice":   listed(`[{"name":"a"},{"name":"b"},{"name":"a"}]`),
		"a list with an empty name":  listed(`[{"name":""}]`),
		"a list that is no list":     listed(`{}`),
		"a list with a control name": listed(`[{"name":"a\u0000b"}]`),
		"a list that is too long":    listed("[" + strings.Repeat(`{"name":"a"},`, source.MaxEntries) + `{"name":"a"}]`),
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := talkTo(t, time.Minute, lie(answer))
			o, err := c.open(t.Context(), "smb://files/s/x", "x")
			if err == nil && strings.HasPrefix(name, "a list") {
				_, err = o.List(t.Context())
			} else if err == nil {
				for err == nil {
					_, err = o.ReadAt(t.Context(), make([]byte, 10), 0)
				}
			}
			wantReason(t, err, events.SourceUnreachable, "what reads as the user is gone: it ")
			<-c.gone
		})
	}
}

func TestOnlySoManyFilesAreOpenAtOnce(t *testing.T) {
	m := &memory{files: map[string][]byte{"x": []byte("x")}}
	c, _ := talkToMemory(t, m)
	var objects []source.Object
	for range maxObjects {
		o, err := c.open(t.Context(), "smb://files/s/x", "x")
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	_, err := c.open(t.Context(), "smb://files/s/x", "x")
	wantReason(t, err, events.SourceUnreachable, "more than 1024 files")
	for range 2 { // closing again means nothing
		objects[0].Close()
	}
	if _, err := c.open(t.Context(), "smb://files/s/x", "x"); err != nil {
		t.Error(err)
	}
	if _, err := c.open(t.Context(), "smb://files/s/x", "x"); err == nil {
		t.Error("one more is open")
	}
}

func TestARequestThatCannotBeEndsTheReader(t *testing.T) {
	for _, line := range []string{
		"x", `{"id":0,"op":"open"}`, `{"id":1,"op":"exec"}`, `{"id":1,"op":"read","length":262145}`, `{"id":1,"op":"read","length":-1}`, `{"id":1,"op":"read","offset":-1}`,
		`{"id":1,"op":"open","address":"` + strings.Repeat("x", maxRequest) + `"}`, `{"id":-1,"op":"list"}`,
	} {
		if err := serve(strings.NewReader(line+"\n"), io.Discard, nil); err == nil {
			t.Errorf("%.60s is taken", line)
		}
	}
	m := &memory{}
	many := ""
	for id := range maxCalls + 1 {
		text, _ := json.Marshal(request{ID: uint64(id + 1), Op: opOpen, Address: "smb://files/s/wait"})
		many += string(text) + "\n"
	}
	if err := serve(strings.NewReader(many), io.Discard, map[string]source.Source{"smb": m}); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("%d requests at once: %v", maxCalls+1, err)
	}
}
