// Package elevate keeps the rights that an account is given for one run of one program: it gives them for exactly that
// program, and takes them back.
//
// On Linux and macOS the right is a file in sudoers.d, named by job and attempt, that lets the account run this command
// with these arguments in this directory, by the digest of the command, and the program then runs as uid 0 by way of the
// account: sudo is its parent and SUDO_UID names the account. Its environment comes from a file that only root reads and
// not from whoever calls sudo; sudo adds SUDO_COMMAND, SUDO_USER, SUDO_UID and SUDO_GID, root's HOME, USER, LOGNAME, SHELL,
// MAIL and TERM where there are none, and as PS1 what its caller has as SUDO_PS1. The command, its interpreter, its
// directory and everything above them must be root's alone, or nothing is given.
// The client token account is expired besides while nothing runs by it (chage), so that sudo refuses it even by a rule.
// On Windows the account is a member of Administrators for the run, and logs on anew.
//
// Sudo goes by the rule for the few minutes in which a start is due, also where nobody is left to remove the file. Three
// things cannot be said to it. It joins arguments by blanks before it compares them, so that the account could call the
// same command with the same text split at other blanks. It does not tell the agent from whoever else has the account, who
// could start the same command too in those minutes, at a terminal of his own. And processes of the account may signal the
// sudo that the account called, at any time of the run: the program of one that was killed goes on unseen. So a software
// installation account should be nobody's own.
//
// An account that is an administrator already keeps what it has. One account is elevated for one run at a time.
//
// Promises under failure. A record is on the disk before anything is given, and stays until all is taken back and told;
// whatever fails in between, Return or, after a killed agent, Restore takes back what may have been given, and can be
// called again until it succeeds; what failed once is tried again at every later call. A program that runs already is not disturbed by that: it needs its right only to start.
// Rules that lost their record are found by their own first lines. What is told may be told twice, with the same id.
package elevate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"chandler/agent/account"
	"chandler/agent/execute"
	"chandler/agent/supervise"
	"chandler/events"
)

// Kinds of a Grant: what the account is to the fleet.
const (
	ClientToken          = "client-token"
	ClientTokenDomain    = "client-token-domain"
	SoftwareInstallation = "software-installation"
)

// takeLimit bounds taking back, which a cancelled caller does not interrupt.
const takeLimit = time.Minute

// ErrBusy says that the account is elevated for another run, or that what was given for one is not all taken back yet.
var ErrBusy = errors.New("the account is elevated already")

// Grant says who is to have rights for which run.
type Grant struct {
	Dir        string          `json:"dir"` // the run's own directory, absolute; Return finds the grant by it
	Account    account.Account `json:"account"`
	Kind       string          `json:"kind"` // ClientToken, ClientTokenDomain or SoftwareInstallation
	Job        string          `json:"job"`
	Deployment string          `json:"deployment"`
	Program    string          `json:"program"` // package, version and program, for people
	Attempt    int             `json:"attempt"` // counted from 1
	// Logon gives a token of the account on Windows, where it is called after the account has its rights, which only a
	// new logon has; done closes it, and is called when the rights are returned. Not called elsewhere.
	Logon func(ctx context.Context) (token uint64, done func(), err error) `json:"-"`
}

// Options of New.
type Options struct {
	Dir        string           // for records, absolute; made if need be (mode 0700)
	SudoersDir string           // "": /etc/sudoers.d
	Log        *slog.Logger     // nil: slog.Default()
	Clock      func() time.Time // nil: time.Now
	// reached is called after each step, by its name: tests kill the process there.
	reached func(step string)
}

// Teller passes a note on. It completes the note with the agent's id and host name, which a Keeper does not know.
type Teller func(events.Type[events.AccountNote], events.AccountNote) error

// Keeper gives rights and takes them back. Its methods may be called at once by many, and take turns.
type Keeper struct {
	mu     sync.Mutex
	system system
	store  store
	tell   Teller
	log    *slog.Logger
	now    func() time.Time
	step   func(string)
	due    map[string]saying // what could not be taken back yet, by the name of its record: tried again at every call
}

