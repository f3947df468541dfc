package backup

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	serverarchive "github.com/nats-io/nats-server/v2/server/archive"

	"chandler/events"
)

// crafted is an archive that was made by hand.
type crafted struct {
	manifest Manifest
	bodies   map[string]string // by entry; without one: no entry
	headers  func(*tar.Header)
	more     map[string]string // entries after the listed ones
	tail     string            // bytes after the archive
}

// sound is one file, and a stream that is empty.
func sound(t testing.TB) *crafted {
	t.Helper()
	c := &crafted{bodies: map[string]string{"files/identity/fleet.json": "{}", "streams/HISTORY.snapshot": emptySnapshot(t)}}
	c.manifest = Manifest{Format: Format, Version: "test", Fleet: "f1", Account: GlobalAccount, Taken: time.Unix(1e9, 0).UTC(),
		Streams: []Stream{{Name: events.StreamHistory, Config: json.RawMessage(`{"name":"HISTORY","subjects":["chandler.history.*"],"storage":"file","retention":"limits","num_replicas":3}`)}}}
	c.list("streams/HISTORY.snapshot", "files/identity/fleet.json")
	return c
}

// list fills in sizes and digests.
func (c *crafted) list(names ...string) {
	c.manifest.Entries = nil
	for _, name := range names {
		m := newMeter()
		_, _ = m.Write([]byte(c.bodies[name]))
		c.manifest.Entries = append(c.manifest.Entries, m.entry(name))
	}
}

// emptySnapshot is the broker's copy of a stream without messages.
func emptySnapshot(t testing.TB) string {
	t.Helper()
	return snapshotOf(t, `{"messages":0,"bytes":0,"first_seq":0,"last_seq":0,"consumer_count":0}`)
}

