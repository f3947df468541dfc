package raised

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/account"
	"chandler/agent/account/accounttest"
	"chandler/agent/elevate"
	"chandler/agent/execute"
	"chandler/agent/lease"
	"chandler/agent/supervise"
	"chandler/events"
)

func TestMain(m *testing.M) {
	accounttest.Main()
	os.Exit(m.Run())
}

// fakeKeeper writes down what it is to grant.
type fakeKeeper struct {
	grants  []elevate.Grant
	refuses error
}

func (k *fakeKeeper) Grant(_ context.Context, g elevate.Grant, spec supervise.Spec) (supervise.Spec, error) {
	k.grants = append(k.grants, g)
	spec.Argv = append([]string{"/usr/bin/sudo"}, spec.Argv...)
	return spec, k.refuses
}

func TestASecretIsForgottenWhetherRightsWereGivenOrNot(t *testing.T) {
	for name, refuses := range map[string]error{"given": nil, "refused": elevate.ErrBusy} {
		t.Run(name, func(t *testing.T) {
			forgotten := 0
			run := Run{Keeper: &fakeKeeper{refuses: refuses}, Account: account.Account{Name: "alice", UID: 1234}, Kind: elevate.SoftwareInstallation, Forget: func() { forgotten++ }}
			prepared, err := run.Prepare(t.Context(), execute.Request{Job: "job1", Attempt: 1})
			if err != nil || forgotten > 0 {
				t.Fatalf("forgotten %d times, %v", forgotten, err)
			}
			if _, err := prepared.Elevate(t.Context(), "/run/1", supervise.Spec{}); !errors.Is(err, refuses) || forgotten != 1 {
				t.Errorf("forgotten %d times, %v", forgotten, err)
			}
		})
	}
}

func TestRightsAreGivenOnlyAtTheStart(t *testing.T) {
	accounttest.Need(t)
	keeper := &fakeKeeper{}
	who := account.Account{Name: "alice", UID: 1234, GID: 1234}
	run := Run{Keeper: keeper, Account: who, Kind: elevate.SoftwareInstallation, Note: "a note"}
	prepared, err := run.Prepare(t.Context(), execute.Request{Job: "job1", Deployment: "dep", Program: "tools 1 install", Attempt: 2})
	if err != nil {
		t.Fatal(err)
	}
	if prepared.Executor != "alice" || prepared.ElevatedTo != "root" || prepared.Credential != nil || prepared.Note != "a note" || len(prepared.Env) == 0 || len(keeper.grants) > 0 {
		t.Errorf("%+v, granted %v", prepared, keeper.grants)
	}
	spec, err := prepared.Elevate(t.Context(), "/run/1", supervise.Spec{Argv: []string{"/bin/true"}})
	if err != nil || !cmp.Equal(spec.Argv, []string{"/usr/bin/sudo", "/bin/true"}) {
		t.Errorf("%q, %v", spec.Argv, err)
	}
	want := []elevate.Grant{{Dir: "/run/1", Account: who, Kind: elevate.SoftwareInstallation, Job: "job1", Deployment: "dep", Program: "tools 1 install", Attempt: 2}}
	if diff := cmp.Diff(want, keeper.grants); diff != "" {
		t.Error(diff)
	}
}

