package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/enrolment"
	"chandler/events/lease"
	"chandler/events/order"
)

const secret = "Pl4nted-s3cret-9c02"

var now = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// asker is an agent whose requests a service of the test answers.
func asker(t testing.TB, answer func(events.LeaseStatement) (events.LeaseAnswer, error)) (Asker, Query) {
	t.Helper()
	seed, public, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	agent := events.AgentID([]byte(public))
	envelope, err := order.Sign(order.Order{Fleet: "example", Deployment: "hello", Revision: 1, Package: "hello", Version: "1.0", Manifest: events.DigestOf([]byte("m")),
		Program: "install", Run: events.RunAdministrative, InstallationAccount: "corp-installer", Collection: "all", Expression: "true",
		Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunNever, Issued: now, NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	a := Asker{Agent: agent, Sign: pair.Sign, Clock: func() time.Time { return now }, Request: func(ctx context.Context, r events.LeaseRequest) (events.LeaseAnswer, error) {
		if deadline, bounded := ctx.Deadline(); !bounded || time.Until(deadline) > askTime {
			t.Error("the question has no bound")
		}
		s, err := lease.Verify(r, public)
		if err != nil {
			t.Errorf("the request: %v", err)
		}
		return answer(s)
	}}
	q := Query{Job: events.JobID("hello", 1, agent, 0, ""), Attempt: 1, Order: envelope, Wanted: Wanted{Account: "corp-installer"}, Purpose: events.LeaseToExecute}
	return a, q
}

func grant(t testing.TB, s events.LeaseStatement) events.LeaseGrant {
	t.Helper()
	g := events.LeaseGrant{Lease: "l1", Agent: s.Agent, Job: s.Job, Account: "corp-installer", Kind: events.SoftwareInstallation, User: `EXAMPLE\installer`, Version: 2,
		Purpose: s.Purpose, Resource: s.Resource, Expires: now.Add(10 * time.Minute)}
	if s.Kind != "" {
		g.Kind = s.Kind
	}
	g, err := lease.Seal(s, g, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestALeaseThatIsGrantedIsOpened(t *testing.T) {
	for name, wanted := range map[string]Wanted{"by name": {Account: "corp-installer"}, "by kind": {Kind: events.ClientTokenDomain}} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			a, q := asker(t, func(s events.LeaseStatement) (events.LeaseAnswer, error) {
				asked++
				return events.LeaseAnswer{Grant: new(grant(t, s))}, nil
			})
			q.Wanted = wanted
			l, err := Ask(t.Context(), a, q)
			if err != nil {
				t.Fatal(err)
			}
			if string(l.Secret) != secret || l.Account != "corp-installer" || l.User != `EXAMPLE\installer` || l.Version != 2 || !l.Expires.Equal(now.Add(10*time.Minute)) || asked != 1 {
				t.Errorf("%v after %d questions", l, asked)
			}
			held := l.Secret
			l.Clear()
			if l.Secret != nil || strings.Trim(string(held), "\x00") != "" {
				t.Errorf("after Clear %q is left", held)
			}
		})
	}
}

func TestARefusalIsToldInTheServicesWordsAndNotAskedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		answer events.LeaseAnswer
		want   Denied
	}{
		"with reason and words":            {events.LeaseAnswer{Denied: true, Reason: events.AccountRefused, Why: "must not"}, Denied{events.AccountRefused, "must not"}},
		"with a reason that is not known":  {events.LeaseAnswer{Denied: true, Reason: "moon_phase", Why: "full"}, Denied{events.CredentialDenied, "full"}},
		"without words":                    {events.LeaseAnswer{Denied: true}, Denied{events.CredentialDenied, "the credential service denied the lease and did not say why"}},
		"with what disturbs a terminal":    {events.LeaseAnswer{Denied: true, Why: "a\x1b[31m\nb\xff"}, Denied{events.CredentialDenied, "a[31mb"}},
		"with very many words":             {events.LeaseAnswer{Denied: true, Why: strings.Repeat("w", 9<<10)}, Denied{events.CredentialDenied, strings.Repeat("w", maxWhy)}},
		"denied and granted, which is odd": {events.LeaseAnswer{Denied: true, Why: "no", Grant: &events.LeaseGrant{}}, Denied{events.CredentialDenied, "no"}},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			a, q := asker(t, func(events.LeaseStatement) (events.LeaseAnswer, error) { asked++; return c.answer, nil })
			l, err := Ask(t.Context(), a, q)
			got, ok := errors.AsType[*Denied](err)
			if l != nil || !ok || *got != c.want || asked != 1 {
				t.Errorf("%v, %#v after %d questions", l, err, asked)
			}
		})
	}
}

