package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
)

const fakeToken = "hvs.Planted-t0ken-9c41"

// fakeTransit imitates the encrypt and decrypt calls of the transit engine of OpenBao and Vault for one key of type
// aes256-gcm96: paths, headers, names in requests and answers, the form of ciphertexts, and answers in errors.
type fakeTransit struct {
	namespace, mount, key string

	mu     sync.Mutex
	cipher cipher.AEAD
	sealed bool
	calls  []string // paths
	plain  string   // of the last encryption, base64
}

func newFakeTransit(t *testing.T) *fakeTransit {
	t.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	c, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeTransit{mount: "transit", key: "chandler", cipher: c}
}

func (f *fakeTransit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, r.URL.Path)
	if f.sealed {
		refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
		return
	}
	if r.Header.Get("X-Vault-Token") != fakeToken {
		refuse(w, http.StatusForbidden, "permission denied")
		return
	}
	what, ok := strings.CutPrefix(r.URL.Path, "/v1/"+f.mount+"/")
	if !ok || r.Header.Get("X-Vault-Namespace") != f.namespace {
		refuse(w, http.StatusNotFound, `no handler for route "`+r.URL.Path+`". route entry not found.`)
		return
	}
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		refuse(w, http.StatusMethodNotAllowed, "unsupported operation")
		return
	}
	var in struct {
		Plaintext  *string `json:"plaintext"`
		Ciphertext string  `json:"ciphertext"`
		Associated string  `json:"associated_data"`
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		refuse(w, http.StatusBadRequest, "error parsing JSON")
		return
	}
	associated, err := base64.StdEncoding.DecodeString(in.Associated)
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, "associated_data is not base64")
	case what == "encrypt/"+f.key && in.Plaintext != nil:
		f.encrypt(w, *in.Plaintext, associated)
	case what == "decrypt/"+f.key:
		f.decrypt(w, in.Ciphertext, associated)
	default:
		refuse(w, http.StatusBadRequest, "encryption key not found")
	}
}

func (f *fakeTransit) encrypt(w http.ResponseWriter, plain string, associated []byte) {
	f.plain = plain
	data, err := base64.StdEncoding.DecodeString(plain)
	if err != nil {
		refuse(w, http.StatusBadRequest, "failed to base64-decode plaintext")
		return
	}
	answer(w, map[string]any{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(f.cipher.Seal(nil, nil, data, associated)), "key_version": 1})
}

func (f *fakeTransit) decrypt(w http.ResponseWriter, ciphertext string, associated []byte) {
	text, ok := strings.CutPrefix(ciphertext, "vault:v1:")
	data, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil {
		refuse(w, http.StatusBadRequest, "invalid ciphertext: no prefix")
		return
	}
	plain, err := f.cipher.Open(nil, nil, data, associated)
	if err != nil {
		refuse(w, http.StatusBadRequest, "cipher: message authentication failed")
		return
	}
	answer(w, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)})
}

func answer(w http.ResponseWriter, data map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"request_id": "1d7b5d1f-0000-4000-8000-000000000001", "lease_id": "", "renewable": false, "lease_duration": 0,
		"data": data, "wrap_info": nil, "warnings": nil, "auth": nil, "mount_type": "transit"})
}

func refuse(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{why}})
}
