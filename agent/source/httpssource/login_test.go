package httpssource

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chandler/agent/source"
	"chandler/events"
)

func TestNothingOfALoginGoesElsewhere(t *testing.T) {
	var elsewhere atomic.Int32
	other := pages(t, func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(plain.Close)
	target := ""
	s := pages(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/there" {
			name, given, _ := r.BasicAuth()
			fmt.Fprint(w, name == user && given == secret)
			return
		}
		http.Redirect(w, r, target, http.StatusFound)
	})
	for _, c := range []struct {
		name, target string
		reason       events.Reason
		words        string
	}{
		{"another port of the host", other.URL + "/x", events.SourceUnsupported, hostPart(t, other.URL)},
		{"another host", "https://localhost:1/x", events.SourceUnsupported, "localhost:1"},
		{"the usual port", "https://127.0.0.1/x", events.SourceUnsupported, "127.0.0.1"},
		{"no TLS", plain.URL + "/x", events.SourceUnsupported, "without TLS"},
		{"no TLS on the same host", strings.Replace(s.URL, "https", "http", 1) + "/x", events.SourceUnsupported, "without TLS"},
		{"another user", strings.Replace(s.URL, "://", "://eve:"+url.PathEscape(secret)+"@", 1) + "/there", events.SourceUnsupported, "another user"},
		{"round and round", s.URL + "/x", events.SourceUnreachable, "again and again"},
		{"a host that is none", "https://[fe80::1%25a]:1/x", events.SourceUnsupported, "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target = c.target
			_, err := open(t, s.URL+"/here", reader, Options{})
			wantReason(t, err, c.reason, c.words)
		})
	}
	if elsewhere.Load() != 0 {
		t.Errorf("%d requests went elsewhere", elsewhere.Load())
	}
	target = s.URL + "/there"
	o, err := open(t, s.URL+"/here", reader, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4)
	if _, err := o.ReadAt(t.Context(), p, 0); err != nil || string(p) != "true" {
		t.Errorf("on the same host: %q, %v", p, err)
	}
}

func TestAFolderIsToldAndNotListed(t *testing.T) {
	s := httptest.NewUnstartedServer(http.FileServer(http.Dir(t.TempDir() + "/..")))
	quiet(s).StartTLS()
	t.Cleanup(s.Close)
	o, err := open(t, s.URL+"/001", source.Login{}, Options{})
	if err != nil || !o.Info().Folder || o.Info().Name != "001" {
		t.Fatalf("%v, %v", o, err)
	}
	_, err = o.List(t.Context())
	wantReason(t, err, events.SourceUnsupported, "do not list folders")
	_, err = o.ReadAt(t.Context(), make([]byte, 1), 0)
	wantReason(t, err, events.SourceUnsupported, "is a folder")
}

func TestARefusalHasAReasonAndSaysNothingOfTheServers(t *testing.T) {
	nobody := source.Login{}
	for _, c := range []struct {
		status int
		login  source.Login
		reason events.Reason
		words  string
	}{
		{401, reader, events.CredentialRejected, "http 401 unauthorized (1326/0x8007052E)"},
		{401, source.Login{Method: events.ByBearer, Secret: []byte("abc.def")}, events.CredentialRejected, "(1326/"},
		{401, nobody, events.NoNetworkIdentity, "http 401 unauthorized: the server wants an account, and none was named (5/"},
		{403, reader, events.NetworkAccessDenied, "http 403 forbidden (5/0x80070005)"},
		{404, reader, events.SourceNotFound, "http 404 not found (2/"},
		{410, reader, events.SourceNotFound, "http 410 gone (2/"},
		{407, reader, events.SourceUnreachable, "http 407 proxy authentication required (53/"},
		{429, reader, events.SourceUnreachable, "http 429 too many requests (53/"},
		{503, reader, events.SourceUnreachable, "http 503 service unavailable (53/"},
		{204, reader, events.SourceUnreachable, "http 204 no content (53/"},
		{206, reader, events.SourceUnreachable, "a part of the file"},
		{304, reader, events.SourceUnreachable, "http 304 not modified"},
		{799, reader, events.SourceUnreachable, "http 799 (53/"},
	} {
		t.Run(fmt.Sprint(c.status, " ", c.reason), func(t *testing.T) {
			var asked atomic.Int32
			s := pages(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				w.Header().Set("WWW-Authenticate", `Basic realm="`+secret+`"`)
				w.WriteHeader(c.status)
				if c.status > 206 && c.status != 304 {
					fmt.Fprint(w, secret)
				}
			})
			_, err := open(t, s.URL+"/x", c.login, Options{})
			wantReason(t, err, c.reason, c.words)
			if asked.Load() != 1 {
				t.Errorf("asked %d times", asked.Load())
			}
		})
	}
}

