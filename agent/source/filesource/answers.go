package filesource

import (
	"context"
	"errors"
	"io/fs"

	"chandler/agent/source"
	"chandler/events"
)

// notSupported is ERROR_NOT_SUPPORTED of Windows.
const notSupported source.Code = 50

// meaning of a Windows error.
type meaning struct {
	reason events.Reason
	words  string // "": the system's own
}

// meanings of the errors that opening and reading give. Whatever else is met is taken for silence of the source.
func meanings(code source.Code) meaning {
	switch code {
	case source.FileNotFound, source.PathNotFound, 123, 161: // and names that are none
		return meaning{events.SourceNotFound, "no such file or folder"}
	case source.ShareNotFound:
		return meaning{events.SourceNotFound, "the host has no such share"}
	case source.AccessDenied, 65, 1314, 1385: // and of the network, and rights that are missing
		return meaning{events.NetworkAccessDenied, "access denied"}
	case source.LogonRefused, 86:
		return meaning{events.CredentialRejected, "unknown user name or wrong password"}
	case source.LogonTime, source.PasswordExpired, source.AccountDisabled, source.MustChange, source.AccountLocked, source.AccountExpired, source.NoSuchUser, 1327, 1329:
		return meaning{events.CredentialRejected, ""} // the system says which
	case notSupported:
		return meaning{events.SourceUnsupported, ""}
	}
	return meaning{events.SourceUnreachable, ""}
}

// explain gives an error its reason.
func explain(err error) error {
	if own, ok := errors.AsType[*source.Error](err); ok {
		return own
	}
	if errors.Is(err, errNeither) {
		return unsupported(errNeither.Error())
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer("it was given up", source.BadNetworkPath), Err: err}
	}
	if errors.Is(err, fs.ErrClosed) {
		return &source.Error{Reason: events.OtherReason, Answer: "the file is closed", Err: err}
	}
	code, words := codeOf(err)
	m := meanings(code)
	if m.words != "" {
		words = m.words
	}
	return &source.Error{Reason: m.reason, Answer: source.Answer(words, code), Err: err}
}