// snapshotOf is the broker's copy of a stream in that state, with these messages.
func snapshotOf(t testing.TB, state string, messages ...serverarchive.Header) string {
	t.Helper()
	var b bytes.Buffer
	packed := s2.NewWriter(&b)
	w := serverarchive.NewWriter(packed)
	err := w.WriteHeader(&serverarchive.Header{Name: "state.json", PayloadSize: int64(len(state))})
	if err == nil {
		_, err = io.WriteString(w, state)
	}
	for _, h := range messages {
		err = errors.Join(err, w.WriteHeader(&h))
		_, bodyErr := io.CopyN(w, zeros{}, h.HeaderSize+h.PayloadSize)
		err = errors.Join(err, bodyErr)
	}
	err = errors.Join(err, w.WriteHeader(&serverarchive.Header{}), w.Close(), packed.Close())
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (c *crafted) bytes(t testing.TB) []byte {
	t.Helper()
	text, err := json.Marshal(c.manifest)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(name, body string) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(body)), Mode: 0o600}
		if c.headers != nil {
			c.headers(h)
		}
		if h.Typeflag != tar.TypeReg {
			h.Size = 0
		}
		err := w.WriteHeader(h)
		if err == nil && h.Size > 0 {
			_, err = io.WriteString(w, body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(manifestName, string(text))
	for _, e := range c.manifest.Entries {
		if body, ok := c.bodies[e.Name]; ok {
			put(e.Name, body)
		}
	}
	for name, body := range c.more {
		put(name, body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), c.tail...)
}

func TestASoundArchiveIsRestoredToOneBroker(t *testing.T) {
	dir, js := restored(t, sound(t).bytes(t))
	if data, err := os.ReadFile(filepath.Join(dir, "identity", "fleet.json")); err != nil || string(data) != "{}" {
		t.Errorf("%q, %v", data, err)
	}
	if s, err := js.Stream(t.Context(), events.StreamHistory); err != nil || s.CachedInfo().Config.Replicas != 1 {
		t.Errorf("the stream has %+v, %v", s, err)
	}
}

func TestNothingIsTakenFromAnArchiveThatIsNotWhatItSays(t *testing.T) {
	listed := func(name string) func(*crafted) {
		return func(c *crafted) {
			c.bodies[name] = "x"
			c.list("streams/HISTORY.snapshot", name)
		}
	}
	for name, test := range map[string]struct {
		change func(*crafted)
		says   string
	}{
		"of a later format":               {func(c *crafted) { c.manifest.Format = 2 }, "format 2"},
		"with an account that is a path":  {func(c *crafted) { c.manifest.Account = "../x" }, "no account"},
		"with a file above the directory": {listed("files/identity/../../x"), "cannot be"},
		"with an absolute name":           {listed("/etc/passwd"), "cannot be"},
		"with a drive":                    {listed("files/c:/x"), "cannot be"},
		"with a backslash":                {listed(`files/identity/..\x`), "cannot be"},
		"with a hidden file":              {listed("files/identity/.x"), "cannot be"},
		"with a name that ends in a dot":  {listed("files/identity/x."), "cannot be"},
		"with a file among the broker's":  {listed("files/broker/x"), "cannot be"},
		"with a file among the Broker's":  {listed("files/BROKER/x"), "cannot be"},
		"with a part that is a file":      {listed("files/identity"), "cannot be"},
		"with a very long name":           {listed("files/identity/" + strings.Repeat("a/", 300) + "x"), "cannot be"},
		"with a stream of others":         {func(c *crafted) { c.manifest.Streams[0].Name = "OTHER" }, "not one of Chandler's"},
		"with a stream twice":             {func(c *crafted) { c.manifest.Streams = append(c.manifest.Streams, c.manifest.Streams[0]) }, "twice"},
		"with a stream that another feeds": {func(c *crafted) {
			c.manifest.Streams[0].Config = json.RawMessage(`{"name":"HISTORY","storage":"file","mirror":{"name":"X"}}`)
		}, "fed from elsewhere"},
		"with another stream's configuration":   {func(c *crafted) { c.manifest.Streams[0].Config = json.RawMessage(`{"name":"JOBS","storage":"file"}`) }, "of another"},
		"with a reader whose name is a path":    {func(c *crafted) { c.manifest.Streams[0].Readers = make([]Reader, 1) }, "reader"},
		"with a stream that is not there":       {func(c *crafted) { c.list("files/identity/fleet.json") }, "not there"},
		"with messages of a stream that is not": {listed("streams/JOBS.since"), "no stream"},
		"with an entry twice but for case": {func(c *crafted) {
			c.manifest.Entries = append(c.manifest.Entries, Entry{"files/identity/FLEET.json", 2, strings.Repeat("0", 64)})
		}, "twice"},
		"with a size below nothing":   {func(c *crafted) { c.manifest.Entries[1].Size = -1 }, "cannot be"},
		"with sizes beyond all disks": {func(c *crafted) { c.manifest.Entries[1].Size = 1 << 62 }, "cannot be"},
		"with another digest":         {func(c *crafted) { c.manifest.Entries[1].SHA256 = strings.Repeat("0", 64) }, "damaged"},
		"with another size":           {func(c *crafted) { c.manifest.Entries[1].Size++ }, "where files/identity/fleet.json is to be"},
		"with an entry missing":       {func(c *crafted) { delete(c.bodies, "files/identity/fleet.json") }, "ends before"},
		"with an entry too many":      {func(c *crafted) { c.more = map[string]string{"files/identity/more": "x"} }, "not in its list"},
		"with bytes after its end":    {func(c *crafted) { c.tail = "x" }, "after the end"},
		"with a link in the place of a file": {func(c *crafted) {
			c.headers = func(h *tar.Header) {
				if strings.HasSuffix(h.Name, "fleet.json") {
					h.Typeflag, h.Linkname = tar.TypeSymlink, "/etc"
				}
			}
		}, "is to be"},
		"with a copy that is none": {func(c *crafted) { c.bodies["streams/HISTORY.snapshot"] = "rubbish"; c.list("streams/HISTORY.snapshot") }, "does not begin"},
		"with a copy that ends early": {func(c *crafted) {
			c.bodies["streams/HISTORY.snapshot"] = c.bodies["streams/HISTORY.snapshot"][:60]
			c.list("streams/HISTORY.snapshot")
		}, "HISTORY"},
		"with a message that fills the memory": {func(c *crafted) {
			c.manifest.Streams[0].Last = 1
			c.bodies["streams/HISTORY.snapshot"] = snapshotOf(t, `{"messages":1,"bytes":1,"first_seq":1,"last_seq":1}`, serverarchive.Header{Name: "chandler.history.abcdefgh", Sequence: 1, PayloadSize: maxMessage + 1})
			c.list("streams/HISTORY.snapshot")
		}, "larger than"},
		"with a copy of another state": {func(c *crafted) { c.manifest.Streams[0].Last = 9 }, "another state"},
	} {
		t.Run(name, func(t *testing.T) {
			c := sound(t)
			test.change(c)
			if _, err := Verify(t.Context(), bytes.NewReader(c.bytes(t))); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
		})
	}
}

func TestACutOrChangedArchiveIsNoticedWhereverThatIs(t *testing.T) {
	archive := sound(t).bytes(t)
	end := len(bytes.TrimRight(archive, "\x00"))
	for at := 0; at < end; at += 7 {
		if _, err := Verify(t.Context(), bytes.NewReader(archive[:at])); err == nil {
			t.Fatalf("cut after %d bytes, it is taken", at)
		}
	}
	c := sound(t)
	for _, e := range c.manifest.Entries {
		at := bytes.Index(archive, []byte(c.bodies[e.Name]))
		changed := bytes.Clone(archive)
		changed[at] ^= 1
		if _, err := Verify(t.Context(), bytes.NewReader(changed)); err == nil {
			t.Errorf("with another byte in %s, it is taken", e.Name)
		}
	}
}

// FuzzVerify reads what is no backup, or nearly one: it ends, without a panic, and takes only what restores.
func FuzzVerify(f *testing.F) {
	whole := sound(f).bytes(f)
	f.Add(whole)
	f.Add(whole[:1024])
	c := sound(f)
	c.bodies["files/content/ab/x"] = "blob"
	c.list("streams/HISTORY.snapshot", "files/identity/fleet.json", "files/content/ab/x")
	f.Add(c.bytes(f))
	f.Add([]byte("age-encryption.org/v1\n"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		m, err := Verify(t.Context(), bytes.NewReader(archive))
		if err != nil {
			return
		}
		for _, e := range m.Entries {
			if !filepath.IsLocal(filepath.FromSlash(e.Name)) || strings.Contains(e.Name, `\`) {
				t.Errorf("entry %q is taken", e.Name)
			}
		}
	})
}

// FuzzReadSince reads messages that came since.
func FuzzReadSince(f *testing.F) {
	f.Add([]byte(`{"subject":"$KV.x.y","header":{"A":["b"]},"data":"eA=="}` + "\n"))
	f.Add([]byte("{}\n\n"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		n := 0
		if err := readSince(bytes.NewReader(lines), func(kept) error { n++; return nil }); err == nil && n > bytes.Count(lines, []byte("\n"))+1 {
			t.Errorf("%d messages in %d lines", n, bytes.Count(lines, []byte("\n")))
		}
	})
}