func TestAnAccountIsBorrowedOnlyIfItIsWhatWasAskedFor(t *testing.T) {
	accounttest.Need(t)
	accounttest.User(t, "installer", "-M")
	accounttest.User(t, "expired", "-M", "-e", "2020-01-01")
	accounttest.User(t, "toor", "-M", "-o", "-u", "0")
	accounttest.User(t, "ordinary", "-M")
	kind := events.SoftwareInstallation
	var lent *lease.Lease
	lend := func(kind events.AccountKind, user string) func() (*lease.Lease, error) {
		return func() (*lease.Lease, error) {
			lent = &lease.Lease{Account: "corp-installer", Kind: kind, User: user, Secret: []byte("secret")}
			return lent, nil
		}
	}
	for name, test := range map[string]struct {
		lease  func() (*lease.Lease, error)
		spell  func(string) []string
		user   string
		reason events.Reason
		words  string
	}{
		"an ordinary user is used": {lease: lend(kind, "installer"), user: "installer"},
		"a user is found by another spelling of the same": {
			lease: lend(kind, `EXAMPLE\installer`), spell: func(user string) []string { return []string{user, "installer"} }, user: "installer"},
		"a domain's user is never taken for a local one of the same name": {
			lease: lend(kind, `EXAMPLE\installer`), reason: events.AccountUnusable,
			words: `there is no such user as EXAMPLE\installer on this machine, by its user database (NSS)`},
		"nobody": {lease: lend(kind, "nobody-at-all"), reason: events.AccountUnusable,
			words: "there is no such user as nobody-at-all on this machine, by its user database (NSS)"},
		"an expired user": {lease: lend(kind, "expired"), reason: events.AccountUnusable, words: "account expired is disabled: it expired on 2020-01-01"},
		"root by another name": {lease: lend(kind, "toor"), reason: events.AccountRefused,
			words: "account corp-installer is root itself (user toor, uid 0), from whom nothing can be taken back: it must be an ordinary user"},
		"a network access account": {lease: lend(events.NetworkAccess, "installer"), reason: events.AccountRefused,
			words: "account corp-installer is of kind network-access; programs are run by one of kind software-installation"},
		"the domain's client token account": {lease: lend(events.ClientTokenDomain, "installer"), reason: events.AccountRefused,
			words: "account corp-installer is of kind client-token-domain; programs are run by one of kind software-installation"},
		"a refusal": {lease: func() (*lease.Lease, error) {
			return nil, &lease.Denied{Reason: events.AccountUnusable, Why: "it is revoked"}
		}, reason: events.AccountUnusable, words: "it is revoked"},
		"a service that is not heard": {lease: func() (*lease.Lease, error) { return nil, errors.New("no responders") },
			reason: events.CredentialDenied, words: "the credential service gave no lease: no responders"},
		"no answer":  {lease: func() (*lease.Lease, error) { return nil, nil }, reason: events.CredentialDenied, words: "the credential service gave no lease"},
		"no service": {reason: events.CredentialDenied, words: "there is no credential service that the account could be asked from"},
	} {
		t.Run(name, func(t *testing.T) {
			lent = nil
			wanted := lease.Wanted{Account: "corp-installer"}
			var req execute.Request
			if test.lease != nil {
				req.Lease = func(_ context.Context, got lease.Wanted) (*lease.Lease, error) {
					if got != wanted {
						t.Errorf("asked for %+v", got)
					}
					return test.lease()
				}
			}
			found, logon, _, err := Borrow(t.Context(), req, wanted, kind, test.spell)
			if lent != nil && lent.Secret != nil {
				t.Error("the secret is still in memory")
			}
			if test.reason == "" {
				if err != nil || found.Name != test.user || found.UID == 0 || logon != nil {
					t.Errorf("%+v, %v", found, err)
				}
				return
			}
			var impossible *execute.Impossible
			if !errors.As(err, &impossible) || impossible.Reason != test.reason || impossible.Answer != test.words || impossible.Identity == "" {
				t.Errorf("%+v, want %s: %s", err, test.reason, test.words)
			}
		})
	}
}

func TestAnAttemptThatIsOverAsksNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := execute.Request{Lease: func(ctx context.Context, _ lease.Wanted) (*lease.Lease, error) { return nil, ctx.Err() }}
	if _, _, _, err := Borrow(ctx, req, lease.Wanted{Account: "a"}, events.SoftwareInstallation, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestASpellingKeepsTheDomain(t *testing.T) {
	for user, want := range map[string][]string{
		"alice":             {"alice"},
		"alice@example.com": {"alice@example.com"},
		`EXAMPLE\alice`:     {`EXAMPLE\alice`, "alice@EXAMPLE"},
		`\alice`:            {`\alice`},
		`EXAMPLE\`:          {`EXAMPLE\`},
	} {
		if diff := cmp.Diff(want, Spell(user)); diff != "" {
			t.Errorf("%s: %s", user, diff)
		}
	}
}
