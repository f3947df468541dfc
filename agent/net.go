package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"chandler/agent/execute"
	"chandler/agent/execute/systemrunner"
	"chandler/agent/external"
	"chandler/agent/identity"
	"chandler/agent/lease"
	"chandler/agent/lending"
	"chandler/agent/netfs"
	"chandler/agent/source"
	"chandler/agent/supervise"
	"chandler/events"
	"chandler/events/resource"
)

// refers says that the program refers to what is outside and is helped to read it: a program of users reads by their own
// means.
func (t *task) refers() bool {
	return len(t.program.References) > 0 && t.program.Run == events.RunAdministrative
}

// offerReferences makes the reader from which the program's supervisor gets logins.
func (t *task) offerReferences() error {
	if !t.refers() {
		return nil
	}
	_, err := t.outside()
	return err
}

// net lets the program's supervisor offer it its references as files; nil: it has none, or this system does it otherwise.
func (t *task) net() *supervise.Net {
	if !t.refers() || runtime.GOOS == "windows" {
		return nil
	}
	n := &supervise.Net{Mount: filepath.Join(t.job.Run, "net"), Socket: t.a.lendingSocket(), Identity: string(t.who.Network), Pins: map[string]string{}}
	if t.who.Network == identity.Nobody {
		n.Identity = string(identity.ClientToken)
	}
	for _, r := range t.program.References {
		n.Resources = append(n.Resources, r.URL)
		if r.SHA256 != "" {
			n.Pins[r.URL] = r.SHA256
		}
	}
	return n
}

// Unmountable says what keeps this process from offering references to programs; "": nothing does.
func Unmountable() string {
	if runtime.GOOS == "windows" { // where a program's own logon reads them
		return ""
	}
	if err := netfs.Possible(); err != nil {
		return err.Error()
	}
	return ""
}

// netLogin asks for the account that the whole program is on the network, where a process has one; nil: it has none but
// its own.
func (t *task) netLogin() func(context.Context) (*lease.Lease, error) {
	if !t.refers() || t.who.Network != identity.NetworkAccess || runtime.GOOS != "windows" {
		return nil
	}
	return func(ctx context.Context) (*lease.Lease, error) {
		return systemrunner.OneLogin(ctx, t.program.References, t.proved)
	}
}

// proved is the account that reads an address, in a lease that was shown to the host here: nobody hears what hosts answer to
// the program itself.
func (t *task) proved(ctx context.Context, address string) (*lease.Lease, error) {
	reader, err := t.outside()
	if err != nil {
		return nil, err
	}
	loan, err := reader.Borrow(ctx, address, events.AccessReference)
	if e, ok := errors.AsType[*external.Error](err); ok {
		t.accessed(e.Access, "")
		return nil, &lease.Denied{Reason: e.Reason, Why: e.Answer}
	}
	if err != nil {
		return nil, err
	}
	return &lease.Lease{ID: loan.Lease, Account: loan.Account, Kind: loan.Kind, User: loan.User, Method: loan.Login.Method, Version: loan.Version, Secret: loan.Login.Secret, Expires: loan.Expires}, nil
}

// lendingSocket is where supervisors ask for logins.
func (a *Agent) lendingSocket() string { return filepath.Join(a.StateDir, "lending.sock") }

// lendToSupervisors answers them until ctx is done. Where that is impossible programs get no logins, and say so.
func (a *Agent) lendToSupervisors(ctx context.Context) error {
	if runtime.GOOS != "linux" { // where supervisors have nothing to ask for
		return nil
	}
	server, err := lending.Listen(lending.Options{Path: a.lendingSocket(), Log: a.log, Supervisor: a.supervisorOf, Lend: a.lendForRun})
	if err != nil {
		a.log.WarnContext(ctx, "programs cannot be offered references", "error", err)
		return nil
	}
	return server.Serve(ctx)
}

// supervisorOf a run that has somebody to read for it.
func (a *Agent) supervisorOf(dir string) (pid int, err error) {
	if a.lenderOf(dir) == nil {
		return 0, fmt.Errorf("no program with references runs in %s", dir)
	}
	run, err := supervise.Attach(dir)
	if err != nil {
		return 0, err
	}
	return run.Supervisor()
}

// lendForRun gives the supervisor of a run what it takes to read an address.
func (a *Agent) lendForRun(ctx context.Context, dir, address string) (lending.Loan, error) {
	reader := a.lenderOf(dir)
	if reader == nil {
		return lending.Loan{}, &source.Error{Reason: events.CredentialDenied, Answer: "the job is over, or has no references"}
	}
	loan, err := reader.Borrow(ctx, address, events.AccessRun)
	if e, ok := errors.AsType[*external.Error](err); ok {
		return lending.Loan{Identity: e.Identity, Account: e.Account, User: e.User, Version: e.Version}, &source.Error{Reason: e.Reason, Answer: e.Answer}
	}
	if err != nil {
		return lending.Loan{}, err
	}
	expires := loan.Expires
	if soon := a.Clock().Add(lentFor); soon.Before(expires) {
		expires = soon
	}
	return lending.Loan{Identity: loan.Identity, Account: loan.Account, User: loan.User, Version: loan.Version, Method: loan.Login.Method, Lease: loan.Lease, Secret: loan.Login.Secret, Expires: expires}, nil
}

// lentFor is how long a supervisor keeps an account before it asks again: no agent may be there to tell it that a lease is
// withdrawn.
const lentFor = 2 * time.Minute

// followAccesses tells what comes of the program's references while it runs, and of the last ones when it is over.
func (t *task) followAccesses(ctx context.Context, x *execute.Execution, over <-chan struct{}) {
	if !t.refers() {
		return
	}
	for seen, last := 0, false; ; {
		found, next, err := x.Accesses(seen)
		if err != nil {
			t.a.log.WarnContext(ctx, "accesses of a program not read", "job", t.job.Offer.Job, "error", err)
		}
		seen = next
		for _, a := range found {
			t.heardOf(a)
		}
		if last || ctx.Err() != nil {
			return
		}
		select {
		case <-over:
			last = true
		case <-soon(ctx):
		}
	}
}

// heardOf takes in an access that the program's supervisor tried.
func (t *task) heardOf(a events.Access) {
	a.When = events.AccessRun
	if r, err := resource.Parse(a.Resource); err == nil {
		a.Resource = r.String()
	}
	t.a.logins.Heard(a)
	leased := ""
	if a.Account != "" && t.reach != nil {
		leased = t.reach.LeaseFor(a.Resource)
	}
	t.accessed(a, leased)
}
