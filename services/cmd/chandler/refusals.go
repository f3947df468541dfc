package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/access"
)

// refusals listens to what the broker does not let this user do. The broker says so beside the answers and
// not in the place of one, so that whoever asked would wait until its time is over.
type refusals struct {
	mu      sync.Mutex
	waiting map[*waiter]struct{}
}

// waiter is something under way on subjects that begin with a prefix.
type waiter struct {
	prefix string
	cancel context.CancelCauseFunc
}

func newRefusals() *refusals { return &refusals{waiting: map[*waiter]struct{}{}} }

// notAllowed is why something that was under way was given up.
type notAllowed struct{ cause error }

func (n *notAllowed) Error() string { return n.cause.Error() }
func (n *notAllowed) Unwrap() error { return n.cause }

// may says before anything is asked or signed for a call that the broker would refuse it.
func (c *client) may(call events.CallDeclaration) error {
	if c.role == "" || events.Caller(c.role).Includes(call.By) { // a role of people is named as the caller that it is
		return nil
	}
	return fmt.Errorf("your role, %s, may not", c.role)
}

// in puts it into words for this user.
func (n *notAllowed) in(c *client) error {
	switch {
	case refusedUser(n.cause):
		return fmt.Errorf("%s is not let in any more: the credentials were revoked or have expired", c.Caller)
	case c.role != "":
		return fmt.Errorf("your role, %s, may not", c.role)
	}
	return fmt.Errorf("%s may not", c.Caller)
}

// refusedUser says whether the broker refuses the user, and not something that he does.
func refusedUser(err error) bool {
	for _, known := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// watch ends the context, with *notAllowed as its cause, when the broker refuses a subject that begins so,
// or the user altogether.
func (r *refusals) watch(ctx context.Context, prefix string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &waiter{prefix, cancel}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[w] = struct{}{}
	return ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, w)
		cancel(nil)
	}
}

// hear takes what the broker says of its own accord.
func (r *refusals) hear(err error) {
	subject, about := refusedSubject(err)
	if !about && !refusedUser(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.waiting {
		if !about || strings.HasPrefix(subject, w.prefix) {
			w.cancel(&notAllowed{err})
		}
	}
}

// refusedSubject is the subject of a permissions violation.
func refusedSubject(err error) (subject string, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	found := regexp.MustCompile(`(?:Publish|Subscription) to "([^"]+)"`).FindStringSubmatch(err.Error())
	if found == nil {
		return "", false
	}
	return found[1], true
}

// fileUser is the NATS user in a credentials file.
type fileUser struct {
	name, key string // key: the public one
	role      access.Role
	jwt       string
	seed      []byte
}

// readUser reads a credentials file, which must be its owner's alone.
func readUser(file string) (fileUser, error) {
	data, err := readPrivate(file)
	if err != nil {
		return fileUser{}, err
	}
	defer clear(data)
	var u fileUser
	if u.jwt, u.name, u.key, u.role, u.seed, err = access.ParseCredentials(data); err != nil {
		return fileUser{}, fmt.Errorf("credentials %s: %w", file, err)
	}
	return u, nil
}
