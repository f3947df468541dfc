package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/cmlog"
	"chandler/agent/lease"
	"chandler/agent/logon"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/trust"
)

// shelf is a share with one file, which one user may read.
type shelf struct {
	as     []string // who opened, in order
	anew   bool     // the last one logged on anew
	answer error
	text   string
}

func (s *shelf) Open(_ context.Context, _ string, l source.Login) (source.Object, error) {
	s.as, s.anew = append(s.as, l.User), l.Anew
	if s.answer != nil {
		return nil, s.answer
	}
	return &book{strings.NewReader(s.text)}, nil
}

type book struct{ *strings.Reader }

func (b *book) Info() source.Info { return source.Info{Name: "setup.sh", Size: b.Size()} }
func (b *book) ReadAt(_ context.Context, p []byte, at int64) (int, error) {
	return b.Reader.ReadAt(p, at)
}
func (b *book) List(context.Context) ([]source.Info, error) { return nil, errors.New("no folder") }
func (b *book) Close() error                                { return nil }

const setup = "#!/bin/sh\n"

// onShare puts the package's one file onto a share.
func onShare(g *given) {
	g.manifest.Source = "smb://files/apps"
	g.manifest.Files = []events.File{{Path: "setup.sh", Size: int64(len(setup)), Mode: 0o755, SHA256: events.DigestOf([]byte(setup))}}
	g.order.Resources = manifest.Resources(g.manifest, "install")
}

func referring(refs ...events.Reference) func(*given) {
	return func(g *given) {
		p := g.manifest.Programs["install"]
		p.References = refs
		g.manifest.Programs["install"] = p
		g.order.Resources = manifest.Resources(g.manifest, "install")
	}
}

// outcome of a job up to where it would run.
func (m *machine) outcome(change ...func(*given)) *ending {
	m.t.Helper()
	job := m.offer(change...)
	defer job.leaveOutside()
	for _, stage := range []func(*task, context.Context) error{(*task).verify, (*task).decide, (*task).prepare, (*task).checkReferences} {
		if err := stage(job, m.t.Context()); err != nil {
			e := asEnding(err)
			job.finish(m.t.Context(), e)
			return e
		}
	}
	return nil
}

// errorLines are the lines of type 3 in a log.
func (m *machine) errorLines(name string) (lines []string) {
	m.t.Helper()
	file, err := os.Open(filepath.Join(m.StateDir, "logs", name))
	if err != nil {
		m.t.Fatal(err)
	}
	defer file.Close()
	for e, err := range cmlog.Parse(file) {
		if err != nil {
			m.t.Fatal(err)
		}
		if e.Type == cmlog.Error {
			lines = append(lines, e.Text)
		}
	}
	return lines
}

