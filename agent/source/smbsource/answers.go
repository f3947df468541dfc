package smbsource

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"

	"github.com/cloudsoda/go-smb2"

	"chandler/agent/source"
	"chandler/events"
)

// Codes beside those that all sources meet.
const (
	sharingViolation source.Code = 32
	notSupported     source.Code = 50
	netNameDeleted   source.Code = 64
	tooManyUsers     source.Code = 71
	semaphoreTimeout source.Code = 121
	invalidName      source.Code = 123
	hostUnreachable  source.Code = 1232
	noLogonServers   source.Code = 1311
	restriction      source.Code = 1327
	workstation      source.Code = 1329
	logonType        source.Code = 1385
	ntlmBlocked      source.Code = 1937
)

// status is what Windows and Samba answer ([MS-ERREF]), by reason, words and code.
type status struct {
	reason events.Reason
	words  string
	code   source.Code
}

var statuses = map[uint32]status{
	0xC000006D: {events.CredentialRejected, "unknown user name or wrong password", source.LogonRefused},
	0xC000006A: {events.CredentialRejected, "wrong password", source.LogonRefused},
	0xC0000064: {events.CredentialRejected, "no such user", source.NoSuchUser},
	0xC000006E: {events.CredentialRejected, "the account is restricted", restriction},
	0xC000006F: {events.CredentialRejected, "outside of the account's logon hours", source.LogonTime},
	0xC0000070: {events.CredentialRejected, "the account may not log on from this machine", workstation},
	0xC0000071: {events.CredentialRejected, "the account's password has expired", source.PasswordExpired},
	0xC0000072: {events.CredentialRejected, "the account is disabled", source.AccountDisabled},
	0xC000015B: {events.CredentialRejected, "the account may not log on over the network", logonType},
	0xC0000193: {events.CredentialRejected, "the account has expired", source.AccountExpired},
	0xC0000224: {events.CredentialRejected, "the account's password must be changed first", source.MustChange},
	0xC0000234: {events.CredentialRejected, "the account is locked", source.AccountLocked},
	0xC0000418: {events.CredentialRejected, "the server takes no NTLM", ntlmBlocked},
	0xC0000022: {events.NetworkAccessDenied, "access denied", source.AccessDenied},
	0xC00000CA: {events.NetworkAccessDenied, "access denied", source.AccessDenied},
	0xC00000CC: {events.SourceNotFound, "no such share", source.ShareNotFound},
	0xC000000F: {events.SourceNotFound, "no such file", source.FileNotFound},
	0xC0000034: {events.SourceNotFound, "no such file", source.FileNotFound},
	0xC000003A: {events.SourceNotFound, "no such folder", source.PathNotFound},
	0xC0000033: {events.SourceNotFound, "no file can have such a name", invalidName},
	0xC00000BB: {events.SourceUnsupported, "the server does not support this", notSupported},
	0xC0000257: {events.SourceUnsupported, "the folder is of a distributed file system (DFS) and lies on another server: name that server's share instead", hostUnreachable},
	0xC0000043: {events.SourceUnreachable, "somebody has the file open and lets nobody else read it", sharingViolation},
	0xC000005E: {events.SourceUnreachable, "the server reaches no domain controller", noLogonServers},
	0xC00000C9: {events.SourceUnreachable, "the server ended the session", netNameDeleted},
	0xC0000203: {events.SourceUnreachable, "the server ended the session", netNameDeleted},
	0xC000035C: {events.SourceUnreachable, "the server ended the session", netNameDeleted},
}

func answerStatus(code uint32) *source.Error {
	if s, ok := statuses[code]; ok {
		return &source.Error{Reason: s.reason, Answer: source.Answer(s.words, s.code), Err: fmt.Errorf("status 0x%08X", code)}
	}
	return &source.Error{Reason: events.SourceUnreachable, Answer: fmt.Sprintf("the server answered 0x%08X", code)}
}

// answer gives an error of the library its reason. A session that is of no more use is ended.
func (ses *session) answer(err error) error {
	if e, ok := errors.AsType[*source.Error](err); ok {
		return e
	}
	if why := ses.conn.failed(); why != nil {
		return broken(why)
	}
	_, ofShare := errors.AsType[*shareError](err)
	response, hasStatus := errors.AsType[*smb2.ResponseError](err)
	switch {
	case hasStatus:
		e := answerStatus(response.Code)
		if e.Reason == events.SourceUnreachable && response.Code != 0xC0000043 {
			ses.end(e)
		}
		return e
	case errors.Is(err, fs.ErrPermission) && ofShare:
		return &source.Error{Reason: events.NetworkAccessDenied, Answer: source.Answer("access denied to the share", source.AccessDenied), Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &source.Error{Reason: events.NetworkAccessDenied, Answer: source.Answer("access denied", source.AccessDenied), Err: err}
	case errors.Is(err, fs.ErrNotExist):
		return &source.Error{Reason: events.SourceNotFound, Answer: source.Answer("no such file", source.FileNotFound), Err: err}
	case errors.Is(err, smb2.ErrRequestNotAccepted):
		ses.end(err)
		return &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer("the server has too many users", tooManyUsers), Err: err}
	}
	ses.end(err)
	if _, ok := errors.AsType[*smb2.InvalidResponseError](err); ok {
		return &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer("the server's answer is malformed, or its signature is wrong", netNameDeleted), Err: err}
	}
	return broken(err)
}

// broken is why a connection that there was is of no use.
func broken(why error) *source.Error {
	e := &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer("the connection broke", netNameDeleted), Err: why}
	switch {
	case errors.Is(why, errOldProtocol), errors.Is(why, errNoSigning):
		e.Reason, e.Answer = events.SourceUnsupported, source.Answer(why.Error(), notSupported)
	case errors.Is(why, errGuest):
		e.Reason, e.Answer = events.CredentialRejected, source.Answer(why.Error(), source.LogonRefused)
	case errors.Is(why, errMalformed):
		e.Answer = source.Answer(why.Error(), netNameDeleted)
	case errors.Is(why, errSilent):
		e.Answer = source.Answer(why.Error(), semaphoreTimeout)
	case errors.Is(why, io.EOF):
		e.Err = io.ErrUnexpectedEOF // whoever reads must not take it for the file's end
		e.Answer = source.Answer("the server closed the connection", netNameDeleted)
	}
	return e
}

// unreachable is why there is no connection.
func unreachable(err error) *source.Error {
	words := "nobody answers at the address"
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		words = "the name " + dns.Name + " cannot be resolved"
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		words = "the server does not answer"
	}
	return &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer(words, source.BadNetworkPath), Err: err}
}
