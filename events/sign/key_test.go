package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
)

func key(t testing.TB, fill byte) Key {
	t.Helper()
	k, err := NewKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAKeySurvivesItsFile(t *testing.T) {
	k := key(t, 7)
	data, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseKey(data)
	if err != nil || back.Public() != k.Public() {
		t.Fatalf("got %v, %v", back, err)
	}
	signature, err := back.Sign([]byte("message"))
	if err != nil || !fits(k.Public(), []byte("message"), signature) {
		t.Fatalf("what the parsed key signs does not fit the first: %v", err)
	}
}

func TestOnlyEd25519KeysInPKCS8AreRead(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	good, err := key(t, 1).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"nothing":              nil,
		"no PEM":               []byte("hello"),
		"an ECDSA key":         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"a public key":         pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"half a key":           pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der[:20]}),
		"far too large a file": append(good, make([]byte, maxKeyFile)...),
	} {
		if k, err := ParseKey(data); err == nil {
			t.Errorf("%s was read as %v", name, k)
		}
	}
	if _, err := NewKey(make([]byte, 31)); err == nil {
		t.Error("31 bytes of entropy were taken")
	}
}

func TestAWipedKeySignsNothingMore(t *testing.T) {
	k := key(t, 1)
	copied := k
	k.Wipe()
	Key{}.Wipe() // nothing to do, and no panic
	for name, gone := range map[string]Key{"the copy": copied, "a zero key": {}} {
		if _, err := gone.Sign([]byte("m")); err == nil {
			t.Errorf("%s signed", name)
		}
		if _, err := gone.Marshal(); err == nil {
			t.Errorf("%s was written", name)
		}
		if gone.Public() != (PublicKey{}) {
			t.Errorf("%s has the public key %v", name, gone.Public())
		}
		if _, err := Seal("x", nil, gone); err == nil {
			t.Errorf("%s sealed", name)
		}
	}
}

func TestNoWayOfPrintingShowsAPrivateKey(t *testing.T) {
	k := key(t, 0xab)
	nested := struct {
		key  Key
		Open Key
	}{k, k}
	asJSON, err := json.Marshal(nested)
	if err != nil {
		t.Fatal(err)
	}
	printed := string(asJSON)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		printed += fmt.Sprintf(verb+verb, k, nested)
	}
	for _, secret := range []string{"171 171", "abab", "0xab, 0xab", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xab}, 30))} {
		if strings.Contains(printed, secret) {
			t.Errorf("%q is shown in %s", secret, printed)
		}
	}
}

func TestMalformedPublicKeysAreRefused(t *testing.T) {
	good := key(t, 1).Public().Named("ada@laptop")
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	if good.ID() == "" || good.ID() != key(t, 1).Public().ID() {
		t.Fatalf("the id %q depends on the name", good.ID())
	}
	for name, p := range map[string]PublicKey{
		"no name":                     good.Named(""),
		"a long name":                 good.Named(strings.Repeat("x", MaxName+1)),
		"a name that moves a cursor":  good.Named("ada\x1b[2J"),
		"a name that is not UTF-8":    good.Named("\xff"),
		"a name that runs right-left": good.Named("ada\u202e"),
		"no key":                      {Name: "a"},
		"a short key":                 {Name: "a", Key: "aaaa"},
		"a second form of base64":     {Name: "a", Key: good.Key[:10] + "\n" + good.Key[10:]},
		"a key of zeros":              {Name: "a", Key: base64.StdEncoding.EncodeToString(make([]byte, 32))},
	} {
		if err := p.Validate(); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if id := (PublicKey{Key: "aaaa"}).ID(); id != "" {
		t.Errorf("a malformed key has the id %s", id)
	}
}

func TestKeysThatAnybodyCanSignForAreRefused(t *testing.T) {
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1 // R is the neutral point, S is zero: it fits where the hash is a multiple of the key's order
	for _, encoded := range anybodys() {
		for _, signBit := range []byte{0, 0x80} {
			raw, err := hex.DecodeString(encoded)
			if err != nil {
				t.Fatal(err)
			}
			raw[31] |= signBit
			fits := false
			for i := range 500 {
				fits = fits || ed25519.Verify(raw, fmt.Append(nil, i), forged)
			}
			if p := (PublicKey{Name: "a", Key: base64.StdEncoding.EncodeToString(raw)}); !fits && signBit == 0 || p.Validate() == nil || p.ID() != "" {
				t.Errorf("%x: forged %v, taken %v", raw, fits, p.Validate() == nil)
			}
		}
	}
}

func FuzzParseKey(f *testing.F) {
	data, err := key(f, 1).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKey(data)
		if err != nil {
			return
		}
		again, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseKey(again); err != nil || back.Public() != k.Public() {
			t.Fatalf("%v became %v: %v", k, back, err)
		}
	})
}
