package content

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/manifest"
)

func TestAPublishedPackageIsAnnouncedListedAndServed(t *testing.T) {
	s := begin(t)
	p := s.pack("hello.c++", "1:2.10~rc1-3", clock, map[string]string{"a.sh": "echo hello", "b": ""})
	info := s.mustPublish(p)
	if diff := cmp.Diff(events.PackageInfo{Digest: p.Digest, Manifest: p.Manifest, By: "admin"}, info); diff != "" {
		t.Error(diff)
	}
	e := eventstest.Expect(t, s.admin, events.PackagePublished, about("hello.c++"))
	want := events.PackageNotice{Package: "hello.c++", Version: "1:2.10~rc1-3", Digest: p.Digest, Bytes: 10, Files: 2, Programs: []string{"install"}, By: "admin"}
	if diff := cmp.Diff(want, e.Data); diff != "" || e.Subject != "hello_c__" {
		t.Error(diff, e.Subject)
	}
	if diff := cmp.Diff([]string{"hello.c++@1:2.10~rc1-3"}, s.list()); diff != "" {
		t.Error(diff)
	}
	found, err := bus.Request(t.Context(), s.admin, agent, events.ContentLocate, events.LocateRequest{Blobs: []string{p.Digest, p.Blobs[0].SHA256, events.DigestOf([]byte("nothing"))}})
	if err != nil || len(found.Blobs) != 2 || len(found.Blobs[p.Digest]) != 1 {
		t.Fatal(found, err)
	}
	answer, err := http.Get(found.Blobs[p.Digest][0])
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusOK || events.DigestOf(data) != p.Digest {
		t.Errorf("%s, %d bytes, %v", answer.Status, len(data), err)
	}
	if n := testutil.ToFloat64(s.metrics.bytes.WithLabelValues("in", "ok")); n != float64(p.Size()) {
		t.Errorf("%v bytes were counted in, %d sent", n, p.Size())
	}
}

func TestAPublishedVersionNeverChanges(t *testing.T) {
	s := begin(t)
	first := s.mustPublish(s.pack("hello", "1", clock, map[string]string{"a.sh": "one"}))
	other := s.pack("hello", "1", clock, map[string]string{"a.sh": "two"})
	if _, err := s.publish(other); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "give it a new version") {
		t.Errorf("error: %v", err)
	}
	if s.blobs.Has(other.Digest) {
		t.Error("the refused manifest is still stored")
	}
	// The same files at another time are the same package.
	later := s.pack("hello", "1", clock.Add(time.Hour), map[string]string{"a.sh": "one"})
	for range 2 {
		again, err := s.publish(later)
		if diff := cmp.Diff(first, again); diff != "" || err != nil {
			t.Error(diff, err)
		}
	}
	// Each time it is announced once more, for those who lost the news.
	for _, e := range eventstest.ExpectExactly(t, s.admin, events.PackagePublished, about("hello"), 3) {
		if e.Data.Digest != first.Digest {
			t.Errorf("announced %+v", e.Data)
		}
	}
}

func TestWithoutAVersionTheNewestPublishedIsMeant(t *testing.T) {
	s := begin(t)
	for i, version := range []string{"2.9", "2.10", "1.0"} {
		s.mustPublish(s.pack("hello", version, clock.Add(time.Duration(i)*time.Hour), map[string]string{"a.sh": version}))
	}
	if info, err := s.show("hello", ""); err != nil || info.Manifest.Version != "1.0" {
		t.Errorf("%+v, %v", info, err)
	}
	if diff := cmp.Diff([]string{"hello@2.9", "hello@2.10", "hello@1.0"}, s.list()); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		name, version string
		want          error
	}{{"hello", "3", bus.ErrNotFound}, {"other", "", bus.ErrNotFound}, {"a b", "", bus.ErrBadRequest}, {"hello", "*", bus.ErrBadRequest}} {
		if _, err := s.show(c.name, c.version); !errors.Is(err, c.want) {
			t.Errorf("%s %s: %v", c.name, c.version, err)
		}
	}
}

