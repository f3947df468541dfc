package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/order"
)

// Limits, in bytes.
const (
	maxStatement = 16 << 10
	maxNonce     = 128
	maxKey       = 2 << 10
	maxName      = 256 // of a user
	maxResource  = 1 << 10
)

// ClockTolerance is by how much the clocks of agent and service may differ. A request is good for that long, and
// for that long its nonce is remembered.
const ClockTolerance = order.ClockTolerance

// signedPrefix stands before the statement in what is signed: the agent's key also signs its enrolment and
// whatever nonce a broker sends when it connects. No such nonce contains the byte 0xff: it arrives as JSON,
// where that byte is none.
const signedPrefix = "chandler lease\xff"

// Sign makes the request for a statement. sign signs with the enrolled key of the statement's agent. The
// statement's Order must be the digest of the envelope; a test has neither.
func Sign(s events.LeaseStatement, envelope []byte, sign func([]byte) ([]byte, error)) (events.LeaseRequest, error) {
	fail := func(err error) (events.LeaseRequest, error) {
		return events.LeaseRequest{}, fmt.Errorf("sign request for a lease: %w", err)
	}
	if err := check(s); err != nil {
		return fail(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fail(err)
	}
	r := events.LeaseRequest{Statement: text, Order: envelope}
	if err := small(r); err != nil {
		return fail(err)
	}
	if r.Signature, err = sign(signed(text)); err != nil {
		return fail(err)
	}
	return r, nil
}

func signed(text []byte) []byte { return append([]byte(signedPrefix), text...) }

// Verify reads a request and checks that the agent with the given public key (a user nkey) signed it, that it
// speaks of this agent, and that it is well formed. Time, order, and what the agent may have are the caller's
// to judge. Fields that this version does not know are left out, so that newer agents may ask.
func Verify(r events.LeaseRequest, public string) (events.LeaseStatement, error) {
	fail := func(err error) (events.LeaseStatement, error) {
		return events.LeaseStatement{}, fmt.Errorf("verify request for a lease: %w", err)
	}
	s, err := Read(r)
	if err != nil {
		return fail(err)
	}
	if !nkeys.IsValidPublicUserKey(public) {
		return fail(errors.New("the agent has no public user key"))
	}
	pair, err := nkeys.FromPublicKey(public)
	if err != nil {
		return fail(err)
	}
	if err := pair.Verify(signed(r.Statement), r.Signature); err != nil {
		return fail(errors.New("it is not signed by the agent's enrolled key"))
	}
	if id := events.AgentID([]byte(public)); s.Agent != id {
		return fail(fmt.Errorf("it speaks of agent %q, but is signed by %s", s.Agent, id))
	}
	return s, nil
}

// Read gives the statement of a request that is well formed, without knowing who made it.
func Read(r events.LeaseRequest) (events.LeaseStatement, error) {
	var s events.LeaseStatement
	if err := small(r); err != nil {
		return s, err
	}
	if err := json.Unmarshal(r.Statement, &s); err != nil {
		return events.LeaseStatement{}, errors.New("the statement cannot be read")
	}
	if err := check(s); err != nil {
		return events.LeaseStatement{}, err
	}
	return s, nil
}

// Timely says whether a statement was made at now, give or take the difference of two clocks.
func Timely(s events.LeaseStatement, now time.Time) error {
	if d := now.Sub(s.At); d > ClockTolerance || d < -ClockTolerance {
		return fmt.Errorf("the request is of %s by the agent's clock, and it is %s here: it was sent again, or the clock must be set", s.At.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func small(r events.LeaseRequest) error {
	if len(r.Statement) > maxStatement || len(r.Order) > order.MaxSize {
		return fmt.Errorf("a statement of %d bytes with an order of %d: at most %d and %d are allowed", len(r.Statement), len(r.Order), maxStatement, order.MaxSize)
	}
	return nil
}

// check is what holds for every statement, whoever made it.
func check(s events.LeaseStatement) error {
	if err := events.ValidAgent(s.Agent); err != nil {
		return err
	}
	var err error
	switch s.Purpose {
	case events.LeaseToExecute, events.LeaseToRead:
		err = checkJob(s)
	case events.LeaseToTest:
		err = checkTest(s)
	default:
		err = fmt.Errorf("purpose %.32q must be %s, %s or %s", s.Purpose, events.LeaseToExecute, events.LeaseToRead, events.LeaseToTest)
	}
	if err != nil {
		return err
	}
	switch {
	case (s.Account == "") == (s.Kind == ""):
		return errors.New("it must name an account or a kind of account, and not both")
	case s.Account != "" && events.ValidToken(s.Account) != nil:
		return fmt.Errorf("account: %w", events.ValidToken(s.Account))
	case s.Kind != "" && events.ValidToken(string(s.Kind)) != nil:
		return fmt.Errorf("kind: %w", events.ValidToken(string(s.Kind)))
	case (s.Resource == "") != (s.Purpose == events.LeaseToExecute):
		return errors.New("to read or to test it must name a resource, and to execute none")
	case len(s.Resource) > maxResource || strings.ContainsFunc(s.Resource, unicode.IsControl):
		return fmt.Errorf("the resource must be one line of at most %d bytes", maxResource)
	case len(s.User) > maxName:
		return fmt.Errorf("the user has more than %d bytes", maxName)
	case len(s.Key) == 0 || len(s.Key) > maxKey:
		return fmt.Errorf("its key has %d bytes, not 1 to %d", len(s.Key), maxKey)
	case s.Nonce == "" || len(s.Nonce) > maxNonce:
		return fmt.Errorf("its nonce has %d bytes, not 1 to %d", len(s.Nonce), maxNonce)
	}
	return nil
}

// checkJob is what holds for the statement of a job.
func checkJob(s events.LeaseStatement) error {
	if err := events.ValidToken(s.Job); err != nil {
		return fmt.Errorf("job: %w", err)
	}
	if err := events.ValidDigest(s.Order); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	switch {
	case s.Test != "":
		return fmt.Errorf("only a request of purpose %s names a test", events.LeaseToTest)
	case s.Attempt < 1:
		return fmt.Errorf("attempt %d: they count from 1", s.Attempt)
	}
	return nil
}

// checkTest is what holds for the statement of a test, which is of one account by its name and of no job.
func checkTest(s events.LeaseStatement) error {
	if err := events.ValidToken(s.Test); err != nil {
		return fmt.Errorf("test: %w", err)
	}
	switch {
	case s.Job != "" || s.Order != "" || s.Occurrence != 0 || s.User != "":
		return errors.New("a test is of no job and no order")
	case s.Attempt != 1:
		return fmt.Errorf("attempt %d: a test is made once", s.Attempt)
	case s.Account == "":
		return errors.New("a test is of an account by its name")
	}
	return nil
}
