package vault

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// serve gives the address of a transit engine with TLS, with the options by which it is reached.
func serve(t *testing.T, handler http.Handler) (url, options string) {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	writeFile(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	writeFile(t, token, []byte(fakeToken+"\n"))
	return server.URL, "?token-file=" + token + "&ca=" + ca
}

func TestAKeysetIsKeptByATransitEngine(t *testing.T) {
	for name, c := range map[string]struct{ namespace, mount, path string }{
		"as most mount it":             {"", "transit", "/transit/chandler"},
		"with the path of its API":     {"", "transit", "/v1/transit/chandler"},
		"below a mount with a slash":   {"", "teams/ops/transit", "/teams/ops/transit/chandler"},
		"in a namespace of enterprise": {"ops/prod", "transit", "/transit/chandler"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			fake := newFakeTransit(t)
			fake.namespace, fake.mount = c.namespace, c.mount
			url, options := serve(t, fake)
			if c.namespace != "" {
				options += "&namespace=" + c.namespace
			}
			key := r.wrapper("transit:" + url + c.path + options)
			sealed := r.seal(r.open(), "a", 1)
			v, err := r.tryOpen(key, r.wrapper("file:"+r.key)) // moved to it
			if err != nil {
				t.Fatal(err)
			}
			r.opens(v, "a", 1, sealed)
			if v, err = r.tryOpen(key, nil); err != nil {
				t.Fatal(err)
			}
			r.opens(v, "a", 1, sealed)
			if want := "transit:" + url + "/" + c.mount + "/chandler"; r.stored().KeptBy != want {
				t.Errorf("kept by %s, want %s", r.stored().KeptBy, want)
			}
			base := "/v1/" + c.mount
			want := []string{base + "/encrypt/chandler", base + "/decrypt/chandler", base + "/decrypt/chandler"}
			if diff := cmp.Diff(want, fake.calls); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// lives answers everything alike.
func lives(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

func TestWhatATransitEngineMayAnswer(t *testing.T) {
	fake := func(change func(*fakeTransit)) http.Handler {
		f := newFakeTransit(t)
		change(f)
		return f
	}
	for name, c := range map[string]struct {
		handler http.Handler
		says    string
	}{
		"it is sealed":                       {fake(func(f *fakeTransit) { f.sealed = true }), "503: it is sealed"},
		"it is mounted elsewhere":            {fake(func(f *fakeTransit) { f.mount = "other" }), "404: no transit engine is mounted at transit"},
		"it is in a namespace":               {fake(func(f *fakeTransit) { f.namespace = "ops" }), "another namespace"},
		"it has no such key":                 {fake(func(f *fakeTransit) { f.key = "other" }), "400: there is no key chandler"},
		"it refuses the token":               {lives(http.StatusForbidden, `{"errors":["permission denied for `+fakeToken+`"]}`), "403: the token in "},
		"it is asked too often":              {lives(http.StatusTooManyRequests, `{"errors":["quota"]}`), "too often"},
		"it fails":                           {lives(http.StatusInternalServerError, `{"errors":["`+fakeToken+`"]}`), "500: look at its log"},
		"it leads elsewhere":                 {http.RedirectHandler("https://elsewhere.example/", http.StatusTemporaryRedirect), "redirections are not followed"},
		"it is a web server":                 {lives(http.StatusOK, "<html>"+fakeToken), "not answer to encrypt as a transit engine does"},
		"it answers nothing":                 {lives(http.StatusOK, ""), "as a transit engine does"},
		"it answers without data":            {lives(http.StatusOK, `{"data":{}}`), "without a ciphertext"},
		"it answers with other data":         {lives(http.StatusOK, `{"data":{"ciphertext":["vault:v1:x"]}}`), "as a transit engine does"},
		"its ciphertext has another form":    {lives(http.StatusOK, `{"data":{"ciphertext":"AAAA"}}`), "without a ciphertext"},
		"its ciphertext is far too long":     {lives(http.StatusOK, `{"data":{"ciphertext":"vault:v1:`+strings.Repeat("A", maxWrapped)+`"}}`), "without a ciphertext"},
		"its answer is huge":                 {lives(http.StatusOK, `{"data":{"ciphertext":"vault:v1:`+strings.Repeat("A", maxAnswer)+`"}}`), "larger than"},
		"it breaks off":                      {http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "ask the transit engine to encrypt"},
		"it makes what it does not open":     {lives(http.StatusOK, `{"data":{"ciphertext":"vault:v1:AAAA"}}`), "cannot open what it made"},
		"it opens to what it was not given":  {lives(http.StatusOK, `{"data":{"ciphertext":"vault:v1:AAAA","plaintext":"AAAA"}}`), "does not give back"},
		"it opens to far more than a keyset": {lives(http.StatusOK, `{"data":{"ciphertext":"vault:v1:AAAA","plaintext":"`+strings.Repeat("AAAA", maxKeyset/3+1)+`"}}`), "without a plaintext"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			url, options := serve(t, c.handler)
			_, err := r.tryOpen(r.wrapper("transit:"+url+"/transit/chandler"+options), nil)
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), fakeToken) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if diff := cmp.Diff([]string{lockFile}, r.names()); diff != "" {
				t.Errorf("something was stored: %s", diff)
			}
		})
	}
}

func TestAnotherTransitKeyOpensNothing(t *testing.T) {
	r := newRig(t)
	fake := newFakeTransit(t)
	url, options := serve(t, fake)
	key := r.wrapper("transit:" + url + "/transit/chandler" + options)
	if _, err := r.tryOpen(key, nil); err != nil {
		t.Fatal(err)
	}
	plain := fake.plain
	e := r.stored()
	e.Wrapped[len(e.Wrapped)-5] ^= 1
	data, err := e.bytes()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(r.dir, File), data)
	if _, err := r.tryOpen(key, nil); err == nil || !strings.Contains(err.Error(), "is not the one that the keyset was encrypted by") || strings.Contains(err.Error(), plain) {
		t.Errorf("error %v", err)
	}
	if _, err := key.Unwrap(t.Context(), r.stored().Wrapped, []byte("another purpose")); err == nil {
		t.Error("opened for another purpose")
	}
}

func TestATransitEngineThatDoesNotAnswerIsLeft(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	url, options := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
	}))
	t.Cleanup(func() { close(release) })
	key := newRig(t).wrapper("transit:" + url + "/transit/chandler" + options)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := key.Wrap(ctx, []byte(secret), []byte(purpose))
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), secret) {
		t.Errorf("error %v", err)
	}
}