func TestCommitTakesOnlyWholePackages(t *testing.T) {
	s := begin(t)
	p := s.pack("hello", "1", clock, map[string]string{"a.sh": "one"})
	if _, err := s.Commit(t.Context(), events.CommitRequest{Manifest: p.Digest}); !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), "not stored") {
		t.Errorf("without a manifest: %v", err)
	}
	if err := s.blobs.Put(t.Context(), p.Digest, int64(len(p.Envelope)), strings.NewReader(string(p.Envelope))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), events.CommitRequest{Manifest: p.Digest}); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), p.Blobs[0].SHA256) {
		t.Errorf("without a blob: %v", err)
	}
	outside := p.Manifest
	outside.Files = []events.File{{Path: "../a.sh", Mode: 0o644, SHA256: events.DigestOf(nil)}}
	leaves, err := manifest.Seal(outside, publisher("ada"))
	if err != nil {
		t.Fatal(err)
	}
	bare, err := manifest.Encode(p.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"no manifest": "hello", "a path that leaves": string(leaves), "a manifest without an envelope": string(bare),
		"an envelope in another form": strings.Replace(string(p.Envelope), ",", ", ", 1)} {
		digest := events.DigestOf([]byte(text))
		if err := s.blobs.Put(t.Context(), digest, int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), events.CommitRequest{Manifest: digest}); !errors.Is(err, bus.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Commit(t.Context(), events.CommitRequest{Manifest: "../x"}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("a path for a digest: %v", err)
	}
	if left := s.list(); len(left) != 0 {
		t.Errorf("published: %v", left)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	s := begin(t)
	for name, r := range map[string]events.UploadRequest{
		"too large": {Blobs: []events.BlobRef{{SHA256: events.DigestOf(nil), Size: 1 << 60}}},
		"negative":  {Blobs: []events.BlobRef{{SHA256: events.DigestOf(nil), Size: -1}}},
		"no digest": {Blobs: []events.BlobRef{{SHA256: "x"}}},
		"too many":  {Blobs: make([]events.BlobRef, maxUpload+1)},
	} {
		if _, err := s.Upload(t.Context(), r); !errors.Is(err, bus.ErrBadRequest) {
			t.Errorf("upload %s: %v", name, err)
		}
	}
	for _, blobs := range [][]string{{"x"}, make([]string, maxLocate+1)} {
		if _, err := bus.Request(t.Context(), s.admin, agent, events.ContentLocate, events.LocateRequest{Blobs: blobs}); !errors.Is(err, bus.ErrBadRequest) {
			t.Errorf("locate %d blobs: %v", len(blobs), err)
		}
	}
	t.Run("a thousand addresses fit into an answer", func(t *testing.T) {
		var blobs []string
		for i := range maxLocate {
			text := fmt.Sprint(i)
			blobs = append(blobs, events.DigestOf([]byte(text)))
			if err := s.blobs.Put(t.Context(), blobs[i], int64(len(text)), strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
		}
		found, err := bus.Request(t.Context(), s.admin, agent, events.ContentLocate, events.LocateRequest{Blobs: blobs})
		if err != nil || len(found.Blobs) != maxLocate {
			t.Errorf("%d found, %v", len(found.Blobs), err)
		}
	})
}

func TestAPackageIsNotRemovedWhileItIsDeployed(t *testing.T) {
	s := begin(t)
	p := s.pack("hello", "1", clock, map[string]string{"a.sh": "one", "shared": "by both"})
	other := s.pack("world", "1", clock, map[string]string{"a.sh": "other", "shared": "by both"})
	s.mustPublish(p)
	s.mustPublish(other)
	s.deployment("d2", "hello", "1", 1, false)
	s.deployment("d1", "hello", "1", 1, false)
	s.until("both deployments are known", func() bool {
		info, err := s.show("hello", "1")
		return err == nil && cmp.Equal(info.Deployments, []string{"d1", "d2"})
	})
	if _, err := s.remove("hello", "1"); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "needed by d1, d2") {
		t.Errorf("error: %v", err)
	}
	s.deployment("d1", "hello", "1", 1, true)
	s.deployment("d1", "hello", "1", 1, false) // an old event that comes late
	s.deployment("d2", "world", "1", 2, false) // a newer revision needs another package
	s.deployment("d2", "hello", "1", 1, false) // an old one, though told later
	s.until("nothing needs it", func() bool {
		info, err := s.show("hello", "1")
		world, err2 := s.show("world", "1")
		return err == nil && len(info.Deployments) == 0 && err2 == nil && len(world.Deployments) == 1
	})
	if _, err := s.remove("hello", ""); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("without a version: %v", err)
	}
	if info, err := s.remove("hello", "1"); err != nil || info.Digest != p.Digest {
		t.Fatal(info, err)
	}
	e := eventstest.Expect(t, s.admin, events.PackageRemoved, about("hello"))
	if e.Data.Digest != p.Digest || e.Data.By != "admin" {
		t.Errorf("event %+v", e)
	}
	for _, b := range p.Blobs {
		shared := b.SHA256 == events.DigestOf([]byte("by both"))
		if s.blobs.Has(b.SHA256) != shared {
			t.Errorf("blob of %q is there: %v", b.Path, !shared)
		}
	}
	if _, err := s.show("hello", "1"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("error: %v", err)
	}
	if _, err := s.remove("hello", "1"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("error: %v", err)
	}
	t.Run("and may be published again, which is another event", func(t *testing.T) {
		s.mustPublish(p)
		eventstest.ExpectExactly(t, s.admin, events.PackagePublished, about("hello"), 2)
	})
}

