package credentials

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/services/credentials/vault"
)

// kept is a fleet with an account whose former secret still counts, and one that was removed.
func kept(t *testing.T) (*fleet, *Service) {
	t.Helper()
	f := newFleet(t)
	r := f.running()
	rotated := reader()
	if _, err := ask(f.story, "ada", events.AccountSetCall, rotated); err != nil {
		t.Fatal(err)
	}
	rotated.KeepOld = events.Duration(24 * time.Hour)
	if set, err := ask(f.story, "ada", events.AccountSetCall, rotated); err != nil || set.Version != 2 {
		t.Fatalf("set %+v, %v", set, err)
	}
	gone := reader()
	gone.Account = "gone"
	if _, err := ask(f.story, "ada", events.AccountSetCall, gone); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(f.story, "ada", events.AccountRemove, events.Named{Name: "gone"}); err != nil {
		t.Fatal(err)
	}
	return f, r
}

// opened checks that both secrets of the account are sealed by the newest key, and open.
func opened(f *fleet, r *Service) {
	f.t.Helper()
	a := storedAccount(f.t, r)
	all := a.sealed()
	if len(all) != 2 || all[0].version != 2 || all[1].version != 1 {
		f.t.Fatalf("the record keeps %+v", all)
	}
	for _, one := range all {
		got, err := r.sealer.Unseal(f.t.Context(), a.Account, one.version, *one.sealed)
		if err != nil || string(got) != secret || !r.sealer.Current(*one.sealed) {
			f.t.Errorf("version %d opens as %q, %v", one.version, got, err)
		}
	}
}

func TestRekeyingSealsEverySecretAnewAndTellsNobody(t *testing.T) {
	f, r := kept(t)
	before := storedAccount(t, r)
	eventstest.ExpectExactly(t, f.admin, events.AccountSet, nil, 3)
	done, err := ask(f.story, "ada", events.AccountRekey, events.Nothing{})
	if err != nil || done.Accounts != 1 || done.Key == "" || !strings.HasPrefix(done.KeptBy, "file:") {
		t.Fatalf("rekeyed %+v, %v", done, err)
	}
	opened(f, r)
	after := storedAccount(t, r)
	if bytes.Equal(before.Sealed, after.Sealed) || bytes.Equal(before.Former.Sealed, after.Former.Sealed) || after.Change != before.Change || after.Version != 2 {
		t.Errorf("stored is %+v", after)
	}
	f.history("corp-reader", 1)

	if err := r.finishRekey(t.Context()); err != nil {
		t.Fatal(err)
	}
	state, err := r.sealer.State(t.Context())
	if err != nil || state.Former != 1 || state.Key != done.Key {
		t.Errorf("state %+v, %v: somebody may still be about to store what the former key sealed", state, err)
	}
	f.clock.pass(retireAfter)
	if err := r.finishRekey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state, err = r.sealer.State(t.Context()); err != nil || state.Former != 0 || state.Key != done.Key {
		t.Errorf("state %+v, %v", state, err)
	}
	opened(f, r)
	if r.sealer.Check(t.Context(), "corp-reader", 2, before.Sealed) == nil {
		t.Error("the former key is still there")
	}
	eventstest.ExpectExactly(t, f.admin, events.AccountSet, nil, 3)
	f.leaks()
}

