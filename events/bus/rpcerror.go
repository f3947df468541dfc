package bus

import (
	"context"
	"errors"
	"fmt"
)

// Codes of a request's failure.
const (
	CodeBadRequest  = "bad_request" // the request is wrong: asking again fails again
	CodeNotFound    = "not_found"
	CodeConflict    = "conflict"    // with what is there: look, then ask again
	CodeDenied      = "denied"      // this caller may not
	CodeUnavailable = "unavailable" // the service is not there or not ready: ask again later
	CodeInternal    = "internal"    // the service's own fault; its log says more
)

// RequestError is why a request failed, in the service's words.
type RequestError struct {
	Code    string `json:"code"` // one of the Code constants
	Message string `json:"message"`
	cause   error
}

func (e *RequestError) Error() string { return e.Message }

// Unwrap gives the cause on the service's side; the caller has none.
func (e *RequestError) Unwrap() error { return e.cause }

// Is matches another RequestError by its code alone: errors.Is(err, bus.ErrNotFound).
func (e *RequestError) Is(target error) bool {
	other, ok := target.(*RequestError)
	return ok && other.Code == e.Code && other.Message == ""
}

// Sentinels to test a request's error against.
var (
	ErrBadRequest  = &RequestError{Code: CodeBadRequest}
	ErrNotFound    = &RequestError{Code: CodeNotFound}
	ErrConflict    = &RequestError{Code: CodeConflict}
	ErrDenied      = &RequestError{Code: CodeDenied}
	ErrUnavailable = &RequestError{Code: CodeUnavailable}
	ErrInternal    = &RequestError{Code: CodeInternal}
)

// BadRequest and its kin are what a service's function returns to fail a request with a code. The error's
// text goes to the caller.
func BadRequest(err error) error  { return &RequestError{CodeBadRequest, err.Error(), err} }
func NotFound(err error) error    { return &RequestError{CodeNotFound, err.Error(), err} }
func Conflict(err error) error    { return &RequestError{CodeConflict, err.Error(), err} }
func Denied(err error) error      { return &RequestError{CodeDenied, err.Error(), err} }
func Unavailable(err error) error { return &RequestError{CodeUnavailable, err.Error(), err} }

// knownCode says whether the code is one that this version declares; others may come from newer services.
func knownCode(code string) bool {
	switch code {
	case CodeBadRequest, CodeNotFound, CodeConflict, CodeDenied, CodeUnavailable, CodeInternal:
		return true
	}
	return false
}

func asRequestError(err error) *RequestError {
	if own, ok := errors.AsType[*RequestError](err); ok {
		if own.Message == "" {
			return &RequestError{own.Code, own.Code, err}
		}
		// What was wrapped around it belongs to the words.
		return &RequestError{own.Code, err.Error(), err}
	}
	// Also while a new leader is found: nothing is wrong with the request, and nothing with the service. That a handler's own
	// time ran out says nothing about the broker.
	if away(err) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return &RequestError{CodeUnavailable, fmt.Sprintf("the broker does not answer: %v", err), err}
	}
	return &RequestError{CodeInternal, fmt.Sprintf("internal error: %v", err), err}
}