func TestWhatACrashInterruptedIsCompletedAtTheNextStart(t *testing.T) {
	s := begin(t)
	p := s.pack("hello", "1", clock, map[string]string{"a.sh": "one"})
	gone := s.pack("gone", "1", clock, map[string]string{"a.sh": "two"})
	s.mustPublish(p)
	s.mustPublish(gone)
	// As a crash leaves it between record and mark: one not yet announced, one half removed.
	for name, phase := range map[string]phase{"hello": publishing, "gone": removing} {
		rec, err := s.records.get(t.Context(), name, "1")
		if err != nil {
			t.Fatal(err)
		}
		rec.Phase, rec.RemovedBy = phase, "admin"
		if _, err := s.records.put(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.blobs.Remove(gone.Blobs[0].SHA256); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.until("the records are complete", func() bool {
		rec, err := s.records.get(t.Context(), "hello", "1")
		_, goneErr := s.records.get(t.Context(), "gone", "1")
		return err == nil && rec.Phase == published && errors.Is(goneErr, jetstream.ErrKeyNotFound)
	})
	eventstest.ExpectExactly(t, s.admin, events.PackagePublished, about("hello"), 1) // the same id
	eventstest.ExpectExactly(t, s.admin, events.PackageRemoved, about("gone"), 1)
	if s.blobs.Has(gone.Digest) {
		t.Error("the removed manifest is still stored")
	}
}

func TestALargeManifestIsKeptAsABlobOnly(t *testing.T) {
	s := begin(t)
	m := events.Manifest{API: manifest.API, Package: "large", Version: "1", Published: clock, Programs: map[string]events.Program{"install": {Command: events.Command{Line: "true"}, Run: events.RunUser}}}
	empty := events.DigestOf(nil)
	for i := range 5000 {
		m.Files = append(m.Files, events.File{Path: fmt.Sprintf("%05d", i), Mode: 0o644, SHA256: empty})
	}
	data, err := manifest.Seal(m, publisher("ada"))
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range []string{"", string(data)} {
		if err := s.blobs.Put(t.Context(), events.DigestOf([]byte(blob)), int64(len(blob)), strings.NewReader(blob)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Commit(t.Context(), events.CommitRequest{Manifest: events.DigestOf(data)}); err != nil {
		t.Fatal(err)
	}
	rec, err := s.records.get(t.Context(), "large", "1")
	if err != nil || rec.Manifest != nil {
		t.Fatal("the manifest is in the record", err)
	}
	if info, err := s.show("large", "1"); err != nil || len(info.Manifest.Files) != 5000 {
		t.Error(len(info.Manifest.Files), err)
	}
	t.Run("and is stored anew when it decayed", func(t *testing.T) {
		path := filepath.Join(s.dir, "blobs", rec.Digest[:2], rec.Digest)
		if err := os.WriteFile(path, data[:len(data)-2], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), events.CommitRequest{Manifest: rec.Digest}); !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), "decayed") || s.blobs.Has(rec.Digest) {
			t.Errorf("error: %v", err)
		}
		if err := s.blobs.Put(t.Context(), rec.Digest, int64(len(data)), strings.NewReader(string(data))); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), events.CommitRequest{Manifest: rec.Digest}); err != nil {
			t.Error(err)
		}
	})
}

