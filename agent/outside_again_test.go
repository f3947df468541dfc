package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"chandler/agent/execute"
	"chandler/agent/identity"
	"chandler/agent/lease"
	"chandler/agent/logon"
	"chandler/agent/source"
	"chandler/events"
)

// lending gives the machine shelves, and accounts to read them by.
func (m *machine) lending(files *shelf) {
	m.External = map[string]source.Source{"smb": files}
	m.askLease = func(context.Context, lease.Query) (*lease.Lease, error) {
		return &lease.Lease{ID: "l1", Account: "corp", Kind: events.NetworkAccess, User: "reader", Version: 1, Secret: []byte("s"), Expires: m.Clock().Add(time.Hour)}, nil
	}
}

func asUser(g *given) { program(func(p *events.Program) { p.Run = events.RunUser })(g) }

var (
	errDenied = &source.Error{Reason: events.NetworkAccessDenied, Answer: source.Answer("access denied", source.AccessDenied)}
	errGone   = &source.Error{Reason: events.SourceUnreachable, Answer: "what reads as the user is gone"}
)

func TestReferencesAreCheckedWithoutASlotAndAgainAfterAWhile(t *testing.T) {
	m, files := newMachine(t), &shelf{text: setup}
	m.lending(files)
	task := m.decided(referring(events.Reference{URL: "smb://files/licences/a"}))
	defer task.leaveOutside()
	task.fetched = true
	look := func(want bool, opened int) {
		t.Helper()
		again, err := task.readOutside(t.Context())
		if err != nil || again != want || len(files.as) != opened || task.holdsSlot {
			t.Errorf("again %v (%v), opened %d times, with a slot: %v", again, err, len(files.as), task.holdsSlot)
		}
	}
	look(true, 1)
	look(false, 1)
	m.ahead += checkedFor
	look(true, 2)
	look(false, 2)
	task.leaveOutside()
	m.slots.occupy()
	look(false, 2) // there is no slot anyway
	m.slots.leave()
	look(true, 3)
}

// mute is a source that never answers.
type mute struct{ asked chan struct{} }

func (m mute) Open(ctx context.Context, _ string, _ source.Login) (source.Object, error) {
	close(m.asked)
	<-ctx.Done()
	return nil, &source.Error{Reason: events.SourceUnreachable, Answer: "given up", Err: ctx.Err()}
}

func TestAJobThatIsStoppedWhileAReferenceIsReadTellsNothingOfIt(t *testing.T) {
	m, silent := newMachine(t), mute{make(chan struct{})}
	m.lending(&shelf{})
	m.External["smb"] = silent
	task := m.decided(referring(events.Reference{URL: "smb://files/licences/a"}))
	defer task.leaveOutside()
	task.fetched = true
	before, stop := task.untilWithdrawn(t.Context())
	defer stop()
	go func() {
		<-silent.asked
		task.withdraw(events.CancelRequest{By: "ada"})
	}()
	if again, err := task.readOutside(before); again || !errors.Is(err, context.Canceled) || task.withdrawn() == nil {
		t.Errorf("again %v, %v", again, err)
	}
	if told := task.accesses.all(); len(told) != 0 {
		t.Errorf("told %+v", told)
	}
}

func TestNobodyReadsByTheAccountOfWhomTheMachineWasBefore(t *testing.T) {
	m, files := newMachine(t), &shelf{text: setup}
	m.lending(files)
	task := m.decided(referring(events.Reference{URL: "smb://files/licences/a"}))
	defer task.leaveOutside()
	first, err := task.outside()
	if err != nil {
		t.Fatal(err)
	}
	task.who = identity.Answer{Executor: identity.Installation, Network: identity.Installation}
	if second, err := task.outside(); err != nil || second == first || second.Who != identity.Installation {
		t.Errorf("the reader is still that of %s, %v", first.Who, err)
	}
}

func TestAJobWhoseReaderLogsOffWaitsForOneAgain(t *testing.T) {
	for name, c := range map[string]struct {
		answer error
		leaves bool
		want   events.Reason // "": it waits
	}{
		"who has left":            {answer: errGone, leaves: true},
		"who is there still":      {answer: errGone, want: events.SourceUnreachable},
		"who was refused, though": {answer: errDenied, leaves: true, want: events.NetworkAccessDenied},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				m.Runners["user"] = stubRunner{}
				office := m.seat(session("1", "alice", time.Now()))
				m.UserSources = func(logon.Session) (map[string]source.Source, func(), error) {
					if c.leaves {
						office.now(t.Context())
					}
					return map[string]source.Source{"smb": &shelf{answer: c.answer}}, func() {}, nil
				}
				task := m.decided(onShare, asUser)
				defer task.leaveOutside()
				if what, _, err := task.logonHindrance(t.Context(), true); what != "" || err != nil {
					t.Fatalf("it waits for %s, %v", what, err)
				}
				again, err := task.readOutside(t.Context())
				if c.want == "" && (!again || err != nil) || c.want != "" && (err == nil || asEnding(err).reason != c.want) {
					t.Errorf("again: %v, %v", again, err)
				}
				if c.want != "" {
					return
				}
				if what, _, err := task.logonHindrance(t.Context(), true); what != events.WaitLogon || err != nil {
					t.Errorf("it waits for %q, %v", what, err)
				}
			})
		})
	}
}

