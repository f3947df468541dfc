package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// healthTime bounds the wait for what a process on this machine says of its services: they look at themselves
// before they answer.
const healthTime = 10 * time.Second

// maxHealth bounds that answer.
const maxHealth = 1 << 20

// examineHealth asks the processes of a data directory how well their services are. It is what tells that
// accounts cannot be used because their secrets cannot be opened.
func examineHealth(ctx context.Context, at place) []finding {
	all, err := readListeners(at)
	if err != nil {
		return nil // examineListeners tells it
	}
	var found []finding
	for _, l := range all {
		if l.What != "metrics" {
			continue
		}
		says, err := settledHealth(ctx, at, l)
		if notListening(err) {
			continue
		}
		if err != nil {
			found = append(found, warning("health", "look at /healthz there", "what the services at %s say of themselves could not be read: %v", l.Address, err))
		}
		for _, name := range slices.Sorted(maps.Keys(says)) {
			if says[name] != "ok" {
				found = append(found, problem("health "+name, "its log says more", "%s", says[name]))
			}
		}
	}
	return found
}

// notListening says that nothing listens where something did: the note of a process that was killed stays. That is found out by the
// question itself, since a connection that ends before its handshake is an error in the log of who listens with TLS.
func notListening(err error) bool {
	failed, ok := errors.AsType[*net.OpError](err)
	return ok && failed.Op == "dial"
}

// settleTime is how long services that have just started are given to load their state.
const settleTime = 3 * time.Second

// settledHealth asks again while something is wrong that may mend itself within seconds.
func settledHealth(ctx context.Context, at place, l listener) (says map[string]string, err error) {
	settling, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		says, err = readHealth(ctx, at, l)
		well := err == nil && !slices.ContainsFunc(slices.Collect(maps.Values(says)), func(text string) bool { return text != "ok" })
		if well || notListening(err) || !pause(settling, 100*time.Millisecond) {
			return says, err
		}
	}
}

// readHealth gives what each service says of itself: "ok", or what is wrong.
func readHealth(ctx context.Context, at place, l listener) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	host, port, err := net.SplitHostPort(l.Address)
	if err != nil {
		return nil, err
	}
	if unspecified(l.Address) {
		host = "localhost"
	}
	scheme, transport := "http", &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: aliveTime}).DialContext}
	if l.TLS {
		scheme = "https"
		ca := filepath.Join(at.tls(), caName)
		if !present(ca) { // a certificate from elsewhere
			ca = ""
		}
		if transport.TLSClientConfig, err = trustCertificate(ca); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+"/healthz", nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var says map[string]string
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxHealth)).Decode(&says); err != nil {
		return nil, fmt.Errorf("read its answer, status %d: %w", answer.StatusCode, err)
	}
	return says, nil
}

// judgeDial says what to do where there is no connection: only a broker that is away is to be started.
func judgeDial(where connection, err error) finding {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, speech := errors.AsType[tls.RecordHeaderError](err)
	_, file := errors.AsType[*fs.PathError](err)
	_, network := errors.AsType[net.Error](err)
	switch {
	case refusedUser(err) && where.Credentials == "":
		return problem("credentials", "chandler context add "+where.Name+" --credentials FILE", "%v", err)
	case refusedUser(err):
		return problem("credentials", "an administrator makes new ones with `chandler user add`; then chandler context add "+where.Name+" --credentials FILE", "%v", err)
	case authority, certificate:
		return problem("certificate", "compare what the broker shows with the authority of the context (chandler context add "+where.Name+" --ca FILE), with its name in --server, and with this machine's clock", "%v", err)
	case speech, errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrSecureConnRequired):
		return problem("broker", "let both speak TLS, or neither: chandler context add "+where.Name+" --ca", "%v", err)
	case file:
		return problem("context", "put the file back, or name another with chandler context add "+where.Name, "%v", err)
	case network, errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout):
		if cause := errors.Unwrap(err); cause != nil {
			err = cause // explainDial's advice is told here already
		}
		return problem("broker", "start it with `chandler up`, or choose another context", "%s does not answer: %v", where.Server, err)
	}
	return problem("context", "mend what it says, or choose another context", "%v", err)
}
