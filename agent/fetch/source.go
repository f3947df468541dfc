package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"chandler/events"
)

// Ref names one blob at one address.
type Ref struct {
	URL    string // may hold a signature: never to be logged, see [Redact]
	SHA256 string
	Size   int64 // in bytes; -1: not known
}

// Source reads blobs from one kind of address. Package sourcetest says what else it must do.
type Source interface {
	// Open starts reading at offset, which is below the size. Errors, and those of reading, are *[Error]s where
	// the source knows the reason. A reader that ends before the blob does returns an error other than io.EOF.
	// Nothing may block longer than a short time without a byte; there is no limit on the whole.
	Open(ctx context.Context, ref Ref, offset int64) (io.ReadCloser, error)
}

// Agent is the identity under which content is read from distribution points.
const Agent = "agent"

// ErrExpired, wrapped in an [Error], says that an address is no longer valid and a new one is to be asked for.
var ErrExpired = errors.New("address has expired")

// Error is a failure to get content, in the terms of a job's status.
type Error struct {
	Reason   events.Reason
	Identity string // who tried: "agent", or an account
	Resource string // what was tried: an address without its query, or a path
	Answer   string // what it answered
	Err      error

	resumed bool // of bytes that do not match: some were kept from before
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s tried %s", e.Reason, e.Identity, e.Resource)
	if e.Answer != "" {
		text += ": " + e.Answer
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Redact is an address for people and logs: without user and query, which may hold secrets.
func Redact(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// known makes an Error of any failure; those that are one already keep their words.
func known(err error, reason events.Reason, resource string) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if diskFull(err) {
		reason = events.DiskFull
	}
	return &Error{Reason: reason, Identity: Agent, Resource: resource, Err: err}
}
