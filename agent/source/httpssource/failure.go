package httpssource

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"unicode"

	"chandler/agent/source"
	"chandler/events"
)

const maxBrief = 200 // bytes of words that others chose

// aboutCertificate are the alerts by which a server refuses a client's certificate, as package tls words them.
var aboutCertificate = []string{
	"tls: bad certificate", "tls: unsupported certificate", "tls: revoked certificate", "tls: expired certificate",
	"tls: unknown certificate", "tls: unknown certificate authority", "tls: access denied", "tls: certificate required",
}

func refuse(reason events.Reason, words string, code source.Code) error {
	return &source.Error{Reason: reason, Answer: source.Answer(words, code)}
}

// failed is why a request with this proof got no answer. It never quotes a server.
func (p proof) failed(err error) error {
	if own, ok := errors.AsType[*source.Error](err); ok { // of a redirect
		return own
	}
	if errors.Is(err, errFolder) {
		return errFolder
	}
	remote, ok := errors.AsType[*net.OpError](err)
	if !ok || remote.Op != "remote error" {
		return transferFailed(err)
	}
	for _, alert := range aboutCertificate {
		if remote.Err.Error() != alert {
			continue
		}
		words := "the server refuses the client's certificate: " + alert
		switch {
		case p.certificate != nil:
			return refuse(events.CredentialRejected, words, source.LogonRefused)
		case p.nobody:
			return refuse(events.NoNetworkIdentity, "the server wants a client certificate, and no account was named: "+alert, source.AccessDenied)
		}
		return refuse(events.NetworkAccessDenied, "the server wants a client certificate: "+alert, source.AccessDenied)
	}
	return transferFailed(err)
}

// transferFailed is why nothing came, or nothing more. Errors that are kept are those of this machine.
func transferFailed(err error) error {
	e := &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer(wordsOf(err), source.BadNetworkPath)}
	for _, known := range []error{context.Canceled, context.DeadlineExceeded, errSilent, io.ErrUnexpectedEOF} {
		if errors.Is(err, known) {
			e.Err = known
		}
	}
	return e
}

func wordsOf(err error) string {
	if errors.Is(err, errSilent) {
		return errSilent.Error()
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the server's certificate is not believed: " + brief(e.Err.Error())
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return "no such host"
		}
		return "the host's name cannot be looked up"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return "the server does not speak TLS"
	}
	e, isNet := errors.AsType[*net.OpError](err)
	if isNet && e.Op == "remote error" {
		return "the server ended TLS: " + e.Err.Error()
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number.Error()
	}
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "it was given up"
	case ok && timeout.Timeout():
		return "the server does not answer"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, fs.ErrClosed), errors.Is(err, net.ErrClosed):
		return "the server ended the connection"
	case strings.HasPrefix(err.Error(), "tls: "):
		return "TLS does not come about: " + brief(err.Error())
	}
	return "what answers is no server of the web"
}

// brief cleans words that somebody else chose, as the names in a certificate.
func brief(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == unicode.ReplacementChar {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxBrief {
		text = strings.ToValidUTF8(text[:maxBrief], "") + "…"
	}
	return text
}
