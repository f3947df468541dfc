package credentials

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// value is an entry of a bucket that was put.
type value struct {
	jetstream.KeyValueEntry
	key             string
	revision, delta uint64
	operation       jetstream.KeyValueOp
}

func (v value) Key() string                     { return v.key }
func (v value) Value() []byte                   { return []byte(v.key) }
func (v value) Revision() uint64                { return v.revision }
func (v value) Delta() uint64                   { return v.delta }
func (v value) Operation() jetstream.KeyValueOp { return v.operation }

func TestAReadingGoesOnUntilNothingIsPending(t *testing.T) {
	for name, c := range map[string]struct {
		updates []jetstream.KeyValueEntry // and then the broker cuts
		want    []string
		next    uint64
		cut     bool
	}{
		"nothing is there":                   {updates: []jetstream.KeyValueEntry{nil}, next: 1},
		"it ends where nothing is pending":   {updates: []jetstream.KeyValueEntry{value{key: "a", revision: 3, delta: 1}, value{key: "b", revision: 4}, nil}, want: []string{"a", "b"}, next: 5},
		"a value was replaced meanwhile":     {updates: []jetstream.KeyValueEntry{value{key: "a", revision: 3, delta: 1}, nil, value{key: "b", revision: 9}}, want: []string{"a", "b"}, next: 10},
		"a key was deleted":                  {updates: []jetstream.KeyValueEntry{value{key: "a", revision: 3, operation: jetstream.KeyValuePurge}}, want: []string{"a gone"}, next: 4},
		"it is cut before the end":           {updates: []jetstream.KeyValueEntry{value{key: "a", revision: 3, delta: 1}}, want: []string{"a"}, next: 4, cut: true},
		"it is cut before it begins":         {next: 1, cut: true},
		"it is cut after the present values": {updates: []jetstream.KeyValueEntry{value{key: "a", revision: 3, delta: 2}, nil}, want: []string{"a"}, next: 4, cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			r := newBucketReader(&bucket{}, nil, func(key string, value []byte) {
				if value == nil {
					key += " gone"
				}
				got = append(got, key)
			})
			updates := make(chan jetstream.KeyValueEntry, len(c.updates))
			for _, u := range c.updates {
				updates <- u
			}
			close(updates)
			err := r.take(t.Context(), updates)
			if diff := cmp.Diff(c.want, got); diff != "" || r.next != c.next || (err != nil) != c.cut {
				t.Errorf("next %d, error %v, %s", r.next, err, diff)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newBucketReader(&bucket{}, nil, nil).take(ctx, make(chan jetstream.KeyValueEntry)); !errors.Is(err, context.Canceled) {
		t.Errorf("after its time: %v", err)
	}
}

func TestWhoeverRefreshesKnowsWhatWasWrittenBefore(t *testing.T) {
	f := newFleet(t)
	writer, readers := f.replica(), []*Service{f.replica(), f.replica()}
	const agents = 5
	for round := range 40 {
		var writing, reading sync.WaitGroup
		for n := range agents { // which replace each other's neighbours while they are read
			writing.Go(func() { put(t, writer, n, round) })
		}
		for _, r := range readers {
			reading.Go(func() { _ = r.mirror.refresh(t.Context()) }) // whatever it finds
		}
		writing.Wait()
		for _, r := range readers {
			if err := r.mirror.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			found, _, err := r.mirror.page("", 100, func(string, shadow) bool { return true })
			if err != nil || len(found) != agents {
				t.Fatalf("%d agents, %v", len(found), err)
			}
			for _, a := range found {
				if a.Trust != round {
					t.Fatalf("agent %s is at %d in round %d", a.Agent, a.Trust, round)
				}
			}
		}
		reading.Wait()
	}
}

func put(t *testing.T, s *Service, n, round int) {
	t.Helper()
	_, err := change(t.Context(), s.enrolments, fmt.Sprintf("%sagent%04d", agentKeys, n), func(old agentRecord, _ bool) (agentRecord, error) {
		old.Agent, old.Trust, old.Told = fmt.Sprintf("agent%04d", n), round, true
		return old, nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestABucketThatWasLostIsReadAnew(t *testing.T) {
	f := newFleet(t)
	r := f.ready()
	k := f.token("office", 1)
	m := f.machine("ws-1")
	m.want(m.enrol(k), "")
	for _, bucket := range []string{events.BucketEnrolments, events.BucketTrust} {
		if err := f.admin.JetStream().DeleteKeyValue(t.Context(), bucket); err != nil {
			t.Fatal(err)
		}
	}
	all, err := ask(f.story, "ada", events.TokenList, events.Nothing{})
	if err != nil || len(all.Tokens) != 0 {
		t.Errorf("listed %+v, %v", all, err)
	}
	if _, err := f.set(f.bundle(7)); err != nil { // the roots' newest bundle begins it again
		t.Fatal(err)
	}
	m.want(m.comeBack(), events.RefusedUnknown)
	if n := r.mirror.states(f.clock.Now())[events.EnrolmentActive]; n != 0 {
		t.Errorf("%d agents", n)
	}
	m.want(m.enrol(f.token("again", 1)), "")
}

// BenchmarkMirror tells the memory that the mirror takes for an agent.
func BenchmarkMirror(b *testing.B) {
	m := newMirror(&bucket{}, time.Hour, (&lines{}).logger())
	before := heap()
	for i := range b.N {
		id := events.AgentID(fmt.Append(nil, i))
		r := agentRecord{State: events.EnrolmentActive, What: events.AgentEnrolled.Name, Machine: strings.Repeat("a", 64), Use: "ABCDEFGHIJ",
			EnrolmentNotice: events.EnrolmentNotice{Agent: id, Key: "U" + strings.Repeat("A", 55), Hostname: "workstation-0412", Token: "oslo-office",
				Conferred: events.Conferred{Tags: []string{"office"}, Site: "oslo", ClientKind: events.Advanced}},
			Facts: events.Facts{ID: id, Hostname: "workstation-0412", Domain: "corp.example", OS: "windows", OSName: "Microsoft Windows 11 Enterprise", OSVersion: "10.0.26100",
				Arch: "amd64", Kernel: "10.0.26100.1234", Addresses: []string{"192.0.2.17", "2001:db8::17"}, Version: "0.3.0", Zone: "Europe/Oslo", BootID: "0d2a6a3e-8f0e-4a5b-9d7b-0f6f9d2b6a11"}}
		if err := m.learn(agentKeys+id, marshal(b, r), time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(heap()-before)/float64(b.N), "B/agent")
	runtime.KeepAlive(m)
}

func heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
