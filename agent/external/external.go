// Package external reads external sources for one job, in the one identity that package identity decided on.
//
// A Reader asks for a lease when a resource is first met, holds it in memory while it counts, and hands it to the source
// that opens the resource. Every first outcome is told: which resource, who tried, what was answered.
//
// # Under failure
//
// Nobody else is tried: what one identity may not read is not read. A lease that is denied is not asked for again by the
// same Reader, and a secret that was called wrong is not shown again by the whole agent before the secret changes or
// half an hour has passed (see [Logins]): that is how accounts get locked out. What is not within the
// resources of the signed order is refused before anybody is asked. Every error is a *[Error]. After Close nothing is
// held, and what was opened is closed.
package external

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"chandler/agent/identity"
	"chandler/agent/lease"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/advice"
	"chandler/events/resource"
)

// beforeEnd is how long before its end a lease is renewed.
const beforeEnd = time.Minute

// Options of a Reader.
type Options struct {
	Who       identity.Who             // who reads
	User      string                   // the logged-on user's name, where that is who reads
	Resources []string                 // that the signed order names
	Sources   map[string]source.Source // by the scheme of an address, as Who reads them
	// Lend asks for the account that reads a resource of the order; nil: Who needs none, or has none.
	Lend func(ctx context.Context, resource string) (*lease.Lease, error)
	// Told hears of each first outcome, with the lease that was used; "" where there was none. May be nil; one call at a time.
	Told   func(a events.Access, lease string)
	Logins *Logins // of the agent; nil: of this Reader alone
	Clock  func() time.Time
}

// Reader reads. All methods may be called concurrently.
type Reader struct {
	Options

	mu     sync.Mutex
	closed bool
	turns  map[string]chan struct{} // by resource: who holds it may ask for its lease
	held   map[string]*lease.Lease  // by resource of the order
	denied map[string]error         // leases that were denied, by resource
	open   map[*object]bool
	told   map[string]bool

	withdrawn []string // leases, in order
}

// Error is an access that failed.
type Error struct {
	events.Access
	Err error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s tried %s: %s", e.Reason, e.Identity, resource.Shown(e.Resource), e.Answer)
}

func (e *Error) Unwrap() error { return e.Err }

