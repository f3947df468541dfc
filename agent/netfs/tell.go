package netfs

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"chandler/agent/lending"
	"chandler/agent/source"
	"chandler/events"
)

const (
	maxDenied = 8       // files of one resource that are told of with one reason
	maxAnswer = 1 << 10 // bytes
)

// teller tells each outcome once.
type teller struct {
	told     func(events.Access)
	identity string
	now      func() time.Time

	mu   sync.Mutex
	seen map[outcome]map[string]bool // addresses
}

// outcome is what counts as the same.
type outcome struct {
	covering string
	reason   events.Reason
	account  string
	version  int
}

// tell says how an address was read, or why not; covering is the resource it belongs to, "" if the order names none. An
// access that went well is told of the resource, a failure of the file.
func (t *teller) tell(address, covering string, who lending.Loan, failed *source.Error) {
	a := events.Access{Resource: address, Identity: who.Identity, Account: who.Account, User: who.User, Version: who.Version, When: events.AccessRun, At: t.now().UTC()}
	if a.Identity == "" {
		a.Identity = t.identity
	}
	limit := 1
	if failed == nil {
		a.Resource = strings.TrimSuffix(covering, "/*")
	} else {
		a.Reason, a.Answer = failed.Reason, failed.Answer
		if failed.Reason != events.SourceNotFound { // programs look for many files that need not be there
			limit = maxDenied
		}
	}
	if len(a.Answer) > maxAnswer {
		a.Answer = strings.ToValidUTF8(a.Answer[:maxAnswer], "")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = map[outcome]map[string]bool{}
	}
	same := outcome{covering, a.Reason, a.Account, a.Version}
	seen := t.seen[same]
	if seen == nil {
		seen = map[string]bool{}
		t.seen[same] = seen
	}
	if !seen[a.Resource] && len(seen) < limit {
		seen[a.Resource] = true
		t.told(a)
	}
}

// failure puts any error into words that are told.
func failure(err error) *source.Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*source.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &source.Error{Reason: events.SourceUnreachable, Answer: "it did not answer in time", Err: err}
	}
	return &source.Error{Reason: events.OtherReason, Answer: err.Error(), Err: err}
}
