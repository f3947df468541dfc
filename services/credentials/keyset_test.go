package credentials

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestASecretIsBoundToItsAccountAndVersion(t *testing.T) {
	k, err := openKeyset(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.seal("a", 1, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Clone(sealed)
	altered[len(altered)-1] ^= 1
	for name, c := range map[string]struct {
		account string
		version int
		sealed  []byte
		ok      bool
	}{
		"its own":         {"a", 1, sealed, true},
		"another account": {"b", 1, sealed, false},
		"another version": {"a", 2, sealed, false},
		"altered":         {"a", 1, altered, false},
		"nothing":         {"a", 1, nil, false},
	} {
		if err := k.check(c.account, c.version, c.sealed); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheKeysetIsMadeOnceForItsUserAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "credentials")
	var all sync.WaitGroup
	keysets := make([]sealer, 4)
	for i := range keysets { // replicas that start at the same time
		all.Go(func() {
			var err error
			if keysets[i], err = openKeyset(dir); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	sealed, err := keysets[0].seal("a", 1, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keysets {
		if err := k.check("a", 1, sealed); err != nil {
			t.Errorf("replica %d has another keyset: %v", i, err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != keysetFile {
		t.Errorf("the directory holds %v, %v", files, err)
	}
}

func TestAKeysetThatCannotBeReadStopsTheStart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, keysetFile)
	if err := os.WriteFile(path, []byte(`{"primaryKeyId":1,"key":[{"keyData":"`+secret+`"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeyset(dir); err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged keyset: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Contains(after, []byte(secret)) {
		t.Error("the damaged keyset was replaced")
	}
}

func FuzzKeyset(f *testing.F) {
	f.Add([]byte(`{"primaryKeyId":1,"key":[]}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := parseKeyset(data); err == nil && k.aead == nil {
			t.Error("a keyset that cannot seal was accepted")
		}
	})
}
