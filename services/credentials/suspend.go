package credentials

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/resource"
)

// rejectionsToSuspend is at how many machines a version of a secret is refused before it is lent no more: one
// machine may be wrong, and each more costs the account a bad password where it is kept.
const rejectionsToSuspend = 3

// wrongSecret ends the answer of a resource that takes the secret for a wrong one, by the code that the field knows. A
// locked or disabled account costs no bad password, and is mended without another secret.
const wrongSecret = "(1326/0x8007052E)"

// Lengths in bytes of what is kept of an agent's words.
const (
	maxHost   = 64
	maxAnswer = 512
)

// rejection is one machine's word that a resource refused the account.
type rejection struct {
	Agent    string    `json:"agent"`
	Host     string    `json:"host"`
	Resource string    `json:"resource"`
	At       time.Time `json:"at"`
}

// suspended says why the current version is lent no more; "" while it is.
func (r *accountRecord) suspended() string {
	if len(r.Rejected) < rejectionsToSuspend {
		return ""
	}
	last := r.Rejected[len(r.Rejected)-1]
	return fmt.Sprintf("version %d of account %s was rejected by %d machines, last by %s at %s: set its secret again with `chandler account rotate %s`",
		r.Version, r.Account, len(r.Rejected), last.Host, resource.Shown(last.Resource), r.Account)
}

// onUsed counts the machines at which an account was refused. What counts is the word of an agent about a lease of
// its own, to read, of the account's current version, and about the host that the lease is for.
func (s *Service) onUsed(ctx context.Context, e events.Event[events.LeaseUse], m bus.Meta) error {
	use := e.Data
	if use.Reason != events.CredentialRejected || !strings.HasSuffix(use.Answer, wrongSecret) || s.past(m.Stored) {
		return nil
	}
	if !s.limits.hears(e.Subject, s.now()) {
		s.log.Warn("an agent says too often that accounts were rejected and is not heard", "agent", use.Agent)
		return nil
	}
	if err := s.lent.refresh(ctx); err != nil {
		return err
	}
	held, ok := s.lent.get(use.Lease)
	if !ok || held.Agent != e.Subject || held.Account != use.Account || held.Purpose != events.LeaseToRead || held.Version != use.Version || !sameHost(held.Resource, use.Resource) {
		s.log.Warn("an agent says that an account was rejected of which it holds no such lease", "agent", use.Agent, "account", use.Account, "lease", use.Lease)
		return nil
	}
	now := s.now().UTC()
	counted := false
	r, err := change(ctx, s.accounts, held.Account, func(old accountRecord, found bool) (accountRecord, error) {
		counted = false
		if !found || old.Removed || old.Version != held.Version || len(old.Rejected) >= rejectionsToSuspend ||
			slices.ContainsFunc(old.Rejected, func(r rejection) bool { return r.Agent == use.Agent }) {
			return old, errKeep
		}
		host := oneLine(use.Hostname, maxHost)
		if host == "" {
			host = use.Agent
		}
		old.Rejected = append(slices.Clone(old.Rejected), rejection{use.Agent, host, use.Resource, now})
		counted = true
		return old, nil
	})
	if err != nil {
		return err
	}
	why := r.suspended()
	if why != "" && r.Version == held.Version {
		if err := s.tellSuspension(ctx, r, why, now); err != nil {
			return err // and it is said again when the event comes again
		}
	}
	if !counted {
		return nil
	}
	s.log.Warn("an account was rejected", "account", r.Account, "version", r.Version, "agent", use.Agent, "resource", use.Resource, "answer", oneLine(use.Answer, maxAnswer))
	if why != "" {
		s.log.Error("an account is lent no more", "account", r.Account, "version", r.Version, "why", why)
		s.wakeUp()
	}
	return nil
}

// tellSuspension tells of a version that is lent no more; however often, it is one event.
func (s *Service) tellSuspension(ctx context.Context, r accountRecord, why string, now time.Time) error {
	data := events.AccountSuspension{Account: r.Account, Version: r.Version, Why: why, At: now}
	for _, at := range r.Rejected {
		data.Agents = append(data.Agents, at.Agent)
	}
	id := events.DeriveID(events.AccountSuspended.Name, r.Account, strconv.Itoa(r.Version))
	_, err := bus.Publish(ctx, s.bus, events.AccountSuspended, events.Event[events.AccountSuspension]{ID: id, Subject: r.Account, Time: now, Data: data})
	return err
}

// sameHost says whether two addresses are of one host and scheme.
func sameHost(a, b string) bool {
	x, err := resource.Parse(a)
	if err != nil {
		return false
	}
	y, err := resource.Parse(b)
	return err == nil && x.Scheme == y.Scheme && x.Host == y.Host
}

// oneLine is somebody's words as they may be kept and shown: printable, and of at most limit bytes.
func oneLine(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return -1
	}, text[:min(len(text), 4*limit)])
	return strings.ToValidUTF8(text[:min(len(text), limit)], "")
}
