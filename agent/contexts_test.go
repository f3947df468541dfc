package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/cmlog"
	"chandler/agent/execute"
	"chandler/agent/identity"
	"chandler/agent/journal"
	"chandler/agent/logon"
	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// office is a logon.Driver in which tests log users on and off.
type office struct {
	mu       sync.Mutex
	sessions []logon.Session
	fails    error
	watcher  *logon.Watcher
}

// seat gives a machine an office.
func (m *machine) seat(sessions ...logon.Session) *office {
	o := &office{sessions: sessions}
	o.watcher = logon.New(logon.Options{Driver: o, Log: m.log})
	m.Logon = o.watcher
	o.watcher.Refresh(m.t.Context())
	return o
}

func (o *office) List(context.Context) ([]logon.Session, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.sessions), o.fails
}

func (o *office) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (o *office) LogOff(_ context.Context, s logon.Session) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sessions = slices.DeleteFunc(o.sessions, func(other logon.Session) bool { return other.ID == s.ID })
	return o.fails
}

// now changes who is logged on.
func (o *office) now(ctx context.Context, sessions ...logon.Session) {
	o.mu.Lock()
	o.sessions = sessions
	o.mu.Unlock()
	o.watcher.Refresh(ctx)
}

func session(id, user string, since time.Time) logon.Session {
	return logon.Session{ID: id, User: user, UID: 1000, Type: "tty", Active: true, Since: since}
}

// program changes the one program of the package, with the order that fits it.
func program(change func(*events.Program)) func(*given) {
	return func(g *given) {
		p := g.manifest.Programs["install"]
		change(&p)
		g.manifest.Programs["install"] = p
		g.order.Run, g.order.InstallationAccount = p.Run, p.InstallationAccount
	}
}

func TestAsWhomAProgramRunsIsForTheSignedOrderAndTheMachineToSay(t *testing.T) {
	all := map[string]execute.Runner{"system": nil, "user": nil, "token": nil, "installation": nil}
	asUser := program(func(p *events.Program) { p.Run = events.RunUser })
	withAccount := program(func(p *events.Program) { p.InstallationAccount = "corp" })
	for name, c := range map[string]struct {
		change  func(*given)
		client  events.ClientKind
		user    string // that the offer names
		runners []string
		want    identity.Who
		reason  events.Reason
	}{
		"an advanced client runs administrative programs itself":  {runners: []string{"system"}, want: identity.System},
		"a program of users runs as the user":                     {change: asUser, runners: []string{"user"}, want: identity.User},
		"a legacy client uses the client token account":           {client: events.Legacy, runners: []string{"token"}, want: identity.ClientToken},
		"a legacy client uses the installation account":           {change: withAccount, client: events.Legacy, runners: []string{"installation"}, want: identity.Installation},
		"an advanced client ignores the installation account":     {change: withAccount, runners: []string{"system"}, want: identity.System},
		"an agent without a runner refuses":                       {change: asUser, runners: []string{"system"}, reason: events.ContextUnsupported},
		"an order with another run mode than the manifest's":      {change: func(g *given) { g.order.Run = events.RunUser }, runners: []string{"user", "system"}, reason: events.ManifestMismatch},
		"an order with another account than the manifest's":       {change: func(g *given) { g.order.InstallationAccount = "corp" }, runners: []string{"system"}, reason: events.ManifestMismatch},
		"an offer that chooses a user whom the order does not":    {change: asUser, user: "mallory", runners: []string{"user"}, reason: events.OrderAltered},
		"an offer of a user's job where the program runs for all": {change: program(func(p *events.Program) { p.Run, p.EveryUser = events.RunUser, true }), user: "alice", runners: []string{"user"}, want: identity.User},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Runners = map[string]execute.Runner{}
			for _, r := range c.runners {
				if _, known := all[r]; !known {
					t.Fatalf("runner %s", r)
				}
				m.Runners[r] = stubRunner{}
			}
			m.facts.ClientKind = orDefault(c.client, events.Advanced)
			change := c.change
			if change == nil {
				change = func(*given) {}
			}
			task := m.offer(change)
			task.job.Offer.User = c.user
			state, reason := m.until(task, "decide")
			if reason != c.reason || (c.reason != "") != (state == events.Rejected) {
				t.Fatalf("it is %s (%s), want %q", state, reason, c.reason)
			}
			if c.reason == "" && task.who.Executor != c.want {
				t.Errorf("%s runs it, want %s", task.who.Executor, c.want)
			}
		})
	}
}

// stubRunner is only there.
type stubRunner struct{}

func (stubRunner) Prepare(context.Context, execute.Request) (execute.Prepared, error) {
	return execute.Prepared{}, errors.New("nothing is run here")
}