func TestWhoReadsOutsideAndWhyNot(t *testing.T) {
	denied := &source.Error{Reason: events.NetworkAccessDenied, Answer: source.Answer("access denied", source.AccessDenied)}
	reference := events.Reference{URL: "smb://files/licences/a"}
	withAccount := func(g *given) { program(func(p *events.Program) { p.InstallationAccount = "corp-installer" })(g) }
	for name, c := range map[string]struct {
		legacy bool
		change []func(*given)
		answer error
		text   string // instead of the right one
		lend   error
		as     []string
		reason events.Reason
		says   []string
	}{
		"advanced, content":                                  {change: []func(*given){onShare}, as: []string{"reader"}},
		"advanced, content denied":                           {change: []func(*given){onShare}, answer: denied, as: []string{"reader"}, reason: events.NetworkAccessDenied, says: []string{`\\files\apps\setup.sh`, "corp", "access denied (5/0x80070005)", "network access account"}},
		"advanced, content that is another":                  {change: []func(*given){onShare}, text: "#!/bin/xx\n", as: []string{"reader"}, reason: events.ContentChanged, says: []string{`\\files\apps\setup.sh`, "corp", "does not match the manifest"}},
		"advanced, no account covers it":                     {change: []func(*given){onShare}, lend: &lease.Denied{Reason: events.NetworkAccessAccountMissing, Why: "no network access account may reach it"}, reason: events.NetworkAccessAccountMissing, says: []string{"no network access account", "account set"}},
		"advanced, the service is away":                      {change: []func(*given){onShare}, lend: errors.New("no responders"), reason: events.CredentialUnavailable, says: []string{"no responders"}},
		"advanced, a reference":                              {change: []func(*given){referring(reference)}, as: []string{"reader"}},
		"advanced, a reference denied":                       {change: []func(*given){referring(reference)}, answer: denied, as: []string{"reader"}, reason: events.NetworkAccessDenied, says: []string{`\\files\licences\a`}},
		"advanced, an optional reference is not looked at":   {change: []func(*given){referring(events.Reference{URL: "smb://files/licences/a", Optional: true})}, answer: denied},
		"advanced, a reference that is pinned":               {change: []func(*given){referring(events.Reference{URL: "smb://files/licences/a", SHA256: events.DigestOf([]byte(setup))})}, as: []string{"reader"}},
		"advanced, a reference that is another":              {change: []func(*given){referring(events.Reference{URL: "smb://files/licences/a", SHA256: events.DigestOf([]byte("x"))})}, as: []string{"reader"}, reason: events.ContentChanged, says: []string{"SHA-256"}},
		"legacy, content":                                    {legacy: true, change: []func(*given){onShare}, reason: events.NoNetworkIdentity, says: []string{"installation-account", `\\files\apps\setup.sh`}},
		"legacy, a reference":                                {legacy: true, change: []func(*given){referring(reference)}, reason: events.NoNetworkIdentity, says: []string{`\\files\licences\a`}},
		"legacy, an optional reference":                      {legacy: true, change: []func(*given){referring(events.Reference{URL: "smb://files/licences/a", Optional: true})}},
		"legacy with installation account, content":          {legacy: true, change: []func(*given){onShare, withAccount}, as: []string{"installer"}},
		"legacy with installation account, content denied":   {legacy: true, change: []func(*given){onShare, withAccount}, answer: denied, as: []string{"installer"}, reason: events.NetworkAccessDenied, says: []string{"installation account corp", "access denied (5/0x80070005)"}},
		"legacy with installation account, and a reference":  {legacy: true, change: []func(*given){referring(reference), withAccount}, as: []string{"installer"}},
		"an order that names less than the manifest":         {change: []func(*given){onShare, func(g *given) { g.order.Resources = nil }}, reason: events.ManifestMismatch},
		"a program of users, whose content waits for a user": {change: []func(*given){onShare, func(g *given) { program(func(p *events.Program) { p.Run = events.RunUser })(g) }}},
	} {
		t.Run(name, func(t *testing.T) {
			m, files := newMachine(t), &shelf{answer: c.answer, text: orDefault(c.text, setup)}
			m.External = map[string]source.Source{"smb": files}
			for _, name := range []string{"user", "token", "installation"} {
				m.Runners[name] = stubRunner{}
			}
			if c.legacy {
				m.facts.ClientKind = events.Legacy
			}
			var asked []lease.Query
			m.askLease = func(_ context.Context, q lease.Query) (*lease.Lease, error) {
				asked = append(asked, q)
				if c.lend != nil {
					return nil, c.lend
				}
				l := &lease.Lease{ID: "l1", Account: "corp", User: "reader", Version: 1, Secret: []byte("s"), Expires: m.Clock().Add(time.Hour)}
				if q.Wanted.Account == "corp-installer" {
					l.User = "installer"
				}
				return l, nil
			}
			e := m.outcome(c.change...)
			if e == nil {
				e = &ending{}
			}
			if e.reason != c.reason {
				t.Fatalf("ended as %v, want %q", e, c.reason)
			}
			if diff := cmp.Diff(c.as, files.as); diff != "" {
				t.Errorf("opened as: %s", diff)
			}
			for _, q := range asked {
				if q.Purpose != events.LeaseToRead || q.Resource == "" || len(q.Order) == 0 {
					t.Errorf("asked %+v", q)
				}
			}
			if c.reason == "" || c.says == nil {
				return
			}
			log := "execmgr.log"
			if c.legacy {
				log = "SMSAPM32.log"
			}
			if e.reason.Info().Class == events.Transient {
				return // it is tried again: a warning
			}
			lines := m.errorLines(log)
			if len(lines) != 1 {
				t.Fatalf("%d error lines: %q", len(lines), lines)
			}
			for _, says := range c.says {
				if !strings.Contains(lines[0], says) || !strings.Contains(e.detail.explanation, says) {
					t.Errorf("it does not say %q: %s", says, lines[0])
				}
			}
			last := m.last(e)
			failed := slices.DeleteFunc(last.Accesses, func(a events.Access) bool { return a.Reason == "" })
			if len(failed) != 1 || failed[0].Reason != c.reason || failed[0].Identity == "" || last.Reason != c.reason || last.Identity != failed[0].Identity {
				t.Errorf("the event says %s with %+v", last.Reason, last.Accesses)
			}
		})
	}
}