func TestATransitEngineThatNeverStopsAnsweringIsLeft(t *testing.T) {
	url, options := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	key := newRig(t).wrapper("transit:" + url + "/transit/chandler" + options)
	if _, err := key.Wrap(t.Context(), []byte(secret), []byte(purpose)); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("error %v", err)
	}
}

func TestATransitEngineIsNotTrustedForItsName(t *testing.T) {
	fake := newFakeTransit(t)
	url, options := serve(t, fake)
	options, _, _ = strings.Cut(options, "&ca=")
	key := newRig(t).wrapper("transit:" + url + "/transit/chandler" + options)
	if _, err := key.Wrap(t.Context(), []byte(secret), []byte(purpose)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error %v", err)
	}
	if len(fake.calls) > 0 {
		t.Error("it was told the token")
	}
}

func TestATransitTokenIsReadAnew(t *testing.T) {
	r := newRig(t)
	server := httptest.NewServer(newFakeTransit(t)) // clear text, on loopback
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	key := r.wrapper("transit:" + server.URL + "/transit/chandler?token-file=" + token)
	for _, c := range []struct {
		written string
		mode    os.FileMode
		says    string
	}{
		{"", 0, "no such file"}, {" \n", 0o600, "empty"}, {"a b", 0o600, "more than one word"}, {strings.Repeat("a", maxToken+1), 0o600, "larger than"},
		{"s.expired", 0o600, "403"}, {fakeToken, 0o600, ""}, {fakeToken, 0o644, "others may read it"},
	} {
		t.Run(fmt.Sprintf("%.10q of mode %o", c.written, c.mode), func(t *testing.T) {
			if c.mode != 0 {
				writeFile(t, token, []byte(c.written))
				if err := os.Chmod(token, c.mode); err != nil {
					t.Fatal(err)
				}
			}
			_, err := key.Wrap(t.Context(), []byte(secret), []byte(purpose))
			if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), fakeToken)) {
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
}

func TestEveryCallOfAKeyIsBounded(t *testing.T) {
	key := newRig(t).wrapper("transit:https://127.0.0.1:1/transit/chandler?token-file=/nowhere").(*transit)
	if key.client.Timeout <= 0 || key.client.Timeout > wrapTime || wrapTime > time.Minute {
		t.Errorf("one request may take %s, one wrapping %s", key.client.Timeout, wrapTime)
	}
}