func TestWhatAJobWaitsForUntilTheRightUsersAreLoggedOn(t *testing.T) {
	opened := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	alice, bob := session("1", "alice", opened.Add(-time.Hour)), session("2", "bob", opened.Add(time.Hour))
	administrative := func(logon string) events.Program {
		return events.Program{Run: events.RunAdministrative, Logon: logon}
	}
	asap := order.Assignment{ASAP: true}
	for name, c := range map[string]struct {
		program  events.Program
		at       order.Assignment
		user     string
		sawUser  bool
		sessions []logon.Session
		fails    error
		want     events.WaitingFor
		as       string // whose session
	}{
		"whether or not, with nobody":                     {program: administrative(""), at: asap},
		"whether or not, where it cannot be found out":    {program: administrative("any"), at: asap, fails: errors.New("no bus")},
		"only with a user, with nobody":                   {program: administrative("user"), at: asap, want: events.WaitLogon},
		"only with a user, with one":                      {program: administrative("user"), at: asap, sessions: []logon.Session{alice}, as: "alice"},
		"only with a user, where it cannot be found out":  {program: administrative("user"), at: asap, fails: errors.New("no bus"), want: events.WaitLogon},
		"only without a user, with nobody":                {program: administrative("none"), at: asap},
		"only without a user, with one":                   {program: administrative("none"), at: asap, sessions: []logon.Session{alice}, want: events.WaitLogoff},
		"only without, where it cannot be found out":      {program: administrative("none"), at: asap, fails: errors.New("no bus"), want: events.WaitLogoff},
		"as the user, with nobody":                        {program: events.Program{Run: events.RunUser}, at: asap, want: events.WaitLogon},
		"as the user, with one":                           {program: events.Program{Run: events.RunUser}, at: asap, sessions: []logon.Session{alice}, as: "alice"},
		"as the user, whether or not is still with one":   {program: events.Program{Run: events.RunUser, Logon: "any"}, at: asap, want: events.WaitLogon},
		"as a certain user, with another":                 {program: events.Program{Run: events.RunUser, EveryUser: true}, user: "bob", at: asap, sessions: []logon.Session{alice}, want: events.WaitLogon},
		"as a certain user, who is there":                 {program: events.Program{Run: events.RunUser, EveryUser: true}, user: "bob", at: asap, sessions: []logon.Session{alice, bob}, as: "bob"},
		"at logon, with one who was there before":         {program: administrative("user"), at: order.Assignment{Logon: true}, sessions: []logon.Session{alice}, want: events.WaitLogon},
		"at logon, with one who came":                     {program: administrative("user"), at: order.Assignment{Logon: true}, sessions: []logon.Session{alice, bob}, as: "bob"},
		"at logoff, with one":                             {program: administrative("none"), at: order.Assignment{Logoff: true}, sessions: []logon.Session{alice}, want: events.WaitLogoff},
		"at logoff, with nobody since the job was opened": {program: administrative("none"), at: order.Assignment{Logoff: true}, want: events.WaitLogoff},
		"at logoff, after the last has gone":              {program: administrative("none"), at: order.Assignment{Logoff: true}, sawUser: true},
		"shown to whoever is there, with nobody":          {program: events.Program{Run: events.RunAdministrative, Interactive: true}, at: asap},
		"shown to whoever is there, with one":             {program: events.Program{Run: events.RunAdministrative, Interactive: true}, at: asap, sessions: []logon.Session{alice}, as: "alice"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			office := m.seat(c.sessions...)
			office.fails = c.fails
			office.watcher.Refresh(t.Context())
			task := m.offer()
			task.program, task.order = c.program, order.Order{Assignments: []order.Assignment{c.at}}
			task.job.Opened, task.job.SawUser, task.job.Offer.User = opened, c.sawUser, c.user
			what, why, err := task.logonHindrance(t.Context(), false)
			if err != nil || what != c.want || (what != "") != (why != "") {
				t.Fatalf("it waits for %q (%s), %v; want %q", what, why, err, c.want)
			}
			as := ""
			if task.session != nil {
				as = task.session.User
			}
			if as != c.as {
				t.Errorf("in the session of %q, want %q", as, c.as)
			}
		})
	}
}

func TestAProgramRunsOnceForEveryUserWhoLogsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		office := m.seat()
		task := m.offer(program(func(p *events.Program) { p.Run, p.EveryUser = events.RunUser, true }), func(g *given) {
			g.order.Expires = new(calendar.At(m.Clock().Add(2 * time.Hour)))
		})
		if state, reason := m.until(task, "decide"); state != "" {
			t.Fatalf("it is %s (%s)", state, reason)
		}
		ended := make(chan error, 1)
		go func() { ended <- task.forEveryUser(t.Context()) }()
		users := func() (found []string) {
			time.Sleep(time.Second) // of the bubble: the journal gathers what it writes
			synctest.Wait()
			if err := m.journal.Jobs(func(j journal.Job) error {
				if j.Offer.User != "" {
					found = append(found, j.Offer.User+" "+string(j.Last.State))
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			slices.Sort(found)
			return found
		}
		if got := users(); len(got) != 0 || task.job.Last.WaitingFor != events.WaitLogon {
			t.Fatalf("with nobody logged on there are jobs for %v, and it waits for %q", got, task.job.Last.WaitingFor)
		}
		office.now(t.Context(), session("1", "alice", time.Now()))
		// Nothing here runs programs as users: that each job is refused shows that it was carried out.
		if diff := cmp.Diff([]string{"alice rejected"}, users()); diff != "" {
			t.Fatal(diff)
		}
		office.now(t.Context())
		users()
		office.now(t.Context(), session("2", "alice", time.Now()), session("3", "bob", time.Now()))
		if diff := cmp.Diff([]string{"alice rejected", "bob rejected"}, users()); diff != "" {
			t.Fatal(diff)
		}
		time.Sleep(2 * time.Hour) // of the bubble
		e := asEnding(<-ended)
		if e.state != events.Succeeded || !strings.Contains(e.detail.explanation, "alice, bob") {
			t.Errorf("at the end of the deployment's time it is %s: %s", e.state, e.detail.explanation)
		}
		m.running.Wait()
	})
}