// system gives rights as an operating system has them.
type system interface {
	// name of what accounts are raised to.
	raisedTo() string
	// has says that there is nothing to give: the account is the system's own.
	has(account.Account) bool
	// check says why the rights cannot be given, and else how; it changes nothing. standing: the account has them
	// already, and keeps them.
	check(ctx context.Context, r record, spec supervise.Spec) (give giving, standing bool, err error)
	// take takes back what was given for r, wholly or in part or not at all. means is what was done, for people.
	take(ctx context.Context, r record) (means string, err error)
	// strays are rights without a record.
	strays(records string) ([]record, error)
}

// giving changes the machine; the spec it gives runs with the rights.
type giving func(ctx context.Context) (spec supervise.Spec, means string, err error)

// New validates the options. It changes nothing but making the directory.
func New(o Options) (*Keeper, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("elevate: directory %q is not absolute", o.Dir)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.reached == nil {
		o.reached = func(string) {}
	}
	o.Dir = filepath.Clean(o.Dir)
	system, err := newSystem(o)
	if err != nil {
		return nil, fmt.Errorf("elevate: %w", err)
	}
	return newKeeper(o, system)
}

func newKeeper(o Options, system system) (*Keeper, error) {
	kept, err := openStore(o.Dir, o.Log)
	if err != nil {
		return nil, fmt.Errorf("elevate: %w", err)
	}
	return &Keeper{system: system, store: kept, log: o.Log, now: o.Clock, step: o.reached, due: map[string]saying{}}, nil
}

// Tell sets where notes go, before anything else is called. A note that tell refuses is kept and told again at the next
// call of any method; that never holds up the taking back. tell must not call the Keeper.
func (k *Keeper) Tell(tell func(events.Type[events.AccountNote], events.AccountNote) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tell = tell
}

