package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	transitTime = 10 * time.Second // one request
	maxAnswer   = 1 << 20
	maxToken    = 8 << 10
	maxCA       = 1 << 20
)

// transit is a key in the transit engine of OpenBao or Vault, which never leaves it.
type transit struct {
	base      url.URL // scheme and host
	mount     string  // may have several segments
	key       string
	namespace string // ""
	tokenFile string
	client    *http.Client
}

// newTransit reads https://HOST:PORT/MOUNT/KEY?token-file=PATH&namespace=NAME&ca=PATH. http is for loopback only.
func newTransit(text string) (*transit, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("what follows transit: is no URL")
	}
	if err := checkServer(u); err != nil {
		return nil, err
	}
	mount, key, err := splitKey(u.Path)
	if err != nil {
		return nil, err
	}
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the options of the transit URL cannot be read")
	}
	for name, values := range options {
		if !slices.Contains([]string{"token-file", "namespace", "ca"}, name) || len(values) != 1 {
			return nil, fmt.Errorf("the transit URL has the options token-file, namespace and ca, each once, and not %q", name)
		}
	}
	t := &transit{base: url.URL{Scheme: u.Scheme, Host: u.Host}, mount: mount, key: key, namespace: options.Get("namespace"), tokenFile: options.Get("token-file")}
	if !filepath.IsAbs(t.tokenFile) {
		return nil, errors.New("say with ?token-file=PATH, from the root, which file the transit engine's token is in")
	}
	if strings.ContainsFunc(t.namespace, unicode.IsControl) {
		return nil, errors.New("the namespace must not have control characters")
	}
	t.client, err = transitClient(options.Get("ca"))
	return t, err
}

// checkServer refuses what would send the token where others can read it.
func checkServer(u *url.URL) error {
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	switch {
	case u.User != nil:
		return errors.New("the transit URL must not name a user or password")
	case u.Hostname() == "" || u.Fragment != "":
		return errors.New("the transit URL is https://HOST:PORT/MOUNT/KEY")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback):
		return errors.New("the transit URL must begin with https://, or be on this machine")
	}
	return nil
}

// splitKey takes the key's name off its engine's mount.
func splitKey(path string) (mount, key string, err error) {
	path = strings.TrimPrefix(strings.TrimPrefix(path, "/"), "v1/")
	i := strings.LastIndexByte(path, '/')
	if i < 0 || strings.ContainsFunc(path, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(`\?#%`, r) }) ||
		slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." || s == ".." }) {
		return "", "", errors.New("the path of the transit URL is /MOUNT/KEY")
	}
	return path[:i], path[i+1:], nil
}

// transitClient trusts the authorities in a file, or without one those that the machine trusts. It follows no
// redirection and uses no proxy: the token is for the server that was named. It keeps no connection.
func transitClient(ca string) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		f, err := os.Open(ca)
		if err != nil {
			return nil, fmt.Errorf("read the transit engine's authority: %w", err)
		}
		defer f.Close()
		pem, err := io.ReadAll(io.LimitReader(f, maxCA))
		if err != nil {
			return nil, fmt.Errorf("read the transit engine's authority: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the transit engine's authority %s has no certificate (PEM)", ca)
		}
	}
	return &http.Client{
		Timeout:       transitTime,
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (t *transit) Name() string {
	u := t.base
	u.Path = "/" + t.mount + "/" + t.key
	return "transit:" + u.String()
}

// transitData is what the engine is asked and answers with; []byte is base64 in JSON, as it demands.
type transitData struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext string `json:"ciphertext,omitempty"`
	Associated []byte `json:"associated_data,omitempty"`
}

