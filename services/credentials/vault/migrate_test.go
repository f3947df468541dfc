package vault

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// clearKeyset is as an earlier version stored it, with a secret that it sealed.
func (r *rig) clearKeyset() (stored, sealed []byte) {
	r.t.Helper()
	k, err := newKeys()
	if err != nil {
		r.t.Fatal(err)
	}
	var out bytes.Buffer
	if err := insecurecleartextkeyset.Write(k.handle, keyset.NewJSONWriter(&out)); err != nil {
		r.t.Fatal(err)
	}
	if sealed, err = k.aead.Encrypt([]byte(secret), binding("a", 1)); err != nil {
		r.t.Fatal(err)
	}
	return out.Bytes(), sealed
}

func (r *rig) writeClear(data []byte) {
	r.t.Helper()
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	writeFile(r.t, filepath.Join(r.dir, clearOld), data)
}

// looks checks what is seen of the directory without opening anything.
func (r *rig) looks(keptBy string, inClear bool) {
	r.t.Helper()
	by, there, err := Look(r.dir)
	if err != nil || by != keptBy || there != inClear {
		r.t.Errorf("kept by %q, in the clear %v, %v", by, there, err)
	}
}

func TestAKeysetInTheClearIsWrappedAndDestroyed(t *testing.T) {
	r := newRig(t)
	stored, sealed := r.clearKeyset()
	r.writeClear(stored)
	writeFile(t, filepath.Join(r.dir, clearOld+".789"), stored) // a crash of the earlier version
	// Another name of the same file shows what became of the blocks.
	blocks := filepath.Join(t.TempDir(), "blocks")
	if err := os.Link(filepath.Join(r.dir, clearOld), blocks); err != nil {
		t.Fatal(err)
	}
	r.looks("", true)
	r.opens(r.open(), "a", 1, sealed)
	r.looks("file:"+r.key, false)
	r.opens(r.open(), "a", 1, sealed)
	if diff := cmp.Diff([]string{File, lockFile}, r.names()); diff != "" {
		t.Error(diff)
	}
	if left, err := os.ReadFile(blocks); err != nil || len(bytes.Trim(left, "\x00")) > 0 || len(left) != len(stored) {
		t.Errorf("the blocks hold %d bytes, %v", len(left), err)
	}
	if said := r.log.String(); strings.Count(said, "was in the clear") != 1 || !strings.Contains(said, "overwritten and removed") {
		t.Errorf("logged: %s", said)
	}
}

func TestACrashBeforeTheClearKeysetIsDestroyedIsCaughtUp(t *testing.T) {
	r := newRig(t)
	stored, sealed := r.clearKeyset()
	r.writeClear(stored)
	r.open()
	r.writeClear(stored)
	r.opens(r.open(), "a", 1, sealed)
	if diff := cmp.Diff([]string{File, lockFile}, r.names()); diff != "" {
		t.Error(diff)
	}
}

func TestAClearKeysetOfAnEarlierVersionThatRanInTheMeantimeIsKept(t *testing.T) {
	r := newRig(t)
	r.open()
	stored, _ := r.clearKeyset()
	r.writeClear(stored)
	if _, err := r.tryOpen(r.wrapper("file:"+r.key), nil); err == nil || !strings.Contains(err.Error(), "earlier version ran") {
		t.Error(err)
	}
	if left, err := os.ReadFile(filepath.Join(r.dir, clearOld)); err != nil || !bytes.Equal(left, stored) {
		t.Errorf("it was changed: %v", err)
	}
}

func TestAClearKeysetThatCannotBeReadStopsTheStart(t *testing.T) {
	for name, data := range map[string]string{
		"damaged":   `{"primaryKeyId":1,"key":[{"keyData":"` + secret + `"}]}`,
		"empty":     ``,
		"too large": strings.Repeat(" ", maxEnvelope+1),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.writeClear([]byte(data))
			if _, err := r.tryOpen(r.wrapper("file:"+r.key), nil); err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("error %v", err)
			}
			if left, err := os.ReadFile(filepath.Join(r.dir, clearOld)); err != nil || string(left) != data {
				t.Error("it was replaced")
			}
		})
	}
}

func TestAKeyThatIsAwayLeavesTheClearKeyset(t *testing.T) {
	r := newRig(t)
	stored, sealed := r.clearKeyset()
	r.writeClear(stored)
	if _, err := r.tryOpen(r.wrapper("command:/nowhere/at/all"), nil); err == nil {
		t.Error("opened")
	}
	if diff := cmp.Diff([]string{clearOld, lockFile}, r.names()); diff != "" {
		t.Error(diff)
	}
	r.opens(r.open(), "a", 1, sealed)
}

func FuzzClearKeyset(f *testing.F) {
	f.Add([]byte(`{"primaryKeyId":1,"key":[]}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := parseClear(data); err == nil {
			if _, err := k.aead.Encrypt(nil, nil); err != nil || !k.ids[k.primary] {
				t.Error("a keyset that cannot seal was accepted")
			}
		}
	})
}
