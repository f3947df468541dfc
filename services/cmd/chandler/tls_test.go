package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
)

// withTLS lets a fleet make its own authority.
func withTLS(t *testing.T) func(*realFleet) {
	return func(f *realFleet) {
		shown, err := tlsFlags{on: true}.certificate(f.at, f.at.administrator(), namesOf([]string{anyAddress}), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		f.options.TLS = shown.config
	}
}

func TestEverythingIsServedWithTLSByTheFleetsOwnAuthority(t *testing.T) {
	f := newRealFleet(t, withTLS(t))
	if !strings.HasPrefix(f.server.URL, "tls://") || !strings.HasPrefix(f.server.Content, "https://") {
		t.Errorf("advertised are %s, %s", f.server.URL, f.server.Content)
	}
	f.run(t, "agent", "ls")
	trusted, err := trustCertificate(filepath.Join(f.at.tls(), caName))
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: trusted}}
	for _, url := range []string{f.server.Content + "/v1/blobs/none", "https://" + f.server.Metrics + "/metrics"} {
		answer, err := web.Get(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if chain := answer.TLS.PeerCertificates; len(chain) != 2 || !chain[1].IsCA {
			t.Errorf("%s shows %d certificates: who knows the authority's hash alone must find it there", url, len(chain))
		}
		if strings.HasSuffix(url, "/metrics") && !strings.Contains(string(body), "go_goroutines") {
			t.Errorf("%s: %.100s", url, body)
		}
		if plain, err := http.Get(strings.Replace(url, "https:", "http:", 1)); err == nil {
			plain.Body.Close()
			if plain.StatusCode != http.StatusBadRequest {
				t.Errorf("clear text at %s is answered with %s", url, plain.Status)
			}
		}
	}
	nc, err := nats.Connect(f.server.URL, nats.UserCredentials(filepath.Join(f.at.administrator(), adminCreds)), nats.Secure(trusted))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if state, err := nc.TLSConnectionState(); err != nil || len(state.PeerCertificates) != 2 {
		t.Errorf("got %v", err)
	}
	if found := examineListeners(f.at); len(found) != 1 || found[0].State != stateOK {
		t.Errorf("doctor says %+v", found)
	}
}

func TestABrokerOfAnotherAuthorityOrInClearTextIsNotSpokenTo(t *testing.T) {
	f := newRealFleet(t, withTLS(t))
	other := newCertificates(t)
	f.run(t, "context", "add", "local", "--ca", other.caFile())
	f.refuse(t, "authority that is not known here", "agent", "ls")
	f.run(t, "context", "add", "local", "--ca", "")
	f.refuse(t, "authority that is not known here", "agent", "ls")
	plain := newRealFleet(t)
	plain.run(t, "context", "add", "local", "--ca", other.caFile())
	plain.refuse(t, "speaks clear text", "agent", "ls")
}

// newCertificates is an authority with an administrator's directory, which has issued nothing yet.
func newCertificates(t *testing.T) ownAuthority {
	t.Helper()
	at := place{t.TempDir()}
	if err := os.MkdirAll(at.administrator(), 0o700); err != nil {
		t.Fatal(err)
	}
	o := ownAuthority{at: at, administrator: at.administrator(), now: time.Now()}
	if _, _, err := o.open(); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestTheServersCertificateIsMadeKeptAndRenewed(t *testing.T) {
	o := newCertificates(t)
	names := serverNames{must: []string{"localhost", "127.0.0.1", "::1"}, may: []string{"broker.example"}}
	issue := func(names serverNames) *x509.Certificate {
		t.Helper()
		shown, err := o.certificate(names)
		if err != nil {
			t.Fatal(err)
		}
		if len(shown.notes) > 0 {
			t.Errorf("notes: %v", shown.notes)
		}
		return shown.leaf
	}
	ca, err := os.ReadFile(o.caFile())
	if err != nil {
		t.Fatal(err)
	}
	first := issue(names)
	if missing := lacking(first, names.all()); len(missing) > 0 || first.IsCA {
		t.Errorf("it is not for %v", missing)
	}
	if again := issue(names); !again.Equal(first) {
		t.Error("a second start made another one")
	}
	o.now = first.NotAfter.Add(-renewBefore - time.Hour)
	if again := issue(names); !again.Equal(first) {
		t.Error("it was renewed too early")
	}
	o.now = first.NotAfter.Add(-renewBefore + time.Hour)
	renewed := issue(names)
	if !renewed.NotAfter.After(first.NotAfter) || !cmp.Equal(renewed.PublicKey, first.PublicKey) {
		t.Errorf("near its end: until %s, and before until %s", renewed.NotAfter, first.NotAfter)
	}
	names.must = append(names.must, "other.example")
	if named := issue(names); len(lacking(named, names.must)) > 0 {
		t.Error("a further name is not in it")
	}
	if now, err := os.ReadFile(o.caFile()); err != nil || string(now) != string(ca) {
		t.Error("the authority changed, which agents pin")
	}
}

func TestWithoutTheAuthoritysKeyACertificateThatIsValidGoesOn(t *testing.T) {
	o := newCertificates(t)
	names := serverNames{must: []string{"localhost"}}
	first, err := o.certificate(names)
	if err != nil {
		t.Fatal(err)
	}
	o.administrator = filepath.Join(t.TempDir(), "away")
	for name, c := range map[string]struct {
		now   time.Time
		names serverNames
		note  string
		err   string
	}{
		"as it is":                        {o.now, names, "", ""},
		"with addresses that come and go": {o.now, serverNames{must: names.must, may: []string{"192.0.2.1"}}, "", ""},
		"with a name that it lacks":       {o.now, serverNames{must: []string{"other.example"}}, "not for other.example", ""},
		"near its end":                    {first.leaf.NotAfter.Add(-time.Hour), names, "it ends at", ""},
		"after its end":                   {first.leaf.NotAfter.Add(time.Hour), names, "", "--administrator-dir"},
	} {
		t.Run(name, func(t *testing.T) {
			o.now = c.now
			got, err := o.certificate(c.names)
			switch {
			case c.err != "":
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v", err)
				}
				return
			case err != nil:
				t.Fatal(err)
			}
			if notes := strings.Join(got.notes, "\n"); !strings.Contains(notes, c.note) || c.note == "" && notes != "" || !got.leaf.Equal(first.leaf) {
				t.Errorf("notes: %s", notes)
			}
		})
	}
}