func TestWhatOneUserReadIsNotRunByAnotherWhoMayNotReadIt(t *testing.T) {
	for name, c := range map[string]struct {
		answer error // to bob
		want   events.Reason
	}{
		"who may":                        {},
		"who may not":                    {answer: errDenied, want: events.NetworkAccessDenied},
		"whom the share cannot be asked": {answer: errGone},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Runners["user"] = stubRunner{}
			office := m.seat(session("1", "alice", time.Now()))
			shelves := map[string]*shelf{"alice": {text: setup}, "bob": {text: setup, answer: c.answer}}
			m.UserSources = func(s logon.Session) (map[string]source.Source, func(), error) {
				return map[string]source.Source{"smb": shelves[s.User]}, func() {}, nil
			}
			task := m.decided(onShare, asUser)
			defer task.leaveOutside()
			read := func(user string) (bool, error) {
				office.now(t.Context(), session("1", user, time.Now()))
				if what, _, err := task.logonHindrance(t.Context(), true); what != "" || err != nil {
					t.Fatalf("it waits for %s, %v", what, err)
				}
				return task.readOutside(t.Context())
			}
			for _, want := range []bool{true, false} {
				if again, err := read("alice"); again != want || err != nil {
					t.Fatalf("alice: %v, %v", again, err)
				}
			}
			_, err := read("bob")
			if c.want == "" && err != nil || c.want != "" && (err == nil || asEnding(err).reason != c.want) {
				t.Errorf("bob: %v", err)
			}
			if tried := []int{len(shelves["alice"].as), len(shelves["bob"].as)}; !cmp.Equal(tried, []int{1, 1}) {
				t.Errorf("alice and bob opened %v", tried)
			}
		})
	}
}

func TestContentOutsideWaitsForTheBrokerRatherThanFail(t *testing.T) {
	m := newMachine(t)
	conn, err := nats.Connect("nats://127.0.0.1:1", nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m.conn = conn
	m.lending(&shelf{text: setup})
	lend, asked := m.askLease, 0
	m.askLease = func(ctx context.Context, q lease.Query) (*lease.Lease, error) {
		if asked++; asked == 1 {
			return nil, errors.New("no responders")
		}
		return lend(ctx, q)
	}
	task := m.decided(onShare)
	defer task.leaveOutside()
	if err := task.prepare(t.Context()); err != nil || !task.fetched || asked != 2 {
		t.Fatalf("fetched %v after %d requests: %v", task.fetched, asked, err)
	}
	entries, err := m.journal.Unsent(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var went []string
	for _, e := range entries {
		went = append(went, string(e.Status.State)+" "+string(e.Status.WaitingFor))
	}
	if diff := cmp.Diff([]string{"accepted ", "downloading ", "waiting contact", "downloaded "}, went); diff != "" {
		t.Error(diff)
	}
}

func TestASupervisorIsLentOnlyWhatItsHostTook(t *testing.T) {
	for name, c := range map[string]struct {
		answer error
		want   events.Reason
	}{
		"who lets it in":        {},
		"who denies the file":   {answer: errDenied},
		"who calls it wrong":    {answer: &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("wrong password", source.LogonRefused)}, want: events.CredentialRejected},
		"who cannot be reached": {answer: errGone, want: events.SourceUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			m, files := newMachine(t), &shelf{answer: c.answer, text: setup}
			m.lending(files)
			task := m.decided(referring(events.Reference{URL: "smb://files/licences/a", Optional: true}))
			defer task.leaveOutside()
			if err := task.offerReferences(); err != nil {
				t.Fatal(err)
			}
			loan, err := m.lendForRun(t.Context(), task.runDir(), "smb://files/licences/a")
			defer loan.Clear()
			if e, ok := errors.AsType[*source.Error](err); c.want == "" && err != nil || c.want != "" && (!ok || e.Reason != c.want) {
				t.Errorf("%v", err)
			}
			if loan.Expires.After(m.Clock().Add(lentFor)) {
				t.Errorf("lent until %s", loan.Expires)
			}
			if lent := len(loan.Secret) > 0; lent != (c.want == "") || loan.Account != "corp" || len(files.as) != 1 {
				t.Errorf("lent %v of %q, tried %d times", lent, loan.Account, len(files.as))
			}
		})
	}
}

func TestWhatWasReadBeforeTheStartIsToldAfterARestartOfTheAgentToo(t *testing.T) {
	m, files := newMachine(t), &shelf{text: setup}
	m.lending(files)
	task := m.decided(onShare)
	defer task.leaveOutside()
	if err := task.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Supervisor, m.Runners = []string{"/none"}, map[string]execute.Runner{"system": stubRunner{}}
	var err error
	if m.executor, err = newExecutor(m.Agent); err != nil {
		t.Fatal(err)
	}
	if err := task.run(t.Context()); err == nil {
		t.Fatal("it runs")
	}
	kept, ok, err := m.journal.Job(task.job.Offer.Job)
	if err != nil || !ok || kept.Work == nil {
		t.Fatalf("the journal has %+v, %v", kept, err)
	}
	again := m.newTask(kept)
	again.recallWork()
	if diff := cmp.Diff(task.accesses.all(), again.accesses.all()); diff != "" || len(again.accesses.all()) != 1 {
		t.Error(diff)
	}
}