// last is the newest status.
func (m *machine) last(*ending) events.JobStatus {
	m.t.Helper()
	entries, err := m.journal.Unsent(0, 1000)
	if err != nil || len(entries) == 0 {
		m.t.Fatalf("%d statuses, %v", len(entries), err)
	}
	return entries[len(entries)-1].Status
}

func TestAUsersProgramReadsOutsideAsItsUser(t *testing.T) {
	m, files := newMachine(t), &shelf{text: setup}
	m.Runners["user"] = stubRunner{}
	var sessions []string
	m.UserSources = func(s logon.Session) (map[string]source.Source, func(), error) {
		sessions = append(sessions, s.User)
		return map[string]source.Source{"smb": files}, func() { sessions = append(sessions, "over") }, nil
	}
	task := m.decided(onShare, func(g *given) { program(func(p *events.Program) { p.Run = events.RunUser })(g) })
	if err := task.prepare(t.Context()); err != nil || task.fetched {
		t.Fatalf("fetched %v without a user, %v", task.fetched, err)
	}
	for _, user := range []string{"alice", "bob"} {
		task.session = &logon.Session{User: user}
		task.fetched = false
		m.fetcher.Release(task.job.Offer.Job)
		if _, err := task.outside(); err != nil {
			t.Fatal(err)
		}
	}
	if err := task.bringContent(t.Context()); err != nil {
		t.Fatal(err)
	}
	task.leaveOutside()
	if diff := cmp.Diff([]string{"alice", "over", "bob", "over"}, sessions); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{""}, files.as); diff != "" {
		t.Errorf("an account was used: %s", diff)
	}
	if all := task.accesses.all(); len(all) != 1 || all[0].Identity != "user" || all[0].User != "bob" {
		t.Errorf("told %+v", all)
	}
}

func TestReferencesThatMustBePinnedAreRefusedOtherwise(t *testing.T) {
	m := newMachine(t)
	m.Trust = trusting(func(b *trust.Bundle) { b.PinnedReferences = true })
	pinned := events.Reference{URL: "smb://files/licences/a", SHA256: events.DigestOf([]byte(setup))}
	if _, reason := m.until(m.offer(referring(pinned)), "decide"); reason != "" {
		t.Errorf("a pinned one: %s", reason)
	}
	if state, reason := m.until(m.offer(referring(pinned, events.Reference{URL: "smb://files/licences"})), "decide"); state != events.Rejected || reason != events.ReferenceUnpinned {
		t.Errorf("a loose one: %s (%s)", state, reason)
	}
}

func TestAStatusTellsOfSoManyAccessesAndNoMore(t *testing.T) {
	var l accesses
	for n := range 2 * events.MaxAccesses {
		for range 2 {
			l.add(events.Access{Resource: fmt.Sprint("smb://files/", n), When: events.AccessRun, Reason: events.SourceNotFound, Answer: strings.Repeat("a", 9<<10)})
		}
	}
	if all := l.all(); len(all) != events.MaxAccesses || len(all[0].Answer) > 5<<10 {
		t.Errorf("%d accesses", len(all))
	}
	if _, refused := l.refused(); refused {
		t.Error("a file that a program looked for in vain counts as a refusal")
	}
	l.forget()
	l.add(events.Access{Resource: "smb://files/a", When: events.AccessRun, Reason: events.NetworkAccessDenied})
	if a, refused := l.refused(); !refused || a.Reason != events.NetworkAccessDenied {
		t.Error("a refusal does not count")
	}
}

