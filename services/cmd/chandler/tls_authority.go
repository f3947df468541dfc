package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 2 * 365 * 24 * time.Hour
	// renewBefore the end of a certificate it is made anew, at a start.
	renewBefore = 30 * 24 * time.Hour
	// clockSlack lets machines connect whose clocks are a little behind.
	clockSlack = time.Hour
)

// caName is the file with the authority's certificate.
const caName = "ca.pem"

// ownAuthority signs the certificates of a fleet. Its key and certificate are one file of the administrator's
// directory, which is written at once; what listeners need is in DATA/tls, so that they start without the
// administrator's directory.
type ownAuthority struct {
	at            place
	administrator string
	now           time.Time
}

func (o ownAuthority) keyFile() string { return filepath.Join(o.administrator, "ca.key") }
func (o ownAuthority) caFile() string  { return filepath.Join(o.at.tls(), caName) }
func (o ownAuthority) serverFile() string {
	return filepath.Join(o.at.tls(), "server.pem")
}
func (o ownAuthority) serverKeyFile() string { return filepath.Join(o.at.tls(), "server.key") }

// certificate gives the server's certificate. Without one, or with one that ends soon or lacks a name, a new
// one is made, if the authority's key is there; if it is not, one that is still valid is used and that is said.
func (o ownAuthority) certificate(names serverNames) (shownCertificate, error) {
	ca, key, err := o.open()
	if err != nil {
		return shownCertificate{}, err
	}
	present, err := o.present(ca)
	if err != nil && key == nil {
		return shownCertificate{}, fmt.Errorf("%w; a new one needs the authority's key %s: say where it is with --administrator-dir", err, o.keyFile())
	}
	var why string
	switch {
	case err != nil:
		why = err.Error()
	case present.leaf.NotAfter.Sub(o.now) < renewBefore:
		why = "it ends at " + present.leaf.NotAfter.Format(time.RFC3339)
	case len(lacking(present.leaf, names.all())) > 0 && key != nil:
		why = "its names changed"
	case len(lacking(present.leaf, names.must)) > 0:
		why = "it is not for " + strings.Join(lacking(present.leaf, names.must), ", ")
	default:
		return present, nil
	}
	if key == nil {
		present.notes = append(present.notes, fmt.Sprintf("The server's certificate should be renewed: %s. Start once with --administrator-dir naming the directory that has ca.key.", why))
		return present, nil
	}
	if err := o.issue(ca, key, names.all()); err != nil {
		return shownCertificate{}, fmt.Errorf("make the server's certificate: %w", err)
	}
	return o.present(ca)
}

// open reads the authority, or makes it. key is nil where the administrator's directory was moved away.
func (o ownAuthority) open() (ca *x509.Certificate, key crypto.Signer, err error) {
	public, err := readCertificate(o.caFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	data, err := readPrivate(o.keyFile())
	switch {
	case errors.Is(err, fs.ErrNotExist) && public != nil:
		return public, nil, nil
	case errors.Is(err, fs.ErrNotExist):
		if data, err = o.make(); err != nil {
			return nil, nil, fmt.Errorf("make an authority for certificates: %w", err)
		}
	case err != nil:
		return nil, nil, err
	}
	defer clear(data)
	if ca, key, err = parseAuthority(data); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", o.keyFile(), err)
	}
	switch {
	case public == nil:
		err = writePrivate(o.caFile(), pemCertificate(ca.Raw))
	case !public.Equal(ca):
		err = fmt.Errorf("%s is not the key of %s, which agents were told to trust: put the right one there", o.keyFile(), o.caFile())
	}
	return ca, key, err
}

// make writes a new authority. The administrator's directory must be there: it is made at the first start.
func (o ownAuthority) make() ([]byte, error) {
	if there, err := exists(o.administrator); err != nil || !there {
		return nil, errors.Join(err, fmt.Errorf("its key belongs into the administrator's directory, and %s is not there: say where it is with --administrator-dir", o.administrator))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "chandler authority"}, NotBefore: o.now.Add(-clockSlack), NotAfter: o.now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := pemKey(key)
	if err != nil {
		return nil, err
	}
	data := append(pemCertificate(der), secret...)
	return data, writePrivate(o.keyFile(), data)
}

// parseAuthority reads a file of a certificate and its key.
func parseAuthority(data []byte) (*x509.Certificate, crypto.Signer, error) {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, nil, errors.New("it is not the key of an authority")
	}
	return pair.Leaf, key, nil
}

// present is the certificate that is there.
func (o ownAuthority) present(ca *x509.Certificate) (shownCertificate, error) {
	shown, err := givenCertificate(o.serverFile(), o.serverKeyFile(), o.caFile())
	if err != nil {
		return shown, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	if _, err := shown.leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: o.now}); err != nil {
		return shown, fmt.Errorf("certificate %s: %w", o.serverFile(), err)
	}
	return shown, nil
}

// issue writes a new certificate for the server's key, which it keeps: a start that is interrupted leaves a
// pair that fits.
func (o ownAuthority) issue(ca *x509.Certificate, signer crypto.Signer, names []string) error {
	key, err := o.serverKey()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "chandler"}, NotBefore: o.now.Add(-clockSlack), NotAfter: earlier(o.now.Add(serverLife), ca.NotAfter),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), signer)
	if err != nil {
		return err
	}
	return writePrivate(o.serverFile(), append(pemCertificate(der), pemCertificate(ca.Raw)...))
}

func (o ownAuthority) serverKey() (crypto.Signer, error) {
	data, err := readPrivate(o.serverKeyFile())
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if data, err = pemKey(key); err != nil {
			return nil, err
		}
		return key, writePrivate(o.serverKeyFile(), data)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is no key (PEM)", o.serverKeyFile())
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.serverKeyFile(), err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s is no signing key", o.serverKeyFile())
	}
	return key, nil
}

func serial() *big.Int {
	number := make([]byte, 16)
	_, _ = rand.Read(number) // never fails
	number[0] &= 0x7f
	return new(big.Int).SetBytes(number)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