func TestAnAnswerThatIsNotOneToTheQuestionGivesNoLease(t *testing.T) {
	gone := errors.New("nobody there")
	for name, c := range map[string]struct {
		ask    func(*Asker, *Query)
		answer func(s events.LeaseStatement) (events.LeaseAnswer, error)
		says   string
	}{
		"nobody answers":  {nil, func(events.LeaseStatement) (events.LeaseAnswer, error) { return events.LeaseAnswer{}, gone }, "nobody there"},
		"an empty answer": {nil, func(events.LeaseStatement) (events.LeaseAnswer, error) { return events.LeaseAnswer{}, nil }, "no lease"},
		"a lease of another account": {nil, func(s events.LeaseStatement) (events.LeaseAnswer, error) {
			g := grant(t, s)
			g.Account = "other"
			return events.LeaseAnswer{Grant: &g}, nil
		}, "another account"},
		"a lease of another user": {nil, func(s events.LeaseStatement) (events.LeaseAnswer, error) {
			g := grant(t, s)
			g.User = "root"
			return events.LeaseAnswer{Grant: &g}, nil
		}, "altered"},
		"the answer to an earlier question": {nil, func(s events.LeaseStatement) (events.LeaseAnswer, error) {
			s.Nonce = "earlier"
			return events.LeaseAnswer{Grant: new(grant(t, s))}, nil
		}, "another request"},
		"a lease that has expired by the clock here": {func(a *Asker, _ *Query) {
			times := []time.Time{now, now.Add(time.Hour)}
			a.Clock = func() time.Time { at := times[0]; times = times[1:]; return at }
		}, func(s events.LeaseStatement) (events.LeaseAnswer, error) {
			return events.LeaseAnswer{Grant: new(grant(t, s))}, nil
		}, "expired"},
		"an order that is none":  {func(_ *Asker, q *Query) { q.Order = []byte("{}") }, nil, "order"},
		"nothing wanted":         {func(_ *Asker, q *Query) { q.Wanted = Wanted{} }, nil, "account or a kind"},
		"both wanted":            {func(_ *Asker, q *Query) { q.Wanted.Kind = events.ClientTokenDomain }, nil, "account or a kind"},
		"a key that cannot sign": {func(a *Asker, _ *Query) { a.Sign = func([]byte) ([]byte, error) { return nil, gone } }, nil, "nobody there"},
	} {
		t.Run(name, func(t *testing.T) {
			a, q := asker(t, func(s events.LeaseStatement) (events.LeaseAnswer, error) {
				if c.answer == nil {
					t.Error("it was asked")
					return events.LeaseAnswer{}, nil
				}
				return c.answer(s)
			})
			if c.ask != nil {
				c.ask(&a, &q)
			}
			l, err := Ask(t.Context(), a, q)
			if _, denied := errors.AsType[*Denied](err); l != nil || err == nil || denied || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, %v; want %s", l, err, c.says)
			}
		})
	}
}

func TestNothingThatPrintsOrEncodesALeaseTellsItsSecret(t *testing.T) {
	l := Lease{Account: "a", Secret: []byte(secret), Expires: now}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n"+verb+"\n", l, &l)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "lease", l, "pointer", &l)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "lease", l, "pointer", &l)
	if _, err := json.Marshal(&l); err == nil {
		t.Error("a lease becomes JSON")
	}
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), strings.Trim(fmt.Sprint([]byte(secret)), "[]"), "UGw0bnRlZC1zM2NyZXQt"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("it tells %s:\n%s", form, out.String())
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"denied":true,"reason":"credential_denied","why":"no"}`))
	f.Add([]byte(`{"denied":false,"grant":{"lease":"l","agent":"a","job":"j","account":"corp-installer","sealed":"AAAA","expires":"2027-01-01T00:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var answer events.LeaseAnswer
		if json.Unmarshal(text, &answer) != nil {
			return
		}
		a, q := asker(t, func(events.LeaseStatement) (events.LeaseAnswer, error) { return answer, nil })
		if l, err := Ask(t.Context(), a, q); err == nil {
			t.Errorf("%v of an answer that nobody sealed", l)
		}
	})
}
