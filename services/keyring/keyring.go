// Package keyring opens the keys that people sign with: files, which may be encrypted by a passphrase, and
// keys that an SSH agent holds. It reads the public keys of others, and writes new keys to files.
//
// It promises: a key file that others may read is refused before its bytes are used; a file that exists is
// never overwritten; every signature that an SSH agent gave was verified. It keeps nothing: a key in a file
// is in memory only while its signer is, one in an SSH agent never.
package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"chandler/events/sign"
)

// AgentPrefix begins a reference to a key that an SSH agent holds; its fingerprint or comment follows.
const AgentPrefix = "ssh-agent:"

// maxFile bounds a key file in bytes: an encrypted, armored key takes less than one kilobyte.
const maxFile = 64 << 10

const (
	ageIntro   = "age-encryption.org/"
	privatePEM = "PRIVATE KEY"
	publicPEM  = "PUBLIC KEY"
)

// Open gives the signer of a reference: the path of a file with an Ed25519 key (PKCS #8 PEM, plain or
// encrypted with age by a passphrase), or "ssh-agent:" and the key's SHA-256 fingerprint as `ssh-add -l`
// shows it, or its comment. passphrase is asked once for an encrypted file, with words to show; it may be nil
// where nobody can be asked.
func Open(ref string, passphrase func(prompt string) ([]byte, error)) (sign.Signer, error) {
	if name, ok := strings.CutPrefix(ref, AgentPrefix); ok {
		return openAgent(name)
	}
	data, err := readPrivate(ref)
	if err != nil {
		return nil, err
	}
	defer func() { clear(data) }()
	if encrypted(data) {
		if data, err = decrypt(ref, data, passphrase); err != nil {
			return nil, err
		}
	}
	key, err := sign.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", ref, err)
	}
	return key, nil
}

// readPrivate reads a file that nobody but its owner may read.
func readPrivate(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("open key: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("key %s is not a file", file)
	case othersMayRead(info):
		return nil, fmt.Errorf("key %s can be read by others (mode %04o): chmod 600 %s", file, info.Mode().Perm(), file)
	}
	return readSmall(f, file)
}

func readSmall(f io.Reader, file string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", file, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read key %s: larger than %d bytes, so it is no key", file, maxFile)
	}
	return data, nil
}

func armored(data []byte) bool   { return bytes.HasPrefix(bytes.TrimSpace(data), []byte(armor.Header)) }
func encrypted(data []byte) bool { return armored(data) || bytes.HasPrefix(data, []byte(ageIntro)) }

func decrypt(file string, data []byte, passphrase func(prompt string) ([]byte, error)) ([]byte, error) {
	if passphrase == nil {
		return nil, fmt.Errorf("key %s is encrypted, and there is nobody to ask for its passphrase", file)
	}
	secret, err := passphrase("Passphrase of " + file + ": ")
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	defer clear(secret)
	if len(secret) == 0 {
		return nil, fmt.Errorf("key %s is encrypted, and the passphrase is empty", file)
	}
	identity, err := age.NewScryptIdentity(string(secret))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	var source io.Reader = bytes.NewReader(data)
	if armored(data) {
		source = armor.NewReader(source)
	}
	plain, err := age.Decrypt(source, identity)
	if _, mismatch := errors.AsType[*age.NoIdentityMatchError](err); mismatch {
		return nil, fmt.Errorf("key %s: the passphrase does not fit, or it is encrypted by something else than a passphrase", file)
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt key %s: %w", file, err)
	}
	return readSmall(plain, file)
}

// Write makes a file with the key that only its owner may read (0600, its directory 0700 where it is made),
// encrypted by the passphrase unless that is empty. It is an error if the file is there.
func Write(file string, key sign.Key, passphrase []byte) error {
	return write(file, key, passphrase, 0)
}

// write takes scrypt's work factor; 0: the library's, about a second.
func write(file string, key sign.Key, passphrase []byte, work int) error {
	data, err := key.Marshal()
	if err != nil {
		return fmt.Errorf("write key %s: %w", file, err)
	}
	defer func() { clear(data) }()
	if len(passphrase) > 0 {
		if data, err = encrypt(data, passphrase, work); err != nil {
			return fmt.Errorf("encrypt key %s: %w", file, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("write key %s: %w", file, err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write key %s: %w", file, errors.Join(err, os.Remove(file)))
	}
	return nil
}

func encrypt(data, passphrase []byte, work int) ([]byte, error) {
	recipient, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, err
	}
	if work > 0 {
		recipient.SetWorkFactor(work)
	}
	var b bytes.Buffer
	text := armor.NewWriter(&b)
	w, err := age.Encrypt(text, recipient)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), text.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// ParsePublic reads the public key of somebody else: a PEM public key, or a line as it stands in
// authorized_keys and in .pub files of SSH. Only Ed25519 keys are taken. The key has no name.
func ParsePublic(data []byte) (sign.PublicKey, error) {
	if len(data) > maxFile {
		return sign.PublicKey{}, fmt.Errorf("%d bytes are no public key", len(data))
	}
	if encrypted(data) {
		return sign.PublicKey{}, errPrivate
	}
	if block, _ := pem.Decode(data); block != nil {
		return parsePEM(block)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return sign.PublicKey{}, errors.New("neither a PEM public key nor a line of an SSH public key (ssh-ed25519 …)")
	}
	return publicKey(key)
}

var errPrivate = errors.New("this is a private key: give the public one, and keep the private one to yourself")

func parsePEM(block *pem.Block) (sign.PublicKey, error) {
	switch {
	case strings.HasSuffix(block.Type, privatePEM):
		return sign.PublicKey{}, errPrivate
	case block.Type != publicPEM:
		return sign.PublicKey{}, fmt.Errorf("the PEM block holds %q, not a public key", block.Type)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return sign.PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	return ed25519Key(parsed)
}

func publicKey(key ssh.PublicKey) (sign.PublicKey, error) {
	if c, ok := key.(ssh.CryptoPublicKey); ok && key.Type() == ssh.KeyAlgoED25519 {
		return ed25519Key(c.CryptoPublicKey())
	}
	return sign.PublicKey{}, fmt.Errorf("a key of type %s: only Ed25519 keys sign here (ssh-keygen -t ed25519)", key.Type())
}

func ed25519Key(key any) (sign.PublicKey, error) {
	raw, ok := key.(ed25519.PublicKey)
	if !ok {
		return sign.PublicKey{}, errors.New("not an Ed25519 key: only those sign here")
	}
	return sign.PublicKey{Key: base64.StdEncoding.EncodeToString(raw)}, nil
}

// MarshalPublic gives the PEM form of a public key, for others to read with [ParsePublic].
func MarshalPublic(key sign.PublicKey) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(key.Key)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key %q is not %d bytes of base64", key.Name, ed25519.PublicKeySize)
	}
	der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(raw))
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicPEM, Bytes: der}), nil
}
