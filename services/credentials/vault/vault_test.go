package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// secret is planted and looked for afterwards.
const secret = "Pl4nted-s3cret-5d0c7e14-do-not-leak"

// rig is a directory for a vault and, beside it, one for its key-encryption key.
type rig struct {
	t        *testing.T
	dir, key string
	log      bytes.Buffer
	now      time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	root := t.TempDir()
	return &rig{t: t, dir: filepath.Join(root, "deep", "keys"), key: filepath.Join(root, "deep", "keys-key", "accounts.key"), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func (r *rig) wrapper(key string) Wrapper {
	r.t.Helper()
	w, err := Parse(key)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

func (r *rig) tryOpen(key, former Wrapper) (*Vault, error) {
	return Open(r.t.Context(), Options{Dir: r.dir, Key: key, Former: former, Log: slog.New(slog.NewTextHandler(&r.log, nil)), Now: func() time.Time { return r.now }})
}

func (r *rig) open() *Vault {
	r.t.Helper()
	v, err := r.tryOpen(r.wrapper("file:"+r.key), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *rig) seal(v *Vault, account string, version int) []byte {
	r.t.Helper()
	sealed, err := v.Seal(r.t.Context(), account, version, []byte(secret))
	if err != nil {
		r.t.Fatal(err)
	}
	return sealed
}

func (r *rig) opens(v *Vault, account string, version int, sealed []byte) {
	r.t.Helper()
	got, err := v.Unseal(r.t.Context(), account, version, sealed)
	if err != nil || string(got) != secret {
		r.t.Errorf("opened %q, %v", got, err)
	}
}

// stored is the keyset file.
func (r *rig) stored() envelope {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, File))
	if err != nil {
		r.t.Fatal(err)
	}
	e, err := parseEnvelope(data)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func (r *rig) names() (names []string) {
	r.t.Helper()
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASecretIsBoundToItsAccountAndVersion(t *testing.T) {
	r := newRig(t)
	v := r.open()
	sealed := r.seal(v, "a", 1)
	altered := bytes.Clone(sealed)
	altered[len(altered)-1] ^= 1
	unknown := bytes.Clone(sealed)
	unknown[1] ^= 1
	for name, c := range map[string]struct {
		account string
		version int
		sealed  []byte
		says    string
	}{
		"its own":         {"a", 1, sealed, ""},
		"another account": {"b", 1, sealed, "not the secret of account b"},
		"another version": {"a", 2, sealed, "version 2"},
		"altered":         {"a", 1, altered, "damaged"},
		"an unknown key":  {"a", 1, unknown, "not in the keyset"},
		"cut":             {"a", 1, sealed[:5], "damaged"},
		"nothing":         {"a", 1, nil, "not what a vault seals"},
		"in the clear":    {"a", 1, []byte(secret), "not what a vault seals"},
	} {
		t.Run(name, func(t *testing.T) {
			err := v.Check(t.Context(), c.account, c.version, c.sealed)
			if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret)) {
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
}

func TestReplicasThatStartTogetherShareOneKeysetAndOneKey(t *testing.T) {
	r := newRig(t)
	var all sync.WaitGroup
	vaults := make([]*Vault, 4)
	for i := range vaults {
		all.Go(func() {
			key, err := Parse("file:" + r.key)
			if err != nil {
				t.Error(err)
				return
			}
			if vaults[i], err = Open(t.Context(), Options{Dir: r.dir, Key: key, Log: slog.New(slog.DiscardHandler)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	sealed := r.seal(vaults[0], "a", 1)
	for _, v := range vaults {
		r.opens(v, "a", 1, sealed)
	}
	if diff := cmp.Diff([]string{File, lockFile}, r.names()); diff != "" {
		t.Error(diff)
	}
	if key, err := os.ReadFile(r.key); err != nil || len(key) != fileKeySize {
		t.Errorf("the key has %d bytes, %v", len(key), err)
	}
}

func TestNothingOfTheKeysetIsReadableInItsFile(t *testing.T) {
	r := newRig(t)
	v := r.open()
	plain, err := v.held.Load().bytes()
	if err != nil {
		t.Fatal(err)
	}
	e := r.stored()
	if bytes.Contains(e.Wrapped, plain[len(plain)/2:]) || e.KeptBy != "file:"+r.key || !e.Since.Equal(r.now) {
		t.Errorf("stored is %+v", e)
	}
}

func TestAKeysetThatCannotBeOpenedStopsTheStartAndStays(t *testing.T) {
	other := func(r *rig) {
		if err := os.WriteFile(r.key, bytes.Repeat([]byte{7}, fileKeySize), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	edit := func(change func(*envelope)) func(*rig) {
		return func(r *rig) {
			e := r.stored()
			change(&e)
			data, err := json.Marshal(e)
			if err != nil {
				r.t.Fatal(err)
			}
			writeFile(r.t, filepath.Join(r.dir, File), data)
		}
	}
	for name, c := range map[string]struct {
		harm  func(*rig)
		says  string
		whole bool // so far as that is seen without opening it
	}{
		"another key":              {other, "is another key", true},
		"a key that is gone":       {func(r *rig) { _ = os.Remove(r.key) }, "put it back", true},
		"a key that is cut":        {func(r *rig) { writeFile(r.t, r.key, []byte(secret[:31])) }, "31 bytes", true},
		"a key that is too long":   {func(r *rig) { writeFile(r.t, r.key, []byte(secret)) }, "larger than 32", true},
		"an altered keyset":        {edit(func(e *envelope) { e.Wrapped[len(e.Wrapped)-1] ^= 1 }), "was altered", true},
		"a cut keyset":             {edit(func(e *envelope) { e.Wrapped = e.Wrapped[:8] }), "was altered", true},
		"another kind of key":      {edit(func(e *envelope) { e.KeptBy = "command:/usr/bin/true" }), "--former-key-encryption", true},
		"a later format":           {edit(func(e *envelope) { e.Format = 2 }), "format is 2", false},
		"a file that is no keyset": {func(r *rig) { writeFile(r.t, filepath.Join(r.dir, File), []byte(secret)) }, "damaged", false},
		"an empty file":            {func(r *rig) { writeFile(r.t, filepath.Join(r.dir, File), nil) }, "damaged", false},
		"a directory in its place": {func(r *rig) {
			if err := errors.Join(os.Remove(filepath.Join(r.dir, File)), os.Mkdir(filepath.Join(r.dir, File), 0o700)); err != nil {
				r.t.Fatal(err)
			}
		}, "no regular file", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.open()
			c.harm(r)
			before, _ := os.ReadFile(filepath.Join(r.dir, File))
			if _, _, err := Look(r.dir); (err == nil) != c.whole {
				t.Errorf("looked at: %v", err)
			}
			if _, err := r.tryOpen(r.wrapper("file:"+r.key), nil); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if after, _ := os.ReadFile(filepath.Join(r.dir, File)); !bytes.Equal(before, after) {
				t.Error("the keyset was replaced")
			}
		})
	}
}

func TestAKeysetWrappedForAnotherPurposeIsRefused(t *testing.T) {
	r := newRig(t)
	v := r.open()
	plain, err := v.held.Load().bytes()
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := v.key.Wrap(t.Context(), plain, []byte("another purpose"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unwrapBy(t.Context(), v.key, wrapped); err == nil {
		t.Error("it was opened")
	}
}

func TestWithoutItsFileNothingMoreIsSealed(t *testing.T) {
	r := newRig(t)
	v := r.open()
	sealed := r.seal(v, "a", 1)
	if err := os.Remove(filepath.Join(r.dir, File)); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Seal(t.Context(), "a", 2, []byte(secret)); err == nil {
		t.Error("sealed by a keyset that is only in memory")
	}
	r.opens(v, "a", 1, sealed)
}

func TestTheKeyEncryptionKeyIsChangedByOneStart(t *testing.T) {
	r := newRig(t)
	sealed := r.seal(r.open(), "a", 1)
	next := filepath.Join(filepath.Dir(r.key), "elsewhere", "next.key")
	if _, err := r.tryOpen(r.wrapper("file:"+next), nil); err == nil {
		t.Error("opened by a key that is not there")
	}
	if _, err := os.Stat(next); err == nil {
		t.Fatal("a key was made that opens nothing")
	}
	v, err := r.tryOpen(r.wrapper("file:"+next), r.wrapper("file:"+r.key))
	if err != nil {
		t.Fatal(err)
	}
	r.opens(v, "a", 1, sealed)
	if by := r.stored().KeptBy; by != "file:"+next {
		t.Errorf("it is kept by %s", by)
	}
	if err := os.Remove(r.key); err != nil {
		t.Fatal(err)
	}
	before := r.stored()
	for _, former := range []Wrapper{nil, r.wrapper("file:" + r.key)} { // the former one may be named for ever
		v, err := r.tryOpen(r.wrapper("file:"+next), former)
		if err != nil {
			t.Fatal(err)
		}
		r.opens(v, "a", 1, sealed)
	}
	if diff := cmp.Diff(before, r.stored()); diff != "" {
		t.Errorf("it was wrapped again: %s", diff)
	}
}

func TestAKeyThatMovedOpensWhatItWrapped(t *testing.T) {
	r := newRig(t)
	sealed := r.seal(r.open(), "a", 1)
	moved := r.key + ".moved"
	if err := os.Rename(r.key, moved); err != nil {
		t.Fatal(err)
	}
	v, err := r.tryOpen(r.wrapper("file:"+moved), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.opens(v, "a", 1, sealed)
	if by := r.stored().KeptBy; by != "file:"+moved {
		t.Errorf("it is kept by %s", by)
	}
}

// faulty is a key-encryption key that does what a test wants.
type faulty struct {
	wrap, unwrap func([]byte) ([]byte, error)
}

func (faulty) Name() string { return "faulty:one" }
func (f faulty) Wrap(_ context.Context, plain, _ []byte) ([]byte, error) {
	return f.wrap(plain)
}
func (f faulty) Unwrap(_ context.Context, wrapped, _ []byte) ([]byte, error) {
	return f.unwrap(wrapped)
}

func TestAKeyEncryptionKeyThatCannotGiveBackIsNotUsed(t *testing.T) {
	same := func(b []byte) ([]byte, error) { return bytes.Clone(b), nil }
	flip := func(b []byte) ([]byte, error) {
		b = bytes.Clone(b)
		for i := range b {
			b[i] ^= 0x5a
		}
		return b, nil
	}
	var given []byte
	long := func(b []byte) ([]byte, error) {
		given = bytes.Clone(b)
		return make([]byte, maxWrapped+1), nil
	}
	short := func([]byte) ([]byte, error) { return bytes.Clone(given), nil }
	fails := func([]byte) ([]byte, error) { return nil, errors.New("away") }
	for name, c := range map[string]struct {
		key  faulty
		says string
	}{
		"it encrypts nothing":          {faulty{same, same}, "as it was"},
		"it gives something else back": {faulty{flip, same}, "does not give back"},
		"it cannot unwrap":             {faulty{flip, fails}, "cannot open what it made: away"},
		"it cannot wrap":               {faulty{fails, flip}, "away"},
		"it wraps to far too much":     {faulty{long, short}, "not 1 to"},
		"it wraps to nothing":          {faulty{func(b []byte) ([]byte, error) { _, _ = long(b); return nil, nil }, short}, "has 0 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			sealed := r.seal(r.open(), "a", 1)
			before := r.stored()
			if _, err := r.tryOpen(c.key, r.wrapper("file:"+r.key)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if diff := cmp.Diff(before, r.stored()); diff != "" {
				t.Error(diff)
			}
			r.opens(r.open(), "a", 1, sealed)
		})
	}
}

func TestTheLockIsWaitedForNoLongerThanTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), lockFile)
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another process") {
		t.Error(err)
	}
	unlock()
	again, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestWhatAVaultNeeds(t *testing.T) {
	for _, o := range []Options{{}, {Dir: t.TempDir()}, {Dir: t.TempDir(), Key: faulty{}}} {
		if _, err := Open(t.Context(), o); err == nil {
			t.Errorf("opened with %+v", o)
		}
	}
}
