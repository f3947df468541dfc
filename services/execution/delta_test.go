package execution

import (
	"encoding/hex"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"chandler/events"
)

var compareDeltas = cmp.AllowUnexported(delta{}, removal{}, place{}, job{}, snapshot{})

func exampleDelta() delta {
	return delta{previous: 41, author: 1 << 63, status: events.Generation{Created: testTime.UnixNano(), Counter: 2}, folded: 100_000, removed: []removal{{"gone", 3}}, jobs: []job{
		{deployment: "one", agent: "aaaaaaaa", revision: 1, changed: 1_800_000_000, transition: 3, attempt: 1, state: events.Failed, reason: events.ExitCode, flags: flagCancel | flagJoined, wave: 199},
		{deployment: "one", agent: "bbbbbbbb", user: "kim", revision: 2, occurrence: -1, attempt: 65535, state: events.Waiting, waiting: events.WaitLogon},
	}, places: []place{{"aaaaaaaa", "oslo"}, {"bbbbbbbb", ""}}}
}

func TestADeltaIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := foldAll(t, drawStatuses(t), 9)
		want := exampleDelta()
		want.jobs = append(want.jobs, slices.Collect(s.all(""))...)
		got, err := decodeDelta(want.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, compareDeltas); diff != "" {
			t.Fatalf("(-written +read):\n%s", diff)
		}
	})
}

func TestASnapshotIsReadAsItWasWritten(t *testing.T) {
	zipper, unzipper, err := newZstd()
	if err != nil {
		t.Fatal(err)
	}
	want := snapshot{created: testTime.UnixNano(), sequence: 7, delta: exampleDelta()}
	got, err := decodeSnapshot(want.encode(zipper), unzipper)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareDeltas); diff != "" {
		t.Fatalf("(-written +read):\n%s", diff)
	}
}

// What version 1 wrote, without phases and sites.
const (
	deltaOfFormat1    = "440129808080808080808080018080888da19689ed3104a08d060a04676f6e65036f6e6508616161616161616100066661696c656409657869745f636f6465086262626262626262036b696d0777616974696e67056c6f676f6e010003020101020380a4a7da0603010405030004010206070000ffff030803090100"
	snapshotOfFormat1 = "530128b52ffd040095030054068080888da19689ed310729800104a08d060a04676f6e65036f6e65086100066661696c656409657869745f636f64650862036b696d0777616974696e67056c6f676f6e010003020101020380a4a7da0603010405030004010206070000ffff03080309010004004066707971960be1922612829f"
)

func TestFormat1IsReadAsTheFirstPhase(t *testing.T) {
	want := exampleDelta()
	want.places = nil
	for i := range want.jobs {
		want.jobs[i].wave, want.jobs[i].flags = 0, want.jobs[i].flags&^flagJoined
	}
	got, err := decodeDelta(bytesOf(t, deltaOfFormat1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareDeltas); diff != "" {
		t.Errorf("delta (-want +got):\n%s", diff)
	}
	_, unzipper, err := newZstd()
	if err != nil {
		t.Fatal(err)
	}
	shot, err := decodeSnapshot(bytesOf(t, snapshotOfFormat1), unzipper)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(snapshot{created: testTime.UnixNano(), sequence: 7, delta: want}, shot, compareDeltas); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
}

func bytesOf(t interface{ Fatal(...any) }, text string) []byte {
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDecodersRefuse(t *testing.T) {
	_, unzipper, err := newZstd()
	if err != nil {
		t.Fatal(err)
	}
	whole := exampleDelta().encode()
	tests := []struct {
		name string
		data []byte
	}{
		{"nothing", nil},
		{"another format", append([]byte{'D', deltaFormat + 1}, whole[2:]...)},
		{"what is cut off", whole[:len(whole)-1]},
		{"what has more behind it", append(slices.Clone(whole), 0)},
		{"a number of words that cannot be there", []byte{'D', deltaFormat, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}},
		{"a format before the first", append([]byte{'D', 0}, whole[2:]...)},
		{"a word that is not there", []byte{'D', deltaFormat, 0, 0, 0, 0, 0, 0, 1, 5}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if d, err := decodeDelta(test.data); err == nil {
				t.Errorf("read as %v", d)
			}
			if s, err := decodeSnapshot(test.data, unzipper); err == nil {
				t.Errorf("read as snapshot %v", s)
			}
		})
	}
}

func FuzzDecodeDelta(f *testing.F) {
	f.Add(exampleDelta().encode())
	f.Add(delta{}.encode())
	f.Add(bytesOf(f, deltaOfFormat1))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := decodeDelta(data)
		if err != nil {
			return
		}
		again, err := decodeDelta(d.encode())
		if err != nil {
			t.Fatalf("what was read cannot be written and read: %v", err)
		}
		if diff := cmp.Diff(d, again, compareDeltas); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
		if err := newJobs(newCodes()).apply(1, d); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	zipper, unzipper, err := newZstd()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(snapshot{created: 1, sequence: 2, delta: exampleDelta()}.encode(zipper))
	f.Add(bytesOf(f, snapshotOfFormat1))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		s, err := decodeSnapshot(data, unzipper)
		if err != nil {
			return
		}
		if _, err := decodeSnapshot(s.encode(zipper), unzipper); err != nil {
			t.Fatalf("what was read cannot be written and read: %v", err)
		}
	})
}
