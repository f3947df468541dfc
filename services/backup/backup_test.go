package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/eventstest"
)

// taken backs up what a broker holds.
func taken(t *testing.T, nc *nats.Conn, change ...func(*Options)) []byte {
	t.Helper()
	var out bytes.Buffer
	o := Options{Conn: nc, Account: GlobalAccount, Version: "test", Now: time.Now(), Scratch: t.TempDir()}
	for _, c := range change {
		c(&o)
	}
	if _, err := Write(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(o.Scratch); err != nil || len(left) != 0 {
		t.Errorf("it leaves %v (%v)", left, err)
	}
	return out.Bytes()
}

// restored makes a directory of an archive and opens its streams.
func restored(t *testing.T, archive []byte) (dir string, js jetstream.JetStream) {
	t.Helper()
	if _, err := Verify(t.Context(), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	m, err := Extract(t.Context(), bytes.NewReader(archive), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Open(t.Context(), filepath.Join(dir, StoreName), m.Account, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	js, err = jetstream.New(o.Conn)
	if err != nil {
		t.Fatal(err)
	}
	return dir, js
}

func newBroker(t *testing.T) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	return b.Conn(), b.JetStream()
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// keys of a bucket with their values.
func keys(t *testing.T, js jetstream.JetStream, bucket string) map[string]string {
	t.Helper()
	kv := must[jetstream.KeyValue](t)(js.KeyValue(t.Context(), bucket))
	names, err := kv.Keys(t.Context())
	if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range names {
		all[name] = string(must[jetstream.KeyValueEntry](t)(kv.Get(t.Context(), name)).Value())
	}
	return all
}

func TestARestoreHasEveryMessageKeyAndObject(t *testing.T) {
	nc, js := newBroker(t)
	for i := range 300 {
		must[*jetstream.PubAck](t)(js.Publish(t.Context(), events.HistorySubject(fmt.Sprint("agent", i%7)), bytes.Repeat([]byte{byte(i)}, 2000)))
	}
	kv := must[jetstream.KeyValue](t)(js.KeyValue(t.Context(), events.BucketDeployments))
	for i := range 30 {
		must[uint64](t)(kv.PutString(t.Context(), fmt.Sprint("k", i%10), fmt.Sprint("v", i)))
	}
	if err := kv.Delete(t.Context(), "k3"); err != nil {
		t.Fatal(err)
	}
	store := must[jetstream.ObjectStore](t)(js.ObjectStore(t.Context(), events.BucketFold))
	must[*jetstream.ObjectInfo](t)(store.PutBytes(t.Context(), "p0.x", bytes.Repeat([]byte("fold"), 100_000)))
	before := must[jetstream.Stream](t)(js.Stream(t.Context(), events.StreamHistory))

	_, again := restored(t, taken(t, nc))

	after := must[jetstream.Stream](t)(again.Stream(t.Context(), events.StreamHistory))
	if b, a := before.CachedInfo(), after.CachedInfo(); a.State.Msgs != 300 || a.State.LastSeq != b.State.LastSeq || a.State.NumSubjects != 7 {
		t.Errorf("HISTORY holds %+v", a.State)
	} else if !a.Created.After(b.Created) {
		t.Errorf("created at %s, as before: agents would not hear that it began anew", a.Created)
	}
	for _, sequence := range []uint64{1, 150, 300} {
		want := must[*jetstream.RawStreamMsg](t)(before.GetMsg(t.Context(), sequence))
		got := must[*jetstream.RawStreamMsg](t)(after.GetMsg(t.Context(), sequence))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff(keys(t, js, events.BucketDeployments), keys(t, again, events.BucketDeployments)); diff != "" {
		t.Error(diff)
	}
	if got := must[[]byte](t)(must[jetstream.ObjectStore](t)(again.ObjectStore(t.Context(), events.BucketFold)).GetBytes(t.Context(), "p0.x")); len(got) != 400_000 {
		t.Errorf("the object has %d bytes", len(got))
	}
}

func TestAKeyThatIsWrittenWhileItsBucketIsCopiedIsNotLost(t *testing.T) {
	nc, js := newBroker(t)
	kv := must[jetstream.KeyValue](t)(js.KeyValue(t.Context(), events.BucketAgents))
	const many = 200
	write := func(round int) error {
		for i := range many {
			if _, err := kv.PutString(t.Context(), fmt.Sprint("agent", i), fmt.Sprint(round, strings.Repeat(".", 2000))); err != nil {
				return err
			}
		}
		return nil
	}
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for round := 1; ctx.Err() == nil; round++ {
			if err := write(round); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	archives := [][]byte{taken(t, nc), taken(t, nc), taken(t, nc)}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	since := 0
	for _, archive := range archives {
		m := must[Manifest](t)(Verify(t.Context(), bytes.NewReader(archive)))
		for _, e := range m.Entries {
			if _, later, ok := e.stream(); ok && later {
				since++
			}
		}
		_, again := restored(t, archive)
		if got := keys(t, again, events.BucketAgents); len(got) != many {
			t.Errorf("%d of %d keys are there", len(got), many)
		}
	}
	if since == 0 {
		t.Error("nothing was written meanwhile: this showed nothing")
	}
}

func TestADurableReaderGoesOnWhereItWasAndSkipsNothing(t *testing.T) {
	nc, js := newBroker(t)
	publish := func(from, to int) {
		for i := from; i <= to; i++ {
			must[*jetstream.PubAck](t)(js.Publish(t.Context(), "chandler.event.test.happened.x", []byte(fmt.Sprint(i))))
		}
	}
	publish(1, 10)
	reader := must[jetstream.Consumer](t)(js.CreateConsumer(t.Context(), events.StreamEvents, jetstream.ConsumerConfig{Durable: "execution", AckPolicy: jetstream.AckExplicitPolicy}))
	other := jetstream.ConsumerConfig{Durable: "execution-0", AckPolicy: jetstream.AckExplicitPolicy, PriorityPolicy: jetstream.PriorityPolicyPinned, PriorityGroups: []string{"all"}, PinnedTTL: time.Minute}
	must[jetstream.Consumer](t)(js.CreateConsumer(t.Context(), events.StreamStatus, other))
	for range 4 {
		m := must[jetstream.Msg](t)(reader.Next())
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	must[jetstream.Msg](t)(reader.Next()) // delivered and not done

	_, again := restored(t, taken(t, nc))

	must[*jetstream.PubAck](t)(again.Publish(t.Context(), "chandler.event.test.happened.x", []byte("11")))
	reader = must[jetstream.Consumer](t)(again.Consumer(t.Context(), events.StreamEvents, "execution"))
	for i := 5; i <= 11; i++ {
		if m := must[jetstream.Msg](t)(reader.Next()); string(m.Data()) != fmt.Sprint(i) {
			t.Errorf("message %s comes, %d should", m.Data(), i)
		}
	}
	pinned := must[jetstream.Consumer](t)(again.Consumer(t.Context(), events.StreamStatus, "execution-0"))
	if diff := cmp.Diff(other.PriorityGroups, pinned.CachedInfo().Config.PriorityGroups); diff != "" {
		t.Error(diff)
	}
}

func TestFilesComeBackPrivateAndWhatChangesMeanwhileIsAnError(t *testing.T) {
	nc, _ := newBroker(t)
	from := t.TempDir()
	file := func(name, text string) File {
		path := filepath.Join(from, filepath.Base(name))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return File{Name: name, Path: path, Blob: strings.HasPrefix(name, "content/")}
	}
	files := []File{file("identity/fleet.json", "{}"), file("content/ab/abcd", "bytes")}
	archive := taken(t, nc, func(o *Options) {
		o.Fleet, o.Files, o.Steady = "f1", func() ([]File, error) { return files, nil }, files[:1]
	})
	dir, _ := restored(t, archive)
	for name, want := range map[string]string{"identity/fleet.json": "{}", "content/ab/abcd": "bytes"} {
		got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		info, statErr := os.Stat(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil || statErr != nil || string(got) != want || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %q, %v, %v", name, got, err, info.Mode())
		}
	}

	o := Options{Conn: nc, Account: GlobalAccount, Now: time.Now(), Scratch: t.TempDir(), Steady: files[:1]}
	o.Files = func() ([]File, error) { return files, os.WriteFile(files[0].Path, []byte("other"), 0o600) }
	if _, err := Write(t.Context(), &bytes.Buffer{}, o); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("a keyset that changed: %v", err)
	}
}
