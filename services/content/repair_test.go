package content

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// many are so many files that their manifest is too large for a record.
func many(text string) map[string]string {
	files := map[string]string{"a.sh": text}
	for i := range 2500 {
		files[fmt.Sprintf("%0100d", i)] = ""
	}
	return files
}

func (s *story) blobPath(digest string) string {
	return filepath.Join(s.dir, "blobs", digest[:2], digest)
}

func TestPublishingAgainAtALaterTimeRepairsTheManifest(t *testing.T) {
	for name, files := range map[string]func() map[string]string{
		"in the record":  func() map[string]string { return map[string]string{"a.sh": "one"} },
		"as a blob only": func() map[string]string { return many("one") },
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			first := s.mustPublish(s.pack("hello", "1", clock, files()))
			sound, err := os.ReadFile(s.blobPath(first.Digest))
			if err != nil {
				t.Fatal(err)
			}
			for i, harm := range []func() error{
				func() error { return os.Remove(s.blobPath(first.Digest)) },
				func() error { return os.WriteFile(s.blobPath(first.Digest), make([]byte, len(sound)), 0o600) },
			} {
				if err := harm(); err != nil {
					t.Fatal(err)
				}
				// Read later, and signed by somebody else: the digest that signed orders name stays.
				later := s.packBy(signedBy("bob"), "hello", "1", clock.Add(time.Duration(i+1)*time.Hour), files())
				again := s.mustPublish(later)
				if again.Digest != first.Digest || !again.Manifest.Published.Equal(clock) {
					t.Errorf("harm %d: %s of %s", i, again.Digest, again.Manifest.Published)
				}
				if err := s.blobs.Verify(t.Context(), first.Digest); err != nil {
					t.Errorf("harm %d: %v", i, err)
				}
				if s.blobs.Has(later.Digest) {
					t.Errorf("harm %d: the second manifest is still stored", i)
				}
			}
			eventstest.ExpectExactly(t, s.admin, events.PackagePublished, about("hello"), 3)
		})
	}
}

