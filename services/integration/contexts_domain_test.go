package integration

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"chandler/agent/enrol"
	"chandler/agent/lease"
	"chandler/events"
	"chandler/events/bus"
	"chandler/services/integration/machinetest"
)

// TestDomainControllersShareAnAccountAndMembersHaveTheirOwn: two controllers install at once by the one account of
// the domain, whose secret is changed meanwhile; two members have an account each, and get nothing of the domain's.
func TestDomainControllersShareAnAccountAndMembersHaveTheirOwn(t *testing.T) {
	s := newSite(t)
	s.publishProbes()
	controllers := []*machinetest.Machine{
		s.newMachine("first", "--client-kind", "legacy", "--domain-controller"), s.newMachine("second", "--client-kind", "legacy", "--domain-controller"),
	}
	members := []*machinetest.Machine{s.newMachine("third", "--client-kind", "legacy"), s.newMachine("fourth", "--client-kind", "legacy")}
	t.Run("controllers install while the secret changes", func(t *testing.T) {
		t.Parallel()
		controllersShare(t, s, controllers)
	})
	t.Run("members", func(t *testing.T) {
		t.Parallel()
		membersHaveTheirOwn(t, s, members)
	})
}

func controllersShare(t *testing.T, s *site, machines []*machinetest.Machine) {
	const former, next = accountSecret, accountSecret + "-next"
	domain := newDomain(t, domainToken, former)
	var (
		stories     []story
		deployments []string
		letGo       []func()
	)
	for _, m := range machines {
		m = m.For(t)
		defer explain(t, m)
		m.Exec("useradd", "--shell", "/usr/sbin/nologin", domainToken)
		st := story{s, m}
		letGo = append(letGo, hold(t, m, "postinst"))
		stories, deployments = append(stories, st), append(deployments, st.deploy(t, m, "tool"))
	}
	var running []events.JobStatus
	for i, st := range stories {
		job := st.want(t, deployments[i], events.Running)
		recordOf(t, st.m, "postinst", job.Job) // dpkg is in the middle of it
		running = append(running, job)
	}
	st := stories[0]
	wantLent := func(version int, secret string) {
		t.Helper()
		for i, st := range stories {
			l, err := st.asks(t, running[i], lease.Wanted{Kind: events.ClientTokenDomain})
			must(t, err)
			if l.Version != version || string(l.Secret) != secret || !domain.reads(l.User, string(l.Secret)) {
				t.Errorf("%s was lent version %d of user %s, which is not the domain's version %d", st.m.Name, l.Version, l.User, version)
			}
		}
	}
	wantLent(1, former)
	domain.setSecret(next)
	s.setAccount("domain-token", "client-token-domain", domainToken, next)
	wantLent(2, next)
	for i, st := range stories {
		letGo[i]()
		job := st.want(t, deployments[i], events.Succeeded)
		st.wantContext(t, job, whose{"agent", domainToken, "root", legacyLog})
		st.wantRaised(t, job, domainToken, "client-token-domain")
		wantRefused(t, st.m, domainToken)
	}
	job := st.want(t, st.deploy(t, st.m, "hello"), events.Succeeded)
	st.wantContext(t, job, whose{"agent", domainToken, "root", legacyLog})
	for i, j := range append(running, job) {
		if got, want := st.lentFirst(t, j.Job), 1+i/len(running); got != want {
			t.Errorf("job %d ran by version %d of the account, want %d", i, got, want)
		}
	}
	if got := domain.badPasswords(); got != "0" {
		t.Errorf("the domain saw %s wrong secrets", got)
	}
	// The count would have told.
	if domain.reads(domainToken, former) || domain.badPasswords() != "1" {
		t.Errorf("the former secret is as good as ever, or the domain does not count: %s", domain.badPasswords())
	}
}

// lentFirst is the version of the account that an agent got for a job.
func (s *site) lentFirst(t *testing.T, job string) int {
	t.Helper()
	list, _ := read[events.LeaseNotice](t, s.told, func(name string) bool { return name == events.CredentialLeased.Name })
	i := slices.IndexFunc(list, func(n events.LeaseNotice) bool { return n.Job == job })
	if i < 0 {
		t.Fatalf("no lease was told of for job %s: %s", job, compact(list))
	}
	return list[i].Version
}