func TestARekeyingThatCrashedIsFinishedByTheNextStart(t *testing.T) {
	for name, step := range map[string]func(f *fleet, v *vault.Vault, r *Service){
		"after the key was added": func(*fleet, *vault.Vault, *Service) {},
		"after one of two secrets was sealed": func(f *fleet, v *vault.Vault, r *Service) {
			a := storedAccount(f.t, r)
			sealed, err := v.Seal(f.t.Context(), a.Account, a.Version, []byte(secret))
			if err != nil {
				f.t.Fatal(err)
			}
			if _, err := change(f.t.Context(), r.accounts, a.Account, func(old accountRecord, _ bool) (accountRecord, error) {
				old.Sealed = sealed
				return old, nil
			}); err != nil {
				f.t.Fatal(err)
			}
		},
		"after all were sealed": func(f *fleet, _ *vault.Vault, r *Service) {
			if n, err := r.reseal(f.t.Context()); err != nil || n != 1 {
				f.t.Fatalf("%d, %v", n, err)
			}
		},
		"while the next keyset was written": func(f *fleet, _ *vault.Vault, _ *Service) {
			if err := os.WriteFile(filepath.Join(f.dir, vault.File+".1"), []byte("{"), 0o600); err != nil {
				f.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			first := f.replica()
			stop := f.run(first)
			for range 2 {
				account := reader()
				account.KeepOld = events.Duration(24 * time.Hour)
				if _, err := ask(f.story, "ada", events.AccountSetCall, account); err != nil {
					t.Fatal(err)
				}
			}
			stop()
			if _, err := first.sealer.AddKey(t.Context()); err != nil {
				t.Fatal(err)
			}
			step(f, first.sealer, first)
			f.clock.pass(retireAfter)
			r := f.replica()
			f.run(r)
			f.eventually("the former key is removed", func() bool {
				state, err := r.sealer.State(t.Context())
				return err == nil && state.Former == 0
			})
			opened(f, r)
			if err := r.Healthy(t.Context()); err != nil {
				f.eventually("healthy", func() bool { return r.Healthy(t.Context()) == nil })
			}
		})
	}
}

func TestAReplicaThatSharesTheKeysetFollowsARekeying(t *testing.T) {
	f, one := kept(t)
	two := f.replica() // asked nothing by itself
	if _, err := one.accountRekey(t.Context(), "ada", events.Nothing{}); err != nil {
		t.Fatal(err)
	}
	opened(f, two)
	if _, err := two.accountSet(t.Context(), "ada", reader()); err != nil {
		t.Fatal(err)
	}
	a := storedAccount(t, two)
	if !one.sealer.Current(a.Sealed) {
		t.Error("the former key sealed")
	}
}

func TestWhatNoKeyOpensIsNamedAndHindersNoRekeying(t *testing.T) {
	f, r := kept(t)
	other := reader()
	other.Account = "corp-writer"
	if _, err := ask(f.story, "ada", events.AccountSetCall, other); err != nil {
		t.Fatal(err)
	}
	// Whoever may write to the bucket gives one account the other's secret, of the same version.
	from := storedAccount(t, r)
	if _, err := change(t.Context(), r.accounts, "corp-writer", func(old accountRecord, _ bool) (accountRecord, error) {
		old.Sealed, old.Version = from.Sealed, from.Version
		return old, nil
	}); err != nil {
		t.Fatal(err)
	}
	done, err := ask(f.story, "ada", events.AccountRekey, events.Nothing{})
	if err != nil || done.Accounts != 1 {
		t.Errorf("rekeyed %+v, %v", done, err)
	}
	f.clock.pass(retireAfter)
	failed, unusable := r.reconcile(t.Context())
	if failed != nil || unusable == nil || !strings.Contains(fmt.Sprint(unusable), "secrets of corp-writer cannot") {
		t.Errorf("failed %v, unusable %v", failed, unusable)
	}
	if state, err := r.sealer.State(t.Context()); err != nil || state.Former != 0 {
		t.Errorf("state %+v, %v", state, err)
	}
	opened(f, r)
}

func TestARekeyingThatCannotBeDoneChangesNothing(t *testing.T) {
	f, r := kept(t)
	before := storedAccount(t, r)
	key := f.dir + "-key/accounts.key"
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(f.story, "ada", events.AccountRekey, events.Nothing{}); err == nil || !strings.Contains(err.Error(), "put it back") {
		t.Errorf("error %v", err)
	}
	if after := storedAccount(t, r); !bytes.Equal(before.Sealed, after.Sealed) {
		t.Error("the secret was sealed anew")
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	for range 7 {
		if _, err := r.sealer.AddKey(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ask(f.story, "ada", events.AccountRekey, events.Nothing{}); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("error %v", err)
	}
}