func TestALoginThatCanBeNoneIsNotSent(t *testing.T) {
	for name, c := range map[string]struct {
		login  source.Login
		reason events.Reason
	}{
		"a colon in the user":      {source.Login{User: "a:b", Secret: []byte(secret)}, events.CredentialRejected},
		"no secret":                {source.Login{User: user}, events.CredentialRejected},
		"a token of two lines":     {source.Login{Method: events.ByBearer, Secret: []byte("a\r\nX: " + secret)}, events.CredentialRejected},
		"a user without a token":   {source.Login{User: user, Method: events.ByBearer}, events.CredentialRejected},
		"a certificate in no PEM":  {source.Login{Method: events.ByClientCertificate, Secret: []byte(secret)}, events.CredentialRejected},
		"a method nobody knows":    {source.Login{User: user, Method: "kerberos", Secret: []byte(secret)}, events.SourceUnsupported},
		"a certificate of another": {source.Login{Method: events.ByClientCertificate, Secret: mixed(t)}, events.CredentialRejected},
	} {
		t.Run(name, func(t *testing.T) {
			s := pages(t, func(http.ResponseWriter, *http.Request) { t.Error("the server was asked") })
			_, err := open(t, s.URL+"/x", c.login, Options{})
			wantReason(t, err, c.reason, "")
		})
	}
	for _, address := range []string{"http://files/x", "smb://files/x/y", "x", "https://files", "https://u:p@files/x"} {
		_, err := open(t, address, reader, Options{})
		wantReason(t, err, events.SourceUnsupported, "not an https address")
	}
}

// issued makes a certificate and its key, in PEM; a nil authority makes one.
func issued(t *testing.T, authority *tls.Certificate) (bundle []byte, pair tls.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, DNSNames: []string{"elsewhere.example"},
	}
	parent, signer := template, any(key)
	if authority != nil {
		parent, signer = authority.Leaf, authority.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	bundle = append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	if authority != nil {
		bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Leaf.Raw})...)
	}
	pair, err = tls.X509KeyPair(bundle, bundle)
	if err != nil {
		t.Fatal(err)
	}
	return bundle, pair
}

// mixed is a certificate with the key of another.
func mixed(t *testing.T) []byte {
	one, _ := issued(t, nil)
	other, _ := issued(t, nil)
	return bytes.Join([][]byte{one[:bytes.Index(one, []byte("-----BEGIN CERTIFICATE"))], other[bytes.Index(other, []byte("-----BEGIN CERTIFICATE")):]}, nil)
}