func membersHaveTheirOwn(t *testing.T, s *site, machines []*machinetest.Machine) {
	for _, m := range machines {
		m = m.For(t)
		defer explain(t, m)
		st := story{s, m}
		letGo := hold(t, m, "as-administrator")
		defer letGo()
		deployment := st.deploy(t, m, "as-administrator")
		job := st.want(t, deployment, events.Running)
		wantElevated(t, m, recordOf(t, m, "as-administrator", job.Job), clientToken)

		// No secret at all: nothing that could be the same on two machines, or be found out on one.
		data, _ := m.ReadFile("/etc/shadow")
		if !slices.ContainsFunc(strings.Split(string(data), "\n"), func(line string) bool { return strings.HasPrefix(line, clientToken+":!:") }) {
			t.Errorf("%s has a password on %s", clientToken, m.Name)
		}
		if made := st.notesOf(t, events.AgentAccountCreated, clientToken); len(made) != 1 || made[0].Agent != job.Agent {
			t.Errorf("told was %s", compact(made))
		}
		for _, wanted := range []lease.Wanted{{Kind: events.ClientTokenDomain}, {Account: "domain-token"}, {Account: "corp-installer"}} {
			st.wantDenied(t, job, wanted)
		}
		letGo()
		st.want(t, deployment, events.Succeeded)
	}
}

// wantDenied makes sure that the machine's agent is lent no such account for the job, and that this was told.
func (s story) wantDenied(t *testing.T, job events.JobStatus, wanted lease.Wanted) {
	t.Helper()
	got, err := s.asks(t, job, wanted)
	denied, ok := errors.AsType[*lease.Denied](err)
	if !ok || denied.Reason != events.CredentialDenied {
		t.Fatalf("%s asks for %s: %v, %v", s.m.Name, wanted, got, err)
	}
	await(t, s.told, "that "+wanted.String()+" was denied", func(name string) bool { return name == events.LeaseDenied.Name }, func(list []events.LeaseNotice) (none struct{}, ok bool) {
		return none, slices.ContainsFunc(list, func(n events.LeaseNotice) bool {
			return n.Agent == job.Agent && n.Job == job.Job && n.Account == wanted.Account && n.Kind == wanted.Kind && n.Why == denied.Why
		})
	})
}

// asks asks for an account for a job that runs, as whoever has all that the machine's agent keeps can.
func (s story) asks(t *testing.T, job events.JobStatus, wanted lease.Wanted) (*lease.Lease, error) {
	t.Helper()
	keeper, b := s.impersonate(t)
	asker := lease.Asker{Agent: keeper.ID(), Sign: keeper.Sign, Request: func(ctx context.Context, r events.LeaseRequest) (events.LeaseAnswer, error) {
		return bus.Request(ctx, b, keeper.ID(), events.CredentialLease, r)
	}}
	return lease.Ask(t.Context(), asker, lease.Query{Job: job.Job, Attempt: job.Attempt, Order: s.orderOf(t, job.Deployment), Wanted: wanted, Purpose: events.LeaseToExecute})
}

// impersonate is the machine's agent, for whoever has all that it keeps, and a connection of it until the test ends.
func (s story) impersonate(t *testing.T) (*enrol.Keeper, *bus.Bus) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"agent.key", "identity.json", "agent.jwt", "trust.json", "ca.pem"} {
		data, _ := s.m.ReadFile("/var/lib/chandler-agent/" + name)
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	quiet := slog.New(slog.DiscardHandler)
	keeper, err := enrol.New(enrol.Options{Dir: dir, Log: quiet})
	must(t, err)
	options, err := keeper.NATSOptions()
	must(t, err)
	conn, err := nats.Connect(keeper.Servers()[0], append(options, nats.SetCustomDialer(s.lab))...)
	must(t, err)
	t.Cleanup(conn.Close)
	b, err := bus.New(bus.Options{Conn: conn, Source: events.AgentSource(keeper.ID()), Log: quiet})
	must(t, err)
	return keeper, b
}

// orderOf is a deployment's order as it was signed.
func (s *site) orderOf(t *testing.T, deployment string) []byte {
	t.Helper()
	list, _ := read[events.DeploymentOrder](t, s.told, func(name string) bool { return name == events.DeploymentCreated.Name })
	i := slices.IndexFunc(list, func(o events.DeploymentOrder) bool { return o.Deployment == deployment })
	if i < 0 {
		t.Fatalf("no order of %s was told", deployment)
	}
	return list[i].Envelope
}
