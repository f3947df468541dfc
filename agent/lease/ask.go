package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"chandler/events"
	"chandler/events/lease"
	"chandler/events/order"
)

// askTime bounds one question to the service.
const askTime = 20 * time.Second

// maxWhy bounds the service's words, in bytes.
const maxWhy = 2 << 10

// Asker is who asks: the agent by its enrolled key, over its connection.
type Asker struct {
	Agent string // its id
	// Sign signs with the enrolled key.
	Sign func(message []byte) ([]byte, error)
	// Request makes the call [events.CredentialLease] once.
	Request func(context.Context, events.LeaseRequest) (events.LeaseAnswer, error)
	Clock   func() time.Time // nil: time.Now
}

// Query is what is asked for.
type Query struct {
	Job        string
	Occurrence int64  // of the job, and
	User       string // as its offer says
	Attempt    int    // counted from 1
	Order      []byte // the signed envelope, as the journal keeps it
	Wanted     Wanted
	Purpose    string // events.LeaseToExecute, LeaseToRead or LeaseToTest
	Resource   string // what is read; "" to execute
	Test       string // that an administrator asked for: then there is neither job nor order
}

// Ask asks once for an account, within 20 s, and opens the answer if it is one to this question. The caller clears
// the lease. A refusal is a *Denied; any other error says that the service was not heard, or what it said was not
// for here.
func Ask(ctx context.Context, a Asker, q Query) (*Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	clock := a.Clock
	if clock == nil {
		clock = time.Now
	}
	key, err := lease.NewKey()
	if err != nil {
		return nil, err
	}
	s, err := statement(a.Agent, q, key, clock())
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", q.Wanted, err)
	}
	request, err := lease.Sign(s, q.Order, a.Sign)
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", q.Wanted, err)
	}
	answer, err := a.Request(ctx, request)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask for %s: %w", q.Wanted, err)
	case answer.Denied:
		return nil, denied(answer)
	case answer.Grant == nil:
		return nil, fmt.Errorf("ask for %s: the answer holds no lease", q.Wanted)
	}
	g := *answer.Grant
	secret, err := key.Open(s, g, clock())
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", q.Wanted, err)
	}
	return &Lease{ID: g.Lease, Method: g.Method, Account: g.Account, Kind: g.Kind, User: g.User, Version: g.Version, Secret: secret, Expires: g.Expires}, nil
}

func statement(agent string, q Query, key *lease.Key, now time.Time) (events.LeaseStatement, error) {
	s := events.LeaseStatement{Agent: agent, Job: q.Job, Occurrence: q.Occurrence, User: q.User, Attempt: q.Attempt, Test: q.Test,
		Account: q.Wanted.Account, Kind: q.Wanted.Kind, Resource: q.Resource, Purpose: q.Purpose, Key: key.Public(), Nonce: rand.Text(), At: now.UTC()}
	if q.Test != "" {
		return s, nil
	}
	_, digest, err := order.Open(q.Order)
	if err != nil {
		return events.LeaseStatement{}, fmt.Errorf("read order: %w", err)
	}
	s.Order = digest
	return s, nil
}

// denied keeps the service's words to what an explanation can hold.
func denied(a events.LeaseAnswer) error {
	d := &Denied{Reason: a.Reason, Why: strings.ToValidUTF8(a.Why[:min(len(a.Why), maxWhy)], "")}
	d.Why = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, d.Why)
	d.Why = cmp.Or(d.Why, "the credential service denied the lease and did not say why")
	if !d.Reason.Known() || d.Reason == events.NoReason {
		d.Reason = events.CredentialDenied
	}
	return d
}

// String names what is wanted, for people.
func (w Wanted) String() string {
	if w.Account != "" {
		return "account " + w.Account
	}
	return fmt.Sprintf("the account of kind %s", w.Kind)
}

// errWithheld is what an encoder gets of a lease.
var errWithheld = errors.New("a lease holds a secret and is not written down")

// MarshalJSON refuses: a lease is in memory only.
func (Lease) MarshalJSON() ([]byte, error) { return nil, errWithheld }
