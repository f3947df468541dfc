package content

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// How long a signed address may be used to begin a transfer; one under way may take longer.
const (
	getLife = 15 * time.Minute
	putLife = time.Hour
)

const (
	blobPrefix = "/v1/blobs/"
	keySize    = 32
)

// signer makes and checks the addresses of blobs.
type signer struct {
	key  []byte
	base string // scheme, host and path before blobPrefix
	now  func() time.Time
}

// loadKey reads the key that signs addresses, or makes it. Processes that share the directory share the key.
func loadKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(path); err != nil {
			return nil, fmt.Errorf("make key %s: %w", path, err)
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key %s may be read by others (mode %#o): remove it, and a new one is made", path, info.Mode().Perm())
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("key %s has %d bytes, not %d: remove it, and a new one is made", path, len(key), keySize)
	}
	return key, nil
}

// makeKey links a finished file to its place, so that nobody ever reads half a key or replaces another's.
func makeKey(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (s signer) signature(method, digest string, size int64, expires int64) []byte {
	mac := hmac.New(sha256.New, s.key)
	fmt.Fprintf(mac, "chandler-blob/1\n%s\n%s\n%d\n%d", method, digest, size, expires)
	return mac.Sum(nil)
}

// get is an address that gives a blob's bytes.
func (s signer) get(digest string) string { return s.address(http.MethodGet, digest, 0, getLife) }

// put is an address that takes exactly the bytes of that digest and size.
func (s signer) put(digest string, size int64) string {
	return s.address(http.MethodPut, digest, size, putLife)
}

func (s signer) address(method, digest string, size int64, life time.Duration) string {
	expires := s.now().Add(life).Unix()
	query := url.Values{"method": {method}, "expires": {strconv.FormatInt(expires, 10)}, "signature": {hex.EncodeToString(s.signature(method, digest, size, expires))}}
	if method == http.MethodPut {
		query.Set("size", strconv.FormatInt(size, 10))
	}
	return s.base + blobPrefix + digest + "?" + query.Encode()
}

// check says why a request may not be made, in words for its sender, or returns the size that was signed.
func (s signer) check(r *http.Request, digest string) (size int64, err error) {
	query, method := r.URL.Query(), r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	signature, err := hex.DecodeString(query.Get("signature"))
	if err != nil || len(signature) == 0 {
		return 0, errors.New("the address is not signed: ask the content service for one")
	}
	expires, err := strconv.ParseInt(query.Get("expires"), 10, 64)
	if err != nil {
		return 0, errors.New("the address does not say when it expires")
	}
	if signed := query.Get("method"); signed != method {
		return 0, fmt.Errorf("the address is signed for %.10q, not for %s", signed, method)
	}
	if method == http.MethodPut {
		if size, err = strconv.ParseInt(query.Get("size"), 10, 64); err != nil || size < 0 {
			return 0, errors.New("the address does not say how many bytes it takes")
		}
	}
	if !hmac.Equal(signature, s.signature(method, digest, size, expires)) {
		return 0, errors.New("the address was altered, or signed by another content service: ask for a new one")
	}
	if at := time.Unix(expires, 0); s.now().After(at) {
		return 0, fmt.Errorf("the address expired at %s: ask for a new one", at.UTC().Format(time.RFC3339))
	}
	return size, nil
}

// publicBase checks the address under which agents and administrators reach the service.
func publicBase(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("public address %q: write it as https://host:port", text)
	}
	return strings.TrimRight(u.String(), "/"), nil
}