func TestOtherProgramsOfAPackageWaitForItsRestart(t *testing.T) {
	m := newMachine(t)
	one := m.offer()
	other := events.JobOffer{Job: "other", Deployment: "hello-users", User: "alice"}
	m.restartPending(other, "hello")
	awaited, changed := m.awaitedRestart(one.job.Offer, "hello")
	if !awaited {
		t.Fatal("it does not wait")
	}
	if awaited, _ := m.awaitedRestart(other, "hello"); awaited {
		t.Error("the job that asked for the restart waits for itself")
	}
	if awaited, _ := m.awaitedRestart(events.JobOffer{Job: "third", Deployment: "hello-users", User: "bob"}, "hello"); awaited {
		t.Error("the same program waits for what it did for another user")
	}
	if awaited, _ := m.awaitedRestart(one.job.Offer, "unrelated"); awaited {
		t.Error("another package waits")
	}
	m.restartOver("other")
	<-changed
	if awaited, _ := m.awaitedRestart(one.job.Offer, "hello"); awaited {
		t.Error("it still waits")
	}
}

func TestTheMachineIsRestartedWhenNothingRunsAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.slots, m.facts.BootID = newSlots(2), "boot 1"
		asked := make(chan string, restartTries)
		m.Restart = func(_ context.Context, why string) error {
			asked <- why
			return errors.New("inhibited by a backup")
		}
		task := m.offer(program(func(p *events.Program) { p.After = events.AfterRestart }))
		if state, reason := m.until(task, "decide"); state != "" {
			t.Fatalf("it is %s (%s)", state, reason)
		}
		task.job.Work = &journal.Work{Order: task.order, Program: task.program}
		m.slots.occupy("another")
		ended := make(chan error, 1)
		go func() { ended <- task.afterwards(t.Context(), execute.Success) }()
		time.Sleep(time.Second) // of the bubble
		synctest.Wait()
		if len(asked) > 0 || task.job.Last.State != events.RebootPending || !task.job.Hard {
			t.Fatalf("while another program runs, %d restarts were asked for and the job is %s", len(asked), task.job.Last.State)
		}
		if ok, _ := m.slots.take("third"); ok {
			t.Error("a program starts before the restart")
		}
		m.slots.leave("another")
		if why := <-asked; !strings.Contains(why, "install of hello") {
			t.Errorf("it restarts because %q", why)
		}
		e := asEnding(<-ended)
		if e.state != events.Failed || e.reason != events.RestartImpossible || !strings.Contains(e.detail.answer, "inhibited by a backup") {
			t.Errorf("it ends as %s (%s): %s", e.state, e.reason, e.detail.answer)
		}
		if ok, _ := m.slots.take("third"); !ok {
			t.Error("no program starts though there was no restart")
		}
	})
}

func TestEachKindOfClientWritesTheLogThatItsAdministratorsKnow(t *testing.T) {
	m := newMachine(t)
	for _, kind := range []events.ClientKind{events.Advanced, events.Legacy} {
		m.facts.ClientKind = kind
		task := m.offer()
		task.say(failure, "could not read %%n from %s", `\\files\apps`)
		note := events.AccountNote{Account: "SMSCliToknLocalAcct&", ElevatedTo: "root", Program: "hello 1 install", Job: task.job.Offer.Job, At: time.Now()}
		if err := m.noteAccount(events.AgentAccountElevated, note); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string][]string{
		"execmgr.log":  {`execmgr|3|could not read %n from \\files\apps`, "accountmgr|1|Granting rights of root to account SMSCliToknLocalAcct& for hello 1 install"},
		"SMSAPM32.log": {`APM|3|ERROR: SCHED DATA : job JOB : could not read %n from \\files\apps`, "APM|1|ACCOUNT MGR : job JOB : Granting rights of root to account SMSCliToknLocalAcct& for hello 1 install"},
	}
	for name, lines := range want {
		file, err := os.Open(filepath.Join(m.StateDir, "logs", name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var got []string
		for e, err := range cmlog.Parse(file) {
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(e.Text, events.JobID("hello", 1, m.id, 0, ""), "JOB")
			got = append(got, e.Component+"|"+string(rune('0'+int(e.Type)))+"|"+text)
		}
		if diff := cmp.Diff(lines, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	notices, err := m.journal.Notices(10)
	if err != nil || len(notices) != 2 || notices[0].Type != events.AgentAccountElevated.Name || notices[0].Note.Agent != machineID {
		t.Errorf("journalled are %+v, %v", notices, err)
	}
}