// New makes a Reader, which is to be closed.
func New(o Options) *Reader {
	if o.Told == nil {
		o.Told = func(events.Access, string) {}
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logins == nil {
		o.Logins = &Logins{}
	}
	return &Reader{Options: o, turns: map[string]chan struct{}{}, held: map[string]*lease.Lease{}, denied: map[string]error{}, open: map[*object]bool{}, told: map[string]bool{}}
}

// Loan is what it takes to read an address in the Reader's identity. Clear it when it was used.
type Loan struct {
	events.Access // who reads; without an answer
	Kind          events.AccountKind
	Login         source.Login
	Lease         string
	Expires       time.Time // zero: never

	at resource.Resource
}

// shown is the secret, and who it is shown to.
func (l *Loan) shown() login { return loginAt(l.Account, l.Login.User, l.Version, l.at.Host) }

// Clear overwrites the secret.
func (l *Loan) Clear() {
	clear(l.Login.Secret)
	l.Login.Secret = nil
}

// Open opens what lies at an address. when is one of events.AccessContent and its like.
func (r *Reader) Open(ctx context.Context, address, when string) (source.Object, error) {
	loan, err := r.borrow(ctx, address, when)
	if e, ok := errors.AsType[*Error](err); ok {
		r.tell(e.Access, "")
	}
	if err != nil {
		return nil, err
	}
	defer loan.Clear()
	a := loan.Access
	opened, err := r.openAs(ctx, loan)
	if err != nil {
		return nil, r.fail(ctx, a, loan.Lease, err)
	}
	o := &object{Object: opened, reader: r, access: a, lease: loan.Lease}
	r.mu.Lock()
	closed := r.closed
	r.open[o] = true
	r.mu.Unlock()
	if closed {
		o.Close()
		return nil, r.fail(ctx, a, loan.Lease, errClosed)
	}
	r.tell(a, loan.Lease)
	return o, nil
}

// openAs shows the host a secret, unless that was called wrong before.
func (r *Reader) openAs(ctx context.Context, loan *Loan) (source.Object, error) {
	at := loan.at
	driver := r.Sources[at.Scheme]
	switch {
	case driver == nil:
		return nil, &source.Error{Reason: events.SourceUnsupported, Answer: "this agent does not read " + at.Scheme + "://"}
	case loan.Login.Nobody():
		return driver.Open(ctx, at.String(), loan.Login)
	}
	refused, leave, err := r.Logins.enter(ctx, loan.shown(), r.Clock)
	switch {
	case err != nil:
		return nil, err
	case !refused.IsZero():
		return nil, refusedBefore(refused)
	}
	opened, err := driver.Open(ctx, at.String(), loan.Login)
	leave(proves(err), source.CodeOf(answerOf(err)) == source.LogonRefused)
	return opened, err
}

// proves says that whoever answered so took the secret first.
func proves(err error) bool {
	e, ok := errors.AsType[*source.Error](err)
	return err == nil || ok && (e.Reason == events.NetworkAccessDenied || e.Reason == events.SourceNotFound)
}

func refusedBefore(at time.Time) error {
	return &source.Error{Reason: events.CredentialRejected,
		Answer: source.Answer("this secret was refused at "+at.UTC().Format("15:04:05 UTC")+" as unknown user name or wrong password, and is not tried again before it changes", source.LogonRefused)}
}

var errClosed = &source.Error{Reason: events.CredentialDenied, Answer: "the job is over"}

// Borrow gives what it takes to read an address to another process, which tells what comes of it. What that hears others do
// not: so a secret that no host has taken yet is shown to the host here first, and one that is wrong is tried once however
// many processes want it. The caller clears the loan.
func (r *Reader) Borrow(ctx context.Context, address, when string) (*Loan, error) {
	loan, err := r.borrow(ctx, address, when)
	if err != nil || loan.Login.Nobody() || r.Logins.taken(loan.shown()) {
		return loan, err
	}
	opened, err := r.openAs(ctx, loan)
	if err == nil {
		opened.Close()
	}
	if !proves(err) {
		loan.Clear()
		return nil, r.failed(ctx, loan.Access, err)
	}
	return loan, nil
}

// borrow gives what it takes to read an address.
func (r *Reader) borrow(ctx context.Context, address, when string) (*Loan, error) {
	loan := &Loan{Access: events.Access{Resource: address, Identity: string(r.Who), When: when, At: r.Clock().UTC()}}
	if r.Who == identity.User {
		loan.User = r.User
	}
	if r.Who == identity.Nobody { // who runs the program, and is nobody elsewhere
		loan.Identity = string(identity.ClientToken)
	}
	at, err := resource.Parse(address)
	loan.at = at
	covering := resource.Longest(r.Resources, address)
	switch {
	case err != nil:
		return nil, r.failed(ctx, loan.Access, &source.Error{Reason: events.SourceNotFound, Answer: "the address " + err.Error()})
	case covering == "":
		return nil, r.failed(ctx, loan.Access, &source.Error{Reason: events.CredentialDenied, Answer: advice.NotNamed})
	case r.Who == identity.Nobody:
		return nil, r.failed(ctx, loan.Access, &source.Error{Reason: events.NoNetworkIdentity})
	case when == events.AccessTest && local(at):
		return nil, r.failed(ctx, loan.Access, &source.Error{Reason: events.SourceUnsupported, Answer: "it is a file of the machine itself, which no account is needed for"})
	case r.Who == identity.User || local(at):
		return loan, nil // by its own means, or by the rights of the process
	}
	held, err := r.leaseOf(ctx, covering)
	if err != nil {
		return nil, r.failed(ctx, loan.Access, err)
	}
	loan.Access.Account, loan.Access.User, loan.Access.Version = held.Account, held.User, held.Version
	loan.Lease, loan.Kind, loan.Expires = held.ID, held.Kind, held.Expires
	// A test asks whether the host lets the account in now, not whether it did for an earlier job.
	loan.Login = source.Login{User: held.User, Method: held.Method, Secret: held.Secret, Anew: when == events.AccessTest}
	if refused := r.Logins.refusedAt(loan.shown(), r.Clock()); !refused.IsZero() {
		loan.Clear()
		return nil, r.failed(ctx, loan.Access, refusedBefore(refused))
	}
	return loan, nil
}

// local says that an address is of a file of this machine.
func local(at resource.Resource) bool { return at.Scheme == resource.File && at.Host == "" }

// leaseOf gives a copy of the lease for a resource of the order, asked for where none is held that counts.
func (r *Reader) leaseOf(ctx context.Context, covering string) (lease.Lease, error) {
	turn, err := r.turn(ctx, covering)
	if err != nil {
		return lease.Lease{}, err
	}
	defer func() { <-turn }()
	for {
		l, withdrawn, err := r.leaseInTurn(ctx, covering)
		if !withdrawn {
			return l, err
		}
	}
}

// leaseInTurn says too whether the lease was withdrawn while it was asked for.
func (r *Reader) leaseInTurn(ctx context.Context, covering string) (l lease.Lease, withdrawn bool, err error) {
	r.mu.Lock()
	held, denied, before := r.held[covering], r.denied[covering], len(r.withdrawn)
	if held != nil && r.Clock().Add(beforeEnd).Before(held.Expires) {
		defer r.mu.Unlock()
		return copied(held), false, nil
	}
	r.mu.Unlock()
	if denied != nil {
		return lease.Lease{}, false, denied
	}
	if r.Lend == nil {
		return lease.Lease{}, false, &source.Error{Reason: events.CredentialUnavailable, Answer: "there is no credential service that an account could be asked from"}
	}
	asked, err := r.Lend(ctx, covering)
	var no *lease.Denied
	switch {
	case errors.As(err, &no):
		err = &source.Error{Reason: no.Reason, Answer: no.Why, Err: err}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.denied[covering] = err
		return lease.Lease{}, false, err
	case ctx.Err() != nil:
		return lease.Lease{}, false, context.Cause(ctx)
	case err != nil:
		return lease.Lease{}, false, &source.Error{Reason: events.CredentialUnavailable, Answer: fmt.Sprintf("the credential service gave no lease: %v", err), Err: err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if held != nil {
		held.Clear()
		delete(r.held, covering)
	}
	if r.closed {
		asked.Clear()
		return lease.Lease{}, false, errClosed
	}
	if slices.Contains(r.withdrawn[before:], asked.ID) {
		asked.Clear()
		return lease.Lease{}, true, nil
	}
	r.held[covering] = asked
	return copied(asked), false, nil
}

// copied keeps what is held from being cleared by whoever uses it.
func copied(l *lease.Lease) lease.Lease {
	c := *l
	c.Secret = append([]byte(nil), l.Secret...)
	return c
}

// turn lets one caller at a time ask for a resource's lease.
func (r *Reader) turn(ctx context.Context, covering string) (chan struct{}, error) {
	r.mu.Lock()
	turn := r.turns[covering]
	if turn == nil {
		turn = make(chan struct{}, 1)
		r.turns[covering] = turn
	}
	r.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return turn, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fail tells of a failure and makes the error of it; where the context was cancelled, that is no answer.
func (r *Reader) fail(ctx context.Context, a events.Access, lease string, err error) error {
	err = r.failed(ctx, a, err)
	if e, ok := errors.AsType[*Error](err); ok {
		r.tell(e.Access, lease)
	}
	return err
}

func (r *Reader) failed(ctx context.Context, a events.Access, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx) // which may be what another file answered, and is told of that
	}
	a.At, a.Reason, a.Answer = r.Clock().UTC(), events.SourceUnreachable, answerOf(err)
	if e, ok := errors.AsType[*source.Error](err); ok {
		a.Reason = e.Reason
	}
	return &Error{Access: a, Err: err}
}

func answerOf(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*source.Error](err); ok {
		return e.Answer
	}
	return err.Error()
}

// tell tells each first outcome of a resource of the order, and each failure of an address.
func (r *Reader) tell(a events.Access, lease string) {
	what := a.Resource
	if a.Reason == events.NoReason {
		if what = resource.Longest(r.Resources, a.Resource); what != "" {
			a.Resource = what
		}
	}
	key := fmt.Sprintf("%s %s %s %s %d", what, a.When, a.Reason, a.Account, a.Version)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told[key] {
		return
	}
	r.told[key] = true
	r.Told(a, lease)
}

// Close clears what is held and closes what is open.
func (r *Reader) Close() {
	r.mu.Lock()
	r.closed = true
	for covering, l := range r.held {
		l.Clear()
		delete(r.held, covering)
	}
	var over []*object
	for o := range r.open {
		over = append(over, o)
	}
	r.mu.Unlock()
	for _, o := range over {
		o.Close()
	}
}

// object is what a Reader opened. Its errors are *Errors too.
type object struct {
	source.Object
	reader *Reader
	access events.Access
	lease  string
	once   sync.Once
}

func (o *object) ReadAt(ctx context.Context, p []byte, offset int64) (int, error) {
	n, err := o.Object.ReadAt(ctx, p, offset)
	return n, o.said(ctx, err)
}

func (o *object) List(ctx context.Context) ([]source.Info, error) {
	list, err := o.Object.List(ctx)
	return list, o.said(ctx, err)
}

func (o *object) said(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*source.Error](err); ok {
		return o.reader.fail(ctx, o.access, o.lease, e)
	}
	return err
}

func (o *object) Close() (err error) {
	o.once.Do(func() {
		o.reader.mu.Lock()
		delete(o.reader.open, o)
		o.reader.mu.Unlock()
		err = o.Object.Close()
	})
	return err
}
