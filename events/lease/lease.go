// Package lease is how an agent asks for an account and how it is answered: the request that proves who asks
// and for what, and the secret, sealed so that nobody else can read it and that it is of no use for anything
// else.
//
// The request is signed by the agent's enrolled key and names a key that is made for it alone. The answer is
// sealed to that key by HPKE (RFC 9180: ML-KEM-768 with X25519, HKDF-SHA256, AES-256-GCM), with all that is
// said of the lease as its context: lease, job or test, attempt, agent, account, kind, user, method, version,
// resource, purpose, expiry and the request's nonce. Opened with any other context it gives nothing. The private half
// never leaves the process that asked, so what was recorded on the way stays closed when the enrolled key is
// stolen later.
//
// A sealed answer proves that it was made for this request, not who made it: whoever carries requests could
// answer one with a user and a secret of its own. It learns nothing by that, and who reads what is pinned gets nothing
// else; but for a program that is run by the account, it names the user of the machine who is given rights for that.
//
// Everything here is pure but for randomness: bytes in, values out. What was sent by somebody is checked whole
// or refused; no error quotes a secret.
package lease

import (
	"crypto/hpke"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"chandler/events"
)

// MaxSecret of an account, in bytes.
const MaxSecret = 64 << 10

// maxSealed allows for the encapsulated key and the tag.
const maxSealed = MaxSecret + 4<<10

// context begins what a sealed answer is bound to.
const context = "chandler lease answer 1"

// Key is made for one request, and is the only one that opens its answer.
type Key struct{ private hpke.PrivateKey }

// NewKey makes a key.
func NewKey() (*Key, error) {
	private, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return &Key{private}, nil
}

// Public half, as a statement names it.
func (k *Key) Public() []byte { return k.private.PublicKey().Bytes() }

// Seal puts a secret into the grant that answers a statement. The caller clears the secret.
func Seal(s events.LeaseStatement, g events.LeaseGrant, secret []byte) (events.LeaseGrant, error) {
	fail := func(err error) (events.LeaseGrant, error) {
		return events.LeaseGrant{}, fmt.Errorf("seal lease: %w", err)
	}
	if err := answers(s, g); err != nil {
		return fail(err)
	}
	if len(secret) == 0 || len(secret) > MaxSecret {
		return fail(fmt.Errorf("the secret has %d bytes, not 1 to %d", len(secret), MaxSecret))
	}
	key, err := hpke.MLKEM768X25519().NewPublicKey(s.Key)
	if err != nil {
		return fail(errors.New("the key of the request is none"))
	}
	if g.Sealed, err = hpke.Seal(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info(s, g), secret); err != nil {
		return fail(err)
	}
	return g, nil
}

// Open gives the secret of a grant that answers the statement and has not expired at now. The caller clears it.
func (k *Key) Open(s events.LeaseStatement, g events.LeaseGrant, now time.Time) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("open lease: %w", err) }
	if err := answers(s, g); err != nil {
		return fail(err)
	}
	if !now.Before(g.Expires) {
		return fail(fmt.Errorf("it expired at %s", g.Expires.UTC().Format(time.RFC3339)))
	}
	if len(g.Sealed) > maxSealed {
		return fail(fmt.Errorf("%d bytes are sealed, more than %d", len(g.Sealed), maxSealed))
	}
	secret, err := hpke.Open(k.private, hpke.HKDFSHA256(), hpke.AES256GCM(), info(s, g), g.Sealed)
	if err != nil {
		return fail(errors.New("it was sealed for another request, or altered on its way"))
	}
	if len(secret) == 0 {
		return fail(errors.New("the secret is empty"))
	}
	return secret, nil
}

// answers says whether a grant is what was asked for.
func answers(s events.LeaseStatement, g events.LeaseGrant) error {
	switch {
	case g.Agent != s.Agent || g.Job != s.Job:
		return errors.New("the lease is another job's")
	case s.Account != "" && g.Account != s.Account || s.Kind != "" && g.Kind != s.Kind:
		return errors.New("the lease is of another account")
	case g.Resource != s.Resource || g.Purpose != s.Purpose:
		return errors.New("the lease is for another resource or purpose")
	case events.ValidToken(g.Lease) != nil || events.ValidToken(g.Account) != nil || events.ValidToken(string(g.Kind)) != nil || g.Version < 1 || g.Expires.IsZero():
		return errors.New("the lease does not name itself, account, kind, version and expiry")
	case !slices.Contains([]string{"", events.ByPassword, events.ByBearer, events.ByClientCertificate}, g.Method):
		return errors.New("the lease does not say in a known way how the account proves itself")
	case g.User == "" && (g.Method == "" || g.Method == events.ByPassword):
		return errors.New("the lease names no user, and an empty one would connect as nobody")
	case len(g.User) > maxName || strings.ContainsFunc(g.User, unicode.IsControl):
		return fmt.Errorf("the user must be one line of at most %d bytes", maxName)
	}
	return nil
}

// info is the context of a sealed secret: each part with its length, so that no two lists of parts are equal.
func info(s events.LeaseStatement, g events.LeaseGrant) []byte {
	out := []byte(context)
	for _, part := range []string{g.Lease, g.Job, s.Test, strconv.Itoa(s.Attempt), g.Agent, g.Account, string(g.Kind), g.User, g.Method, strconv.Itoa(g.Version),
		g.Resource, g.Purpose, strconv.FormatInt(g.Expires.UnixNano(), 10), s.Nonce} {
		out = fmt.Appendf(out, "\n%d:%s", len(part), part)
	}
	return out
}

// ID names the one lease of a job (or of a test), account, resource and purpose.
func ID(job, account, resource, purpose string) string {
	return events.DeriveID("lease", job, account, resource, purpose)
}
