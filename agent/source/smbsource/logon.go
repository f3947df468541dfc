package smbsource

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/cloudsoda/go-smb2"
	"golang.org/x/crypto/md4" //lint:ignore SA1019 the protocol knows passwords by this hash and no other

	"chandler/agent/source"
	"chandler/events"
)

// proof is who logs on, and by what.
type proof struct {
	key       string                         // finds the session
	wipe      func()                         // overwrites what is secret in it
	initiator func() (smb2.Initiator, error) // made when the server is about to be asked
	anew      bool                           // a session that is there will not do
}

// proof of a login for a target, or why there is none. Nobody has been contacted when it returns.
func (s *Source) proof(t target, login source.Login) (proof, error) {
	if login.Nobody() {
		return s.ticket(t)
	}
	domain, user := login.Domain()
	switch {
	case login.Method != "" && login.Method != events.ByPassword:
		return proof{}, &source.Error{Reason: events.SourceUnsupported, Answer: "a share takes a user name and a password, or a ticket"}
	case user == "":
		return proof{}, &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("the account names no user; it was not tried, for a server would take it for the anonymous user", source.NoSuchUser)}
	case len(login.Secret) == 0:
		return proof{}, &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("the account has no secret; it was not tried", source.LogonRefused)}
	}
	hash, err := ntHash(login.Secret)
	if err != nil {
		return proof{}, &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("the account's secret is not a text; it was not tried", source.LogonRefused), Err: err}
	}
	mac := hmac.New(sha256.New, s.blind[:])
	mac.Write(hash)
	ntlm := &smb2.NTLMInitiator{User: user, Domain: domain, Hash: hash, TargetSPN: "cifs/" + t.host}
	return proof{
		key:       strings.Join([]string{t.at, strings.ToLower(login.User), hex.EncodeToString(mac.Sum(nil))}, "\n"),
		wipe:      func() { clear(hash) },
		initiator: func() (smb2.Initiator, error) { return ntlm, nil },
	}, nil
}

// ntHash is what NTLM makes of a password.
func ntHash(secret []byte) ([]byte, error) {
	wide := make([]byte, 0, 4*len(secret)) // never moves
	defer func() { clear(wide[:cap(wide)]) }()
	for rest := secret; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size == 1 {
			return nil, errors.New("not UTF-8")
		}
		rest = rest[size:]
		var units [2]uint16
		for _, unit := range utf16.AppendRune(units[:0], r) {
			wide = append(wide, byte(unit), byte(unit>>8))
		}
	}
	h := md4.New()
	h.Write(wide)
	return h.Sum(nil), nil
}

// logon connects and logs on, once. It sets the session's smb or err.
func (s *Source) logon(life context.Context, ses *session, t target, who proof) {
	defer who.wipe()
	initiator, err := who.initiator()
	if err != nil {
		ses.err = err
		return
	}
	dialing, cancel := context.WithTimeout(life, s.patience)
	defer cancel()
	conn, err := s.connect(dialing, "tcp", t.at)
	if err != nil {
		ses.err = unreachable(err)
		return
	}
	ses.conn = newGuard(conn)
	context.AfterFunc(life, func() { ses.conn.end(context.Cause(life)) })
	dialer := smb2.Dialer{Negotiator: smb2.Negotiator{RequireMessageSigning: true}, Initiator: initiator}
	err = ses.do(func() (err error) {
		ses.smb, err = dialer.DialConn(context.Background(), ses.conn, t.host)
		return err
	})
	if err != nil {
		// The library's words may lack the status that the guard saw pass.
		ses.err = err
		if status := ses.conn.refusal(); status != 0 {
			ses.err = answerStatus(status)
		}
		ses.end(err)
	}
}