func TestAnAccountIsTriedOnceForAnAdministratorAndLogsOnAnew(t *testing.T) {
	refused := &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("unknown user name or wrong password", source.LogonRefused)}
	for name, c := range map[string]struct {
		answer error
		before bool // the secret was refused here
		change func(*events.AccountTestNote)
		tried  int
		reason events.Reason
		silent bool
	}{
		"it can be read":                         {tried: 1},
		"it is refused":                          {answer: refused, tried: 1, reason: events.CredentialRejected},
		"it was refused before":                  {before: true, reason: events.CredentialRejected},
		"it was refused before, and tried again": {before: true, change: func(n *events.AccountTestNote) { n.Again = true }, tried: 1},
		"a file of the machine itself":           {change: func(n *events.AccountTestNote) { n.Resource = "file:///etc/shadow" }, reason: events.SourceUnsupported},
		"for another agent":                      {change: func(n *events.AccountTestNote) { n.Agent = "another" }, silent: true},
		"too late":                               {change: func(n *events.AccountTestNote) { n.Until = n.Until.Add(-time.Hour) }, silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, files := newMachine(t), &shelf{answer: c.answer, text: setup}
			m.External = map[string]source.Source{"smb": files, "file": files}
			if c.before {
				m.logins.Heard(events.Access{Resource: "smb://files/apps/a", Account: "corp", Version: 1, User: "reader", Reason: events.CredentialRejected, Answer: refused.Answer, At: m.Clock()})
			}
			m.askLease = func(_ context.Context, q lease.Query) (*lease.Lease, error) {
				if q.Purpose != events.LeaseToTest || q.Test != "t1" || q.Job != "" || len(q.Order) > 0 {
					t.Errorf("asked %+v", q)
				}
				return &lease.Lease{ID: "l1", Account: "corp", Kind: events.SoftwareInstallation, User: "reader", Version: 1, Secret: []byte("s"), Expires: m.Clock().Add(time.Hour)}, nil
			}
			note := events.AccountTestNote{Test: "t1", Agent: machineID, Account: "corp", Resource: "smb://files/apps/a", Until: m.Clock().Add(time.Minute)}
			if c.change != nil {
				c.change(&note)
			}
			var told []events.AccountTestReport
			m.tryFor(t.Context(), note, func(r events.AccountTestReport) error { told = append(told, r); return nil })
			if len(files.as) != c.tried || c.tried > 0 && !files.anew {
				t.Errorf("opened as %q, anew %v", files.as, files.anew)
			}
			switch {
			case c.silent && len(told) == 0:
			case len(told) != 1 || told[0].Test != "t1" || told[0].Access.Reason != c.reason || told[0].Access.When != events.AccessTest:
				t.Errorf("told %+v", told)
			case c.tried > 0 && told[0].Access.Identity != "installation-account":
				t.Errorf("who tried is said to be %s", told[0].Access.Identity)
			}
		})
	}
}

func TestALeaseThatIsWithdrawnIsOverForItsJobAndTold(t *testing.T) {
	m, files := newMachine(t), &shelf{text: setup}
	m.External = map[string]source.Source{"smb": files}
	asked := 0
	m.askLease = func(context.Context, lease.Query) (*lease.Lease, error) {
		if asked++; asked > 1 {
			return nil, &lease.Denied{Reason: events.CredentialDenied, Why: "an administrator revoked it"}
		}
		return &lease.Lease{ID: "l1", Account: "corp", User: "reader", Version: 1, Secret: []byte("s"), Expires: m.Clock().Add(time.Hour)}, nil
	}
	job := m.decided(referring(events.Reference{URL: "smb://files/licences/a"}))
	defer job.leaveOutside()
	m.tasks[job.job.Offer.Job] = job
	if err := job.checkReferences(t.Context()); err != nil {
		t.Fatal(err)
	}
	withdraw := func(agent, id string) {
		m.withdrawLease(events.Event[events.LeaseWithdrawal]{Data: events.LeaseWithdrawal{Agent: agent, Lease: id, Why: "by kari"}})
	}
	withdraw("another", "l1")
	withdraw(m.id, "l2")
	if err := job.checkReferences(t.Context()); err != nil || asked != 1 {
		t.Fatalf("asked %d times, %v", asked, err)
	}
	withdraw(m.id, "l1")
	if err := job.checkReferences(t.Context()); asEnding(err).reason != events.CredentialDenied || asked != 2 {
		t.Errorf("asked %d times, %v", asked, err)
	}
	text, err := os.ReadFile(filepath.Join(m.StateDir, "logs", "execmgr.log"))
	if err != nil || strings.Count(string(text), `Lease of \\files\licences\a withdrawn: by kari`) != 1 {
		t.Errorf("the log says %s, %v", text, err)
	}
}