func TestAClientCertificateIsALogin(t *testing.T) {
	_, root := issued(t, nil)
	good, _ := issued(t, &root)
	foreign, _ := issued(t, nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var connected atomic.Int32
		s := quiet(httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "in") })))
		pool := x509.NewCertPool()
		pool.AddCert(root.Leaf)
		s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: version}
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				connected.Add(1)
			}
		}
		s.StartTLS()
		t.Cleanup(s.Close)
		for _, c := range []struct {
			name   string
			login  source.Login
			reason events.Reason
		}{
			{"a good one with its chain", source.Login{Method: events.ByClientCertificate, Secret: good}, events.NoReason},
			{"one of an unknown authority", source.Login{Method: events.ByClientCertificate, Secret: foreign}, events.CredentialRejected},
			{"none", source.Login{}, events.NoNetworkIdentity},
			{"a password instead", reader, events.NetworkAccessDenied},
		} {
			t.Run(fmt.Sprint(tls.VersionName(version), ": ", c.name), func(t *testing.T) {
				before := connected.Load()
				o, err := open(t, s.URL+"/x", c.login, Options{})
				switch {
				case c.reason == events.NoReason && err != nil:
					t.Error(err)
				case c.reason == events.NoReason:
					p := make([]byte, 2)
					if _, err := o.ReadAt(t.Context(), p, 0); err != nil || string(p) != "in" {
						t.Errorf("%q, %v", p, err)
					}
				case version == tls.VersionTLS12 && c.login.Method != events.ByClientCertificate:
					// Such servers say no more than that the handshake failed.
					wantReason(t, err, events.SourceUnreachable, "the server ended TLS")
				default:
					wantReason(t, err, c.reason, "certificate")
				}
				if n := connected.Load() - before; n != 1 {
					t.Errorf("connected %d times", n)
				}
			})
		}
	}
}

func TestOnlyAServerThatProvesItselfHearsASecret(t *testing.T) {
	old := quiet(httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("an old protocol was spoken") })))
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.StartTLS()
	t.Cleanup(old.Close)
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("TLS was left out") }))
	t.Cleanup(plain.Close)
	s := pages(t, func(http.ResponseWriter, *http.Request) { t.Error("the server was asked") })
	_, other := issued(t, nil)
	named := quiet(httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another name was believed") })))
	named.TLS = &tls.Config{Certificates: []tls.Certificate{other}}
	named.StartTLS()
	t.Cleanup(named.Close)
	pool := x509.NewCertPool()
	pool.AddCert(other.Leaf)
	for name, c := range map[string]struct {
		address string
		tls     *tls.Config
		words   string
	}{
		"a certificate of nobody":           {s.URL, &tls.Config{RootCAs: x509.NewCertPool()}, "the server's certificate is not believed: x509: certificate signed by unknown authority"},
		"a certificate of another name":     {named.URL, &tls.Config{RootCAs: pool}, "the server's certificate is not believed: x509: "},
		"a protocol that is too old":        {old.URL, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10}, "TLS"},
		"a server without TLS":              {strings.Replace(plain.URL, "http:", "https:", 1), nil, "the server does not speak TLS"},
		"a name that does not exist":        {"https://nothing.invalid", nil, "host"},
		"a server that says nothing at all": {"https://" + mute(t), nil, "(53/"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, c.address+"/x", reader, Options{TLS: c.tls})
			wantReason(t, err, events.SourceUnreachable, c.words)
		})
	}
}

func TestAProxyIsUsedOnlyWhenItIsNamed(t *testing.T) {
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method != http.MethodConnect || r.Header.Get("Authorization") != "" {
			t.Errorf("the proxy was sent %s, %v", r.Method, r.Header)
		}
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	t.Cleanup(proxy.Close)
	s := pages(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") })
	t.Setenv("HTTPS_PROXY", proxy.URL)
	if _, err := open(t, s.URL+"/x", reader, Options{}); err != nil || asked.Load() != 0 {
		t.Errorf("the proxy was asked %d times: %v", asked.Load(), err)
	}
	address, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, err = open(t, s.URL+"/x", reader, Options{Proxy: http.ProxyURL(address)})
	wantReason(t, err, events.SourceUnreachable, "(53/")
	if asked.Load() != 1 {
		t.Errorf("the proxy was asked %d times", asked.Load())
	}
}