// Grant gives the account rights for exactly this program, and returns what is to be executed instead. An error means that
// nothing is given: an *execute.Impossible where an administrator can do something about it, ErrBusy, or what the system
// answered; what could not be taken back then is left to Return and Restore. For uid 0 and LocalSystem there is nothing
// to give, and the spec comes back as it is.
func (k *Keeper) Grant(ctx context.Context, g Grant, spec supervise.Spec) (supervise.Spec, error) {
	if err := g.validate(); err != nil {
		return supervise.Spec{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.tellAll()
	if k.system.has(g.Account) {
		return spec, nil
	}
	r := record{Name: namePrefix + g.Job + "-" + strconv.Itoa(g.Attempt), Grant: g, Since: k.now()}
	if err := k.claim(ctx, &r); err != nil {
		return supervise.Spec{}, fmt.Errorf("elevate %s for job %s: %w", g.Account.Name, g.Job, err)
	}
	give, standing, err := k.system.check(ctx, r, spec)
	if err != nil {
		return supervise.Spec{}, fmt.Errorf("elevate %s for job %s: %w", g.Account.Name, g.Job, err)
	}
	r.Standing = standing
	elevated, err := k.give(ctx, &r, give)
	if err != nil {
		return supervise.Spec{}, fmt.Errorf("elevate %s for job %s: %w", g.Account.Name, g.Job, errors.Join(err, k.undo(ctx, r)))
	}
	return elevated, nil
}

// give puts the record on the disk first.
func (k *Keeper) give(ctx context.Context, r *record, give giving) (supervise.Spec, error) {
	if err := k.store.save(*r); err != nil {
		return supervise.Spec{}, err
	}
	k.step("record")
	spec, means, err := give(ctx)
	if err != nil {
		return supervise.Spec{}, err
	}
	k.step("given")
	r.add(elevated, k.note(*r, means))
	return spec, k.store.save(*r)
}

// claim refuses a second run of one account. Notes that a run of the same name left untold go with the new record.
func (k *Keeper) claim(ctx context.Context, r *record) error {
	records, err := k.records()
	if err != nil {
		return err
	}
	records = k.takeDue(ctx, records)
	for _, other := range records {
		switch {
		case other.Taken && other.Name == r.Name:
			r.Notes = other.Notes
		case !other.Taken && (other.Name == r.Name || sameAccount(other.Account, r.Account)):
			return fmt.Errorf("%w: for attempt %d of job %s", ErrBusy, other.Attempt, other.Job)
		}
	}
	return nil
}

// undo takes back what a Grant that failed may have given.
func (k *Keeper) undo(ctx context.Context, r record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeLimit)
	defer cancel()
	if _, err := k.system.take(ctx, r); err != nil {
		return fmt.Errorf("take back what was given: %w", err)
	}
	r.Taken = true
	return k.store.keep(r)
}

// Return takes back what was given for the run with that directory, and tells so. It may be called again, and must be
// after an error; nothing given is no error. It goes on when ctx is cancelled.
func (k *Keeper) Return(ctx context.Context, dir string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.tellAll()
	records, err := k.records()
	for _, r := range k.takeDue(ctx, records) {
		if !r.Taken && r.Dir == filepath.Clean(dir) {
			err = errors.Join(err, k.take(ctx, &r, returned))
		}
	}
	if err != nil {
		return fmt.Errorf("return rights given for %s: %w", dir, err)
	}
	return nil
}

// records are all that can be read. Where one is damaged its rule, which says itself whose it is, stands for it. An error
// says that there may be more.
func (k *Keeper) records() ([]record, error) {
	records, damaged, err := k.store.read()
	if len(damaged) == 0 {
		return records, err
	}
	err = errors.Join(err, k.store.setAside(damaged))
	strays, failed := k.strays()
	return append(records, strays...), errors.Join(err, failed)
}

// strays are rights without a record, which have one again after this, if there is room on the disk: they are taken back
// also where there is none.
func (k *Keeper) strays() ([]record, error) {
	strays, err := k.system.strays(k.store.dir)
	for _, r := range strays {
		k.log.Warn("rights without a record are found", "component", "elevate", "account", r.Account.Name, "rule", r.Name)
		if failed := k.store.save(r); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	return strays, err
}

// Restore takes back, at the agent's start, everything that is still given, also what has no record any more, and tells
// so. Programs that run already go on. It does all it can; an error says what it could not, and calls for another try.
func (k *Keeper) Restore(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.tellAll()
	records, damaged, failed := k.store.read()
	failed = errors.Join(failed, k.store.setAside(damaged))
	strays, err := k.strays()
	failed = errors.Join(failed, err)
	for _, r := range append(records, strays...) {
		if !r.Taken {
			failed = errors.Join(failed, k.take(ctx, &r, restored))
		}
	}
	if failed != nil {
		return fmt.Errorf("restore accounts: %w", failed)
	}
	return nil
}

// takeDue tries again what could not be taken back before, and gives the records as they are then.
func (k *Keeper) takeDue(ctx context.Context, records []record) []record {
	for i := range records {
		r := &records[i]
		as, due := k.due[r.Name]
		if r.Taken || !due {
			continue
		}
		if err := k.take(ctx, r, as); err != nil {
			k.log.Error("rights are still not taken back", "component", "elevate", "account", r.Account.Name, "job", r.Job, "error", err)
		}
	}
	return records
}

// take takes back, and writes down that it did before it is told; then the record is what is written down.
func (k *Keeper) take(ctx context.Context, r *record, as saying) error {
	k.due[r.Name] = as
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeLimit)
	defer cancel()
	means, err := k.system.take(ctx, *r)
	if err != nil {
		return fmt.Errorf("take rights back from %s: %w", r.Account.Name, err)
	}
	k.step("taken")
	taken := *r
	taken.Taken = true
	taken.add(as, k.note(taken, means))
	if err := k.store.save(taken); err != nil {
		return fmt.Errorf("take rights back from %s: %w", r.Account.Name, err)
	}
	*r = taken
	delete(k.due, r.Name)
	return nil
}

func (g Grant) validate() error {
	switch {
	case events.ValidToken(g.Job) != nil || g.Attempt < 1:
		return fmt.Errorf("elevate: job %q, attempt %d", g.Job, g.Attempt)
	case !filepath.IsAbs(g.Dir):
		return fmt.Errorf("elevate: directory %q is not absolute", g.Dir)
	case g.Account.Name == "":
		return errors.New("elevate: no account")
	case g.Kind != ClientToken && g.Kind != ClientTokenDomain && g.Kind != SoftwareInstallation:
		return fmt.Errorf("elevate: unknown kind of account %q", g.Kind)
	}
	return nil
}

// sameAccount compares what the operating system tells accounts apart by.
func sameAccount(a, b account.Account) bool {
	if a.SID != "" || b.SID != "" {
		return a.SID == b.SID
	}
	return a.UID == b.UID
}

// refuse says why an account is not elevated.
func refuse(reason events.Reason, who account.Account, resource, answer string) error {
	return &execute.Impossible{Reason: reason, Identity: who.Name, Resource: resource, Answer: answer}
}
