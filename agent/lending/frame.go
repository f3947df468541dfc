package lending

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"chandler/agent/source"
	"chandler/events"
)

// A frame is its length in four bytes, a byte that says what it is, and fields: each its length in four bytes, and its
// bytes. The form is this package's own, so that no encoder keeps copies of a secret.
const (
	maxFrame = 128 << 10 // a certificate chain and its key fit

	kindRequest = 1
	kindLoan    = 2
	kindRefusal = 3
)

var errFrame = errors.New("a malformed frame")

// request is what a supervisor asks.
type request struct {
	dir     string // of the run
	address string
}

// answer is a loan, or why there is none.
type answer struct {
	loan    Loan
	refusal *source.Error // nil: it is lent
}

func (r request) encode() []byte {
	return frame(kindRequest, []byte(r.dir), []byte(r.address))
}

func parseRequest(body []byte) (request, error) {
	f, err := fields(body, kindRequest, 2)
	if err != nil {
		return request{}, err
	}
	return request{dir: string(f[0]), address: string(f[1])}, nil
}

// encode gives bytes that hold the secret: they are to be cleared.
func (a answer) encode() []byte {
	var expires int64
	if !a.loan.Expires.IsZero() {
		expires = a.loan.Expires.Unix()
	}
	who := [][]byte{[]byte(a.loan.Identity), []byte(a.loan.Account), []byte(a.loan.User), number(int64(a.loan.Version))}
	if r := a.refusal; r != nil {
		return frame(kindRefusal, append(who, []byte(r.Reason), []byte(r.Answer))...)
	}
	return frame(kindLoan, append(who, []byte(a.loan.Method), number(expires), []byte(a.loan.Lease), a.loan.Secret)...)
}

// parseAnswer gives a loan that shares the secret with body.
func parseAnswer(body []byte) (answer, error) {
	count := 8
	refused := len(body) > 0 && body[0] == kindRefusal
	if refused {
		count = 6
	}
	kind := byte(kindLoan)
	if refused {
		kind = kindRefusal
	}
	f, err := fields(body, kind, count)
	if err != nil {
		return answer{}, err
	}
	version, err := parseNumber(f[3])
	if err != nil {
		return answer{}, err
	}
	a := answer{loan: Loan{Identity: string(f[0]), Account: string(f[1]), User: string(f[2]), Version: int(version)}}
	if refused {
		a.refusal = &source.Error{Reason: events.Reason(f[4]), Answer: string(f[5])}
		if !a.refusal.Reason.Known() || a.refusal.Reason == events.NoReason {
			a.refusal.Reason = events.CredentialDenied
		}
		return a, nil
	}
	expires, err := parseNumber(f[5])
	if err != nil {
		return answer{}, err
	}
	a.loan.Method, a.loan.Lease, a.loan.Secret = string(f[4]), string(f[6]), f[7]
	if expires != 0 {
		a.loan.Expires = time.Unix(expires, 0).UTC()
	}
	return a, nil
}

func frame(kind byte, fields ...[]byte) []byte {
	size := 1
	for _, f := range fields {
		size += 4 + len(f)
	}
	b := make([]byte, 0, 4+size) // once: growing would leave copies behind
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = append(b, kind)
	for _, f := range fields {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

// fields are those of a frame's body, which they share.
func fields(body []byte, kind byte, count int) ([][]byte, error) {
	if len(body) == 0 || body[0] != kind {
		return nil, errFrame
	}
	body = body[1:]
	var all [][]byte
	for len(body) > 0 {
		if len(body) < 4 || len(all) == count {
			return nil, errFrame
		}
		size := binary.BigEndian.Uint32(body)
		body = body[4:]
		if uint64(size) > uint64(len(body)) {
			return nil, errFrame
		}
		all = append(all, body[:size:size])
		body = body[size:]
	}
	if len(all) != count {
		return nil, errFrame
	}
	return all, nil
}

func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func parseNumber(b []byte) (int64, error) {
	if len(b) != 8 {
		return 0, errFrame
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

// readFrame gives the body of the next frame, which may hold a secret.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > maxFrame {
		return nil, fmt.Errorf("%w of %d bytes", errFrame, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		clear(body)
		return nil, err
	}
	return body, nil
}