func TestTheServiceOutlivesItsBroker(t *testing.T) {
	s := &story{t: t, broker: eventstest.Broker(t), dir: t.TempDir()}
	s.admin, s.drift = eventstest.Bus(t, s.broker, ""), time.Second
	s.broker.Stop()
	s.start() // the broker is away at the start
	if err := s.Healthy(t.Context()); err == nil || !strings.Contains(err.Error(), "broker is away") {
		t.Errorf("check: %v", err)
	}
	digest := events.DigestOf([]byte("x"))
	if err := s.blobs.Put(t.Context(), digest, 1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if answer, err := http.Get(s.signer.get(digest)); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("blobs are not served meanwhile: %v", err)
	} else {
		answer.Body.Close()
	}
	for round := range 2 {
		s.broker.Start()
		s.until("requests are answered", func() bool {
			_, err := bus.Request(t.Context(), s.admin, "admin", events.ContentList, events.Nothing{})
			return err == nil
		})
		name := fmt.Sprint("p", round)
		s.mustPublish(s.pack(name, "1", clock, map[string]string{"a.sh": name}))
		s.deployment("d"+name, name, "1", 1, false)
		s.until("deployments are followed", func() bool {
			info, err := s.show(name, "1")
			return err == nil && len(info.Deployments) == 1
		})
		if err := s.Healthy(t.Context()); err != nil {
			t.Errorf("check: %v", err)
		}
		s.broker.Stop()
	}
	s.broker.Start() // for the connections to end in order
}

func TestAListLeavesOutWhatWouldBeTooMuch(t *testing.T) {
	for name, c := range map[string]struct {
		files []int
		want  int
	}{
		"all fit":          {[]int{10, 20_000, 70_000}, listedFiles},
		"the largest goes": {[]int{50_000, 40_000, 60_000}, 59_999},
		"equal ones go":    {[]int{10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 5}, 9_999},
	} {
		var all []record
		for _, n := range c.files {
			all = append(all, record{Files: n})
		}
		if got := affordable(all); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestKeysHoldEveryNameAndVersion(t *testing.T) {
	seen := map[string]string{}
	for _, n := range []string{"a.b", "a", "a+b", "a=b", "a_b", "a-b", "a~b", "a:b", "a=2Eb", ".a", "a."} {
		key := escape(n)
		if other, ok := seen[key]; ok || strings.ContainsAny(key, ".+:~ *>") {
			t.Errorf("%q and %q become %q", n, other, key)
		}
		seen[key] = n
	}
}

func TestOptionsAreCheckedAtNew(t *testing.T) {
	broker := eventstest.Broker(t)
	right := eventstest.Bus(t, broker, events.ServiceSource("content"))
	wrong := eventstest.Bus(t, broker, events.ServiceSource("scheduling"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, o := range map[string]Options{
		"no bus":                 {Dir: t.TempDir(), Listener: listener},
		"another service's bus":  {Bus: wrong, Dir: t.TempDir(), Listener: listener},
		"no directory":           {Bus: right, Listener: listener},
		"no listener":            {Bus: right, Dir: t.TempDir()},
		"an address with a user": {Bus: right, Dir: t.TempDir(), Listener: listener, PublicURL: "http://a:b@c"},
		"an address without //":  {Bus: right, Dir: t.TempDir(), Listener: listener, PublicURL: "dp.example:80"},
		"a negative limit":       {Bus: right, Dir: t.TempDir(), Listener: listener, MaxBlob: -1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