func TestAPackageThatCannotBeReadStopsNoOther(t *testing.T) {
	s := begin(t)
	broken := s.mustPublish(s.pack("broken", "1", clock, many("shared")))
	s.mustPublish(s.pack("gone", "1", clock, many("other")))
	other := s.mustPublish(s.pack("hello", "1", clock, map[string]string{"a.sh": "shared", "b": "own"}))
	if err := os.WriteFile(s.blobPath(broken.Digest), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.list(); !slices.Equal(got, []string{"broken@1", "gone@1", "hello@1"}) {
		t.Errorf("listed %v", got)
	}
	if _, err := s.show("broken", "1"); err == nil || !strings.Contains(err.Error(), "publish the package again") {
		t.Errorf("shown: %v", err)
	}
	for _, name := range []string{"hello", "gone"} {
		if _, err := s.remove(name, "1"); err != nil {
			t.Errorf("remove %s: %v", name, err)
		}
		if _, err := s.records.get(t.Context(), name, "1"); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("%s is not removed wholly: %v", name, err)
		}
	}
	if s.blobs.Has(other.Digest) {
		t.Error("the removed manifest is still stored")
	}
	if !s.blobs.Has(events.DigestOf([]byte("shared"))) {
		t.Error("a blob that the package without manifest may need was deleted")
	}
	if info, err := s.remove("broken", "1"); err != nil || info.Manifest.Package != "broken" {
		t.Errorf("remove the package without manifest: %+v, %v", info, err)
	}
	if got := s.list(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestABucketThatIsLostIsFilledFromTheBlobs(t *testing.T) {
	s := begin(t)
	first := s.mustPublish(s.pack("hello", "1", clock, map[string]string{"a.sh": "one"}))
	large := s.mustPublish(s.pack("large", "1", clock, many("two")))
	gone := s.mustPublish(s.pack("gone", "1", clock, map[string]string{"a.sh": "three"}))
	if _, err := s.remove("gone", "1"); err != nil {
		t.Fatal(err)
	}
	if err := s.admin.JetStream().DeleteKeyValue(t.Context(), events.BucketPackages); err != nil {
		t.Fatal(err)
	}
	// At once, before the next pass, and read anew: a signed order names the first manifest.
	if again := s.mustPublish(s.pack("hello", "1", clock.Add(time.Hour), map[string]string{"a.sh": "one"})); again.Digest != first.Digest {
		t.Errorf("hello became %s", again.Digest)
	}
	if info, err := s.show("large", "1"); err != nil || info.Digest != large.Digest {
		t.Error(info.Digest, err)
	}
	if got := s.list(); !slices.Equal(got, []string{"hello@1", "large@1"}) {
		t.Errorf("recalled %v, without %s", got, gone.Digest)
	}
	if err := s.finishPending(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventstest.ExpectExactly(t, s.admin, events.PackagePublished, about("large"), 2)
}

func TestALargeBlobUsesUpNoneOfTheShareOfHashing(t *testing.T) {
	s := begin(t)
	large, small := events.DigestOf([]byte("large")), events.DigestOf([]byte("small"))
	for _, digest := range []string{large, small} {
		if err := os.MkdirAll(filepath.Dir(s.blobPath(digest)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.blobPath(digest), []byte("decay"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(s.blobPath(large), verifyUpTo+1); err != nil {
		t.Skipf("no file with a hole can be made here: %v", err)
	}
	answer, err := s.Upload(t.Context(), events.UploadRequest{Blobs: []events.BlobRef{{SHA256: large, Size: verifyUpTo + 1}, {SHA256: small, Size: 5}}})
	if err != nil || len(answer.Missing) != 1 || answer.Missing[0].SHA256 != small {
		t.Errorf("missing %v, %v", answer.Missing, err)
	}
}

func TestAnEventAboutAnotherDeploymentIsNotHeeded(t *testing.T) {
	s := begin(t)
	n := events.DeploymentNotice{Deployment: "d1", Revision: 1, Package: "hello", Version: "1"}
	if err := s.noteUse(t.Context(), "d2", n, "", false); err == nil {
		t.Error("it was noted")
	}
	if uses, err := s.records.uses(t.Context()); err != nil || len(uses) != 0 {
		t.Error(uses, err)
	}
}

func TestReadingRecordsIsBounded(t *testing.T) {
	s := begin(t)
	hasty := &records{js: s.records.js, log: s.log, patience: time.Nanosecond}
	if _, err := hasty.packages(context.WithoutCancel(t.Context())); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
}

func TestALostRaceIsAConflict(t *testing.T) {
	s := begin(t)
	s.mustPublish(s.pack("hello", "1", clock, map[string]string{"a.sh": "one"}))
	rec, err := s.records.get(t.Context(), "hello", "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.records.put(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	_, stale := s.records.put(t.Context(), rec)
	rec.revision = 0
	_, twice := s.records.put(t.Context(), rec)
	for _, err := range []error{stale, twice} {
		if !errors.Is(away(err), bus.ErrConflict) {
			t.Errorf("error: %v", away(err))
		}
	}
}

func TestARemovedPackageLeavesNoMarker(t *testing.T) {
	s := begin(t)
	s.mustPublish(s.pack("hello", "1", clock, map[string]string{"a.sh": "one"}))
	if _, err := s.remove("hello", "1"); err != nil {
		t.Fatal(err)
	}
	stream, err := s.admin.JetStream().Stream(t.Context(), "KV_"+events.BucketPackages)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.GetLastMsgForSubject(t.Context(), "$KV."+events.BucketPackages+"."+packageKey("hello", "1")); !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("left: %+v, %v", m, err)
	}
}

func TestHealthTellsOfWorkThatCannotBeCompleted(t *testing.T) {
	s := begin(t)
	rec := s.newRecord(storedManifest{digest: events.DigestOf(nil), manifest: events.Manifest{Package: "hello", Version: "1"}}, "admin")
	if _, err := s.records.put(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	if err := s.admin.JetStream().DeleteStream(t.Context(), events.StreamEvents); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.until("health tells", func() bool {
		err := s.Healthy(t.Context())
		return err != nil && strings.Contains(err.Error(), "hello 1")
	})
}

func TestAManifestThatIsRemovedMeanwhileIsNotCommitted(t *testing.T) {
	s := begin(t)
	p := s.pack("hello", "1", clock, map[string]string{"a.sh": "one"})
	for text, digest := range map[string]string{"one": p.Blobs[0].SHA256, string(p.Envelope): p.Digest} {
		if err := s.blobs.Put(t.Context(), digest, int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	s.changing.Lock() // as a removal does
	answer := make(chan error, 1)
	go func() {
		_, err := s.commit(t.Context(), "admin", events.CommitRequest{Manifest: p.Digest})
		answer <- err
	}()
	s.until("the commit waits", func() bool {
		stacks := make([]byte, 1<<20)
		return slices.ContainsFunc(strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n"), func(g string) bool {
			return strings.Contains(g, "(*Service).commit(") && strings.Contains(g, "sync.(*Mutex).Lock")
		})
	})
	err := s.blobs.Remove(p.Digest)
	s.changing.Unlock()
	if committed := <-answer; err != nil || !errors.Is(committed, bus.ErrBadRequest) {
		t.Errorf("committed: %v, %v", committed, err)
	}
}
