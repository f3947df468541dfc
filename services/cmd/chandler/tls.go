package main

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// tlsFlags say which certificate listeners show.
type tlsFlags struct {
	on            bool     // by an authority of our own
	off           bool     // in clear text, and that is meant
	names         []string // further names and addresses in the certificate
	cert, key, ca string   // given files
}

func (f tlsFlags) validate() error {
	given := f.cert != "" || f.key != ""
	switch {
	case f.off && (given || f.on):
		return errors.New("--no-tls is for clear text: leave it out, or --tls and --tls-cert")
	case given && (f.cert == "" || f.key == ""):
		return errors.New("--tls-cert and --tls-key belong together")
	case given && f.on:
		return errors.New("--tls makes certificates: leave it out where --tls-cert gives one")
	case !given && f.ca != "":
		return errors.New("--tls-ca names the authority of --tls-cert, which is missing")
	case !f.on && len(f.names) > 0:
		return errors.New("--tls-name is for --tls")
	}
	return nil
}

// checkMeant refuses to serve in clear text what was served with TLS before, unless that is said.
func (f tlsFlags) checkMeant(at place) error {
	if f.on || f.off || f.cert != "" {
		return nil
	}
	there, err := exists(filepath.Join(at.tls(), caName))
	if err == nil && there {
		err = fmt.Errorf("%s was served with TLS, and agents that were told to trust its authority connect only so: say --tls, or --no-tls if clear text is meant", at.data)
	}
	return err
}

// shownCertificate is how listeners prove who they are. The zero value is: not at all.
type shownCertificate struct {
	config *tls.Config // of listeners; nil: clear text
	ca     string      // file with the authority, for contexts; empty: one that every machine knows
	leaf   *x509.Certificate
	notes  []string // for the administrator
}

// certificate opens or makes what the flags ask for.
func (f tlsFlags) certificate(at place, administrator string, names serverNames, now time.Time) (shownCertificate, error) {
	if err := f.validate(); err != nil {
		return shownCertificate{}, err
	}
	switch {
	case f.cert != "":
		return givenCertificate(f.cert, f.key, f.ca)
	case f.on:
		names.must = append(names.must, f.names...)
		authority := ownAuthority{at: at, administrator: administrator, now: now}
		return authority.certificate(names)
	}
	return shownCertificate{}, nil
}

// givenCertificate reads files. The authority is sent along, so that agents that know no more than its
// hash can find it.
func givenCertificate(certFile, keyFile, caFile string) (shownCertificate, error) {
	if err := checkPrivate(keyFile); err != nil {
		return shownCertificate{}, fmt.Errorf("--tls-key: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return shownCertificate{}, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	if caFile != "" {
		ca, err := readCertificate(caFile)
		if err != nil {
			return shownCertificate{}, fmt.Errorf("--tls-ca: %w", err)
		}
		if !slices.ContainsFunc(pair.Certificate, func(der []byte) bool { return slices.Equal(der, ca.Raw) }) {
			pair.Certificate = append(pair.Certificate, ca.Raw)
		}
	}
	return show(pair, caFile), nil
}

func show(pair tls.Certificate, ca string) shownCertificate {
	return shownCertificate{config: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, ca: ca, leaf: pair.Leaf}
}

// isFor says whether the certificate is for a host.
func (s shownCertificate) isFor(host string) bool { return s.leaf.VerifyHostname(host) == nil }

// reached is the URL of a listener under a name that its certificate is for, if there is one.
func (s shownCertificate) reached(listening string) string {
	u, err := url.Parse(listening)
	if err != nil || s.leaf == nil || s.isFor(u.Hostname()) {
		return listening
	}
	for _, name := range s.leaf.DNSNames {
		if s.isFor(name) { // not a pattern
			u.Host = net.JoinHostPort(name, u.Port())
			return u.String()
		}
	}
	return listening
}

// hostOf is the host in a URL; empty where there is none.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// readCertificate reads the first certificate of a PEM file.
func readCertificate(file string) (*x509.Certificate, error) {
	data, err := readSmall(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s does not begin with a certificate (PEM)", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return cert, nil
}

// serverNames are what a server's certificate is for: must is what others were told, may what they could
// also reach it by.
type serverNames struct{ must, may []string }

// namesOf collects them from listen addresses (host:port) and advertised URLs.
func namesOf(listen []string, advertised ...string) serverNames {
	n := serverNames{must: []string{"localhost", "127.0.0.1", "::1"}}
	if name, err := os.Hostname(); err == nil {
		n.may = append(n.may, name)
	}
	for _, address := range listen {
		host, _, err := net.SplitHostPort(address)
		switch {
		case err != nil: // told where it is listened on
		case unspecified(address):
			for _, own := range ownAddresses() {
				n.may = append(n.may, own.IP.String())
			}
		default:
			n.must = append(n.must, host)
		}
	}
	for _, address := range advertised {
		if host := hostOf(address); host != "" {
			n.must = append(n.must, host)
		}
	}
	return n
}

// all are each name once.
func (n serverNames) all() []string {
	all := slices.Concat(n.must, n.may)
	slices.Sort(all)
	return slices.Compact(all)
}

// lacking are the names that a certificate is not for.
func lacking(cert *x509.Certificate, names []string) (missing []string) {
	for _, name := range names {
		ip := net.ParseIP(name)
		if ip != nil && !slices.ContainsFunc(cert.IPAddresses, ip.Equal) || ip == nil && !slices.ContainsFunc(cert.DNSNames, func(n string) bool { return strings.EqualFold(n, name) }) {
			missing = append(missing, name)
		}
	}
	return missing
}

// pemCertificate and pemKey are the forms in which certificates and keys are kept.
func pemCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func pemKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// trustCertificate makes connections trust the authority in a file, and no other; nil for "".
func trustCertificate(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	ca, err := readCertificate(file)
	if err != nil {
		return nil, fmt.Errorf("the authority that signed the fleet's certificates: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