func (t *transit) Wrap(ctx context.Context, plain, purpose []byte) ([]byte, error) {
	answer, err := t.call(ctx, "encrypt", transitData{Plaintext: plain, Associated: purpose})
	if err != nil {
		return nil, err
	}
	// OpenBao and Vault both begin it so, with the key's version.
	if !strings.HasPrefix(answer.Ciphertext, "vault:v") || len(answer.Ciphertext) > maxWrapped {
		return nil, fmt.Errorf("%s answered without a ciphertext", t.base.Host)
	}
	return []byte(answer.Ciphertext), nil
}

func (t *transit) Unwrap(ctx context.Context, wrapped, purpose []byte) ([]byte, error) {
	answer, err := t.call(ctx, "decrypt", transitData{Ciphertext: string(wrapped), Associated: purpose})
	if err != nil {
		return nil, err
	}
	if len(answer.Plaintext) == 0 || len(answer.Plaintext) > maxKeyset {
		clear(answer.Plaintext)
		return nil, fmt.Errorf("%s answered without a plaintext of 1 to %d bytes", t.base.Host, maxKeyset)
	}
	return answer.Plaintext, nil
}

// call makes one request. No error quotes what was sent or answered.
func (t *transit) call(ctx context.Context, what string, data transitData) (transitData, error) {
	var none transitData
	body, err := json.Marshal(data)
	if err != nil {
		return none, err
	}
	defer clear(body)
	u := t.base
	u.Path = "/v1/" + t.mount + "/" + what + "/" + t.key
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return none, err
	}
	token, err := t.token()
	if err != nil {
		return none, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Vault-Request", "true")
	request.Header.Set("X-Vault-Token", token)
	if t.namespace != "" {
		request.Header.Set("X-Vault-Namespace", t.namespace)
	}
	response, err := t.client.Do(request)
	if err != nil {
		return none, fmt.Errorf("ask the transit engine to %s: %w", what, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	defer clear(answer)
	switch {
	case response.StatusCode != http.StatusOK:
		return none, fmt.Errorf("ask the transit engine to %s: it answered %d: %s", what, response.StatusCode, t.explain(what, response.StatusCode))
	case err != nil:
		return none, fmt.Errorf("read the transit engine's answer to %s: %w", what, err)
	case len(answer) > maxAnswer:
		return none, fmt.Errorf("the transit engine's answer to %s is larger than %d bytes", what, maxAnswer)
	}
	var read struct {
		Data transitData `json:"data"`
	}
	if json.Unmarshal(answer, &read) != nil {
		return none, fmt.Errorf("%s does not answer to %s as a transit engine does", t.base.Host, what)
	}
	return read.Data, nil
}

// explain says what a status code of OpenBao and Vault means here.
func (t *transit) explain(what string, code int) string {
	switch {
	case code == http.StatusBadRequest && what == "decrypt":
		return "key " + t.key + " is not the one that the keyset was encrypted by, that version of it is gone, or the keyset was altered"
	case code == http.StatusBadRequest:
		return "there is no key " + t.key + ", or it is of a type that takes no associated data: make it of type aes256-gcm96"
	case code == http.StatusForbidden:
		return "the token in " + t.tokenFile + " is not valid, or its policy lacks update on " + t.mount + "/" + what + "/" + t.key
	case code == http.StatusNotFound:
		return "no transit engine is mounted at " + t.mount + ", or it is in another namespace"
	case code == http.StatusTooManyRequests:
		return "it is asked too often"
	case code == http.StatusServiceUnavailable:
		return "it is sealed or in maintenance: unseal it, and start again"
	case code >= 300 && code < 400:
		return "name the server that it leads to: redirections are not followed with a token"
	}
	return "look at its log"
}

// token reads the token anew: whoever renews it writes the file.
func (t *transit) token() (string, error) {
	data, err := readOwn(t.tokenFile, maxToken)
	if err != nil {
		return "", fmt.Errorf("read the transit engine's token %s: %w", t.tokenFile, err)
	}
	defer clear(data)
	token := string(bytes.TrimSpace(data))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("the transit engine's token %s is empty or more than one word", t.tokenFile)
	}
	return token, nil
}
