package vault

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEveryStepOfARekeyingLeavesEverythingReadable(t *testing.T) {
	r := newRig(t)
	running, other := r.open(), r.open() // other reads nothing by itself
	old := r.seal(running, "a", 1)
	first, err := running.State(t.Context())
	if err != nil || first.Former != 0 || first.KeptBy != "file:"+r.key {
		t.Fatalf("state %+v, %v", first, err)
	}

	r.now = r.now.Add(time.Hour)
	second, err := running.AddKey(t.Context())
	if err != nil || second.Key == first.Key || second.Former != 1 || !second.Since.Equal(r.now) {
		t.Fatalf("state %+v, %v", second, err)
	}
	// A crash here: whoever starts, and who runs, opens both and seals by the new key.
	recent := r.seal(other, "a", 2)
	for _, v := range []*Vault{running, other, r.open()} {
		r.opens(v, "a", 1, old)
		r.opens(v, "a", 2, recent)
		if v.Current(old) || !v.Current(recent) {
			t.Error("the former key seals")
		}
		if got, err := v.State(t.Context()); err != nil || got != second {
			t.Errorf("state %+v, %v, want %+v", got, err, second)
		}
	}

	// Of another replica: not its key any more.
	if got, err := other.Retire(t.Context(), first.Key); err != nil || got != second {
		t.Errorf("state %+v, %v: keys were removed for the wrong one", got, err)
	}
	r.opens(r.open(), "a", 1, old)

	third, err := running.Retire(t.Context(), second.Key)
	if err != nil || third.Former != 0 || third.Key != second.Key || !third.Since.Equal(second.Since) {
		t.Fatalf("state %+v, %v", third, err)
	}
	v := r.open()
	r.opens(v, "a", 2, recent)
	if err := v.Check(t.Context(), "a", 1, old); err == nil {
		t.Error("the former key is still there")
	}
	before := r.stored()
	if got, err := v.Retire(t.Context(), second.Key); err != nil || got != third {
		t.Errorf("again: %+v, %v", got, err)
	}
	if diff := cmp.Diff(before, r.stored()); diff != "" {
		t.Errorf("it was stored for nothing: %s", diff)
	}
}

func TestAReplicaOpensWhatAnotherSealedByANewKey(t *testing.T) {
	r := newRig(t)
	one, two := r.open(), r.open()
	if _, err := one.AddKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealed := r.seal(one, "a", 1)
	if two.Current(sealed) {
		t.Fatal("it knew before")
	}
	r.opens(two, "a", 1, sealed)
	if !two.Current(sealed) {
		t.Error("it did not read the keyset")
	}
}

func TestACrashInTheMiddleOfStoringLeavesTheKeysetBefore(t *testing.T) {
	r := newRig(t)
	sealed := r.seal(r.open(), "a", 1)
	writeFile(t, filepath.Join(r.dir, File+".123"), []byte(`{"format":1,`))
	r.opens(r.open(), "a", 1, sealed)
	if diff := cmp.Diff([]string{File, lockFile}, r.names()); diff != "" {
		t.Errorf("what was half written stays: %s", diff)
	}
}

func TestAKeyThatIsAwayAddsNoKeyAndMakesNone(t *testing.T) {
	r := newRig(t)
	v := r.open()
	sealed := r.seal(v, "a", 1)
	away := r.key + ".away"
	if err := os.Rename(r.key, away); err != nil {
		t.Fatal(err)
	}
	before := r.stored()
	if _, err := v.AddKey(t.Context()); err == nil || !strings.Contains(err.Error(), "put it back") {
		t.Error(err)
	}
	if _, err := os.Stat(r.key); err == nil {
		t.Error("another key was made")
	}
	if diff := cmp.Diff(before, r.stored()); diff != "" {
		t.Error(diff)
	}
	r.opens(v, "a", 1, sealed)
	r.seal(v, "a", 2) // the keyset did not change
	if err := os.Rename(away, r.key); err != nil {
		t.Fatal(err)
	}
	if _, err := v.AddKey(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRekeyingsThatNeverFinishEnd(t *testing.T) {
	r := newRig(t)
	v := r.open()
	for range maxKeys - 1 {
		if _, err := v.AddKey(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.AddKey(t.Context()); !errors.Is(err, ErrUnfinished) {
		t.Errorf("error %v", err)
	}
	state, err := v.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if state, err = v.Retire(t.Context(), state.Key); err != nil || state.Former != 0 {
		t.Errorf("state %+v, %v", state, err)
	}
	if _, err := v.AddKey(t.Context()); err != nil {
		t.Error(err)
	}
}