func TestAnAuthorityIsNeverReplaced(t *testing.T) {
	o, other := newCertificates(t), newCertificates(t)
	foreign, err := os.ReadFile(other.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, o.keyFile(), string(foreign))
	if _, _, err := o.open(); err == nil || !strings.Contains(err.Error(), "is not the key of") {
		t.Errorf("another authority's key: %v", err)
	}
	overwrite(t, o.keyFile(), "half")
	if _, _, err := o.open(); err == nil {
		t.Error("half a key was taken")
	}
	away := ownAuthority{at: place{t.TempDir()}, administrator: filepath.Join(t.TempDir(), "away"), now: time.Now()}
	if _, _, err := away.open(); err == nil || !strings.Contains(err.Error(), "--administrator-dir") {
		t.Errorf("a first start of it without the administrator's directory: %v", err)
	}
	// What agents pin comes back from the key's file.
	if err := os.Remove(other.caFile()); err != nil {
		t.Fatal(err)
	}
	ca, _, err := other.open()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := readCertificate(other.caFile()); err != nil || !again.Equal(ca) {
		t.Errorf("got %v", err)
	}
}

func TestGivenCertificatesAreSentWithTheirAuthority(t *testing.T) {
	o := newCertificates(t)
	if _, err := o.certificate(serverNames{must: []string{"broker.example", "192.0.2.7"}}); err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(t.TempDir(), "cert.pem")
	leaf, err := readCertificate(o.serverFile())
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, alone, string(pemCertificate(leaf.Raw)))
	shown, err := tlsFlags{cert: alone, key: o.serverKeyFile(), ca: o.caFile()}.certificate(place{}, "", serverNames{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if chain := shown.config.Certificates[0].Certificate; len(chain) != 2 || shown.ca != o.caFile() {
		t.Errorf("%d certificates, authority %s", len(chain), shown.ca)
	}
	for url, want := range map[string]string{"tls://127.0.0.1:4222": "tls://broker.example:4222", "tls://192.0.2.7:1": "tls://192.0.2.7:1"} {
		if got := shown.reached(url); got != want {
			t.Errorf("%s: got %s", url, got)
		}
	}
	if shown.config.MinVersion < tls.VersionTLS12 {
		t.Error("old versions of TLS are spoken")
	}
	for want, f := range map[string]tlsFlags{
		"belong together":           {cert: alone},
		"leave it out":              {on: true, cert: alone, key: o.serverKeyFile()},
		"which is missing":          {ca: o.caFile()},
		"--tls-name is for --tls":   {names: []string{"x"}},
		"does not begin with a cer": {cert: alone, key: o.serverKeyFile(), ca: o.serverKeyFile()},
	} {
		if _, err := f.certificate(o.at, o.administrator, serverNames{}, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", f, err, want)
		}
	}
	if err := os.Chmod(o.serverKeyFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := givenCertificate(alone, o.serverKeyFile(), ""); othersRead(t, o.serverKeyFile()) && (err == nil || !strings.Contains(err.Error(), "chmod 600")) {
		t.Errorf("a key that others may read: %v", err)
	}
	if _, err := givenCertificate(alone, filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no key: %v", err)
	}
}

func othersRead(t *testing.T, name string) bool {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return othersMayRead(info)
}
