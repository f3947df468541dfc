package keyring

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"chandler/events/sign"
)

const testWork = 4 // of scrypt, so that tests do not take seconds

func newKey(t testing.TB) (sign.Key, ed25519.PrivateKey) {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed)
	key, err := sign.NewKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	return key, ed25519.NewKeyFromSeed(seed)
}

func says(secret string) func(string) ([]byte, error) {
	return func(string) ([]byte, error) { return []byte(secret), nil }
}

// checkSigner makes sure that a signer is of the key and signs with it.
func checkSigner(t *testing.T, s sign.Signer, want sign.PublicKey) {
	t.Helper()
	if diff := cmp.Diff(want.Key, s.Public().Key); diff != "" {
		t.Fatal(diff)
	}
	message := []byte("what is signed")
	signature, err := s.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(want.Key)
	if err != nil || !ed25519.Verify(raw, message, signature) {
		t.Fatalf("the signature of %d bytes does not fit the key: %v", len(signature), err)
	}
}

func TestAKeyIsReadAsItWasWritten(t *testing.T) {
	key, _ := newKey(t)
	for name, passphrase := range map[string]string{"plain": "", "encrypted": "correct horse"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "keys", "one.key")
			if err := write(file, key, []byte(passphrase), testWork); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil || bytes.Contains(data, []byte(privatePEM)) != (passphrase == "") {
				t.Fatalf("it is written as %s, %v", data, err)
			}
			if runtime.GOOS != "windows" {
				for name, want := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
					if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
						t.Errorf("%s: %v, %v; want mode %o", name, info.Mode(), err, want)
					}
				}
			}
			s, err := Open(file, says(passphrase))
			if err != nil {
				t.Fatal(err)
			}
			checkSigner(t, s, key.Public())
			if err := Write(file, key, nil); !errors.Is(err, fs.ErrExist) {
				t.Fatalf("a second key over the first: %v", err)
			}
		})
	}
}

func TestAKeyEncryptedByTheToolItselfIsRead(t *testing.T) {
	key, _ := newKey(t)
	data, err := key.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	armoredData, err := encrypt(data, []byte("correct horse"), testWork)
	if err != nil {
		t.Fatal(err)
	}
	block := strings.Split(strings.TrimSpace(string(armoredData)), "\n")
	binary, err := base64.StdEncoding.DecodeString(strings.Join(block[1:len(block)-1], ""))
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string][]byte{"armored": armoredData, "binary": binary} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "one.age")
			if err := os.WriteFile(file, form, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(file, says("correct horse"))
			if err != nil {
				t.Fatal(err)
			}
			checkSigner(t, s, key.Public())
		})
	}
}

func TestWhatIsNoUsableKeyIsRefusedInWords(t *testing.T) {
	key, _ := newKey(t)
	plain, err := key.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := encrypt(plain, []byte("correct horse"), testWork)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		mode fs.FileMode
		ask  func(string) ([]byte, error)
		says string
	}{
		"a wrong passphrase":         {sealed, 0o600, says("wrong"), "does not fit"},
		"an empty passphrase":        {sealed, 0o600, says(""), "empty"},
		"nobody to ask":              {sealed, 0o600, nil, "nobody to ask"},
		"an encrypted file cut off":  {sealed[:len(sealed)/2], 0o600, says("correct horse"), "decrypt"},
		"a file that others read":    {plain, 0o644, nil, "chmod 600"},
		"a file that a group reads":  {plain, 0o640, nil, "chmod 600"},
		"nothing":                    {nil, 0o600, nil, "PEM"},
		"more than a key":            {bytes.Repeat([]byte("x"), maxFile+1), 0o600, nil, "larger"},
		"a key of another algorithm": {pem.EncodeToMemory(&pem.Block{Type: privatePEM, Bytes: der}), 0o600, nil, "Ed25519"},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && c.mode != 0o600 {
				t.Skip("mode bits say nothing on Windows")
			}
			file := filepath.Join(t.TempDir(), "one.key")
			if err := os.WriteFile(file, c.data, c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, c.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(file, c.ask); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %q", err, c.says)
			}
		})
	}
	if _, err := Open(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "not a file") && runtime.GOOS != "windows" {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestPublicKeysOfOthersAreReadInBothForms(t *testing.T) {
	key, private := newKey(t)
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	inPEM, err := MarshalPublic(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	for name, data := range map[string]string{"PEM": string(inPEM), "SSH": line, "SSH with a comment": line + " ada@ws-1\n", "SSH with options": `no-pty,from="192.0.2.1" ` + line} {
		got, err := ParsePublic([]byte(data))
		if err != nil || got != key.Public() {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestWhatIsNoPublicKeyIsRefusedInWords(t *testing.T) {
	key, _ := newKey(t)
	private, err := key.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	sshOther, err := ssh.NewPublicKey(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ data, says string }{
		"a private key":               {string(private), "private key"},
		"an encrypted private key":    {"-----BEGIN AGE ENCRYPTED FILE-----\n", "private key"},
		"an SSH private key":          {"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "private key"},
		"another algorithm":           {string(pem.EncodeToMemory(&pem.Block{Type: publicPEM, Bytes: der})), "Ed25519"},
		"another algorithm, from SSH": {string(ssh.MarshalAuthorizedKey(sshOther)), "ssh-keygen -t ed25519"},
		"a certificate":               {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), "CERTIFICATE"},
		"nothing":                     {"", "neither"},
		"a great deal":                {strings.Repeat("x", maxFile+1), "no public key"},
	} {
		if _, err := ParsePublic([]byte(c.data)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
}

func FuzzParsePublic(f *testing.F) {
	key, private := newKey(f)
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		f.Fatal(err)
	}
	inPEM, err := MarshalPublic(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(inPEM)
	f.Add(ssh.MarshalAuthorizedKey(public))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParsePublic(data)
		if err != nil {
			return
		}
		again, err := MarshalPublic(got)
		if err != nil {
			t.Fatalf("a key was read that cannot be written: %v", err)
		}
		if same, err := ParsePublic(again); err != nil || same != got {
			t.Fatalf("read %+v, written and read again %+v, %v", got, same, err)
		}
	})
}
