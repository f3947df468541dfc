package identity

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"chandler/events"
)

// The table of design §2, a line for each of its cells; the last column, who references met at run time are read by, is Network.
func TestWhoReadsAndWhoExecutes(t *testing.T) {
	const account = "corp-installer"
	const external, dp, user, administrative = External, OnDP, events.RunUser, events.RunAdministrative
	ignored := "installation account corp-installer is ignored: this is an advanced client, which runs administrative programs as the system"
	for _, c := range []struct {
		name string
		q    Question
		want Answer
		no   events.Reason // refused
	}{
		{"advanced, user, distribution point", Question{Client: events.Advanced, Run: user, Content: dp}, Answer{Reader: Agent, Executor: User, Network: User}, ""},
		{"advanced, user, external source", Question{Client: events.Advanced, Run: user, Content: external}, Answer{Reader: User, Executor: User, Network: User}, ""},
		{"legacy, user, distribution point", Question{Client: events.Legacy, Run: user, Content: dp}, Answer{Reader: Agent, Executor: User, Network: User}, ""},
		{"legacy, user, external source", Question{Client: events.Legacy, Run: user, Content: external}, Answer{Reader: User, Executor: User, Network: User}, ""},
		{"legacy on a domain controller, user, distribution point", Question{Client: events.Legacy, Run: user, Content: dp, DomainController: true}, Answer{Reader: Agent, Executor: User, Network: User}, ""},
		{"legacy on a domain controller, user, external source", Question{Client: events.Legacy, Run: user, Content: external, DomainController: true}, Answer{Reader: User, Executor: User, Network: User}, ""},

		{"advanced, administrative, distribution point", Question{Client: events.Advanced, Run: administrative, Content: dp}, Answer{Reader: Agent, Executor: System, Network: NetworkAccess}, ""},
		{"advanced, administrative, external source", Question{Client: events.Advanced, Run: administrative, Content: external}, Answer{Reader: NetworkAccess, Executor: System, Network: NetworkAccess}, ""},
		{"advanced on a domain controller, administrative, distribution point", Question{Client: events.Advanced, Run: administrative, Content: dp, DomainController: true},
			Answer{Reader: Agent, Executor: System, Network: NetworkAccess}, ""},
		{"advanced ignores the installation account, distribution point", Question{Client: events.Advanced, Run: administrative, Content: dp, InstallationAccount: account},
			Answer{Reader: Agent, Executor: System, Network: NetworkAccess, Note: ignored}, ""},
		{"advanced ignores the installation account, external source", Question{Client: events.Advanced, Run: administrative, Content: external, InstallationAccount: account, AccountKind: events.SoftwareInstallation},
			Answer{Reader: NetworkAccess, Executor: System, Network: NetworkAccess, Note: ignored}, ""},

		{"legacy, administrative, distribution point", Question{Client: events.Legacy, Run: administrative, Content: dp}, Answer{Reader: Agent, Executor: ClientToken, Elevated: true}, ""},
		{"legacy, administrative, external source", Question{Client: events.Legacy, Run: administrative, Content: external}, Answer{}, events.NoNetworkIdentity},
		{"legacy, installation account, distribution point", Question{Client: events.Legacy, Run: administrative, Content: dp, InstallationAccount: account},
			Answer{Reader: Agent, Executor: Installation, Network: Installation, Elevated: true}, ""},
		{"legacy, installation account, external source", Question{Client: events.Legacy, Run: administrative, Content: external, InstallationAccount: account, AccountKind: events.SoftwareInstallation},
			Answer{Reader: Installation, Executor: Installation, Network: Installation, Elevated: true}, ""},

		{"legacy on a domain controller, administrative, distribution point", Question{Client: events.Legacy, Run: administrative, Content: dp, DomainController: true},
			Answer{Reader: Agent, Executor: DomainToken, Elevated: true}, ""},
		{"legacy on a domain controller, administrative, external source", Question{Client: events.Legacy, Run: administrative, Content: external, DomainController: true}, Answer{}, events.NoNetworkIdentity},
		{"legacy on a domain controller, installation account, distribution point", Question{Client: events.Legacy, Run: administrative, Content: dp, InstallationAccount: account, DomainController: true},
			Answer{Reader: Agent, Executor: Installation, Network: Installation, Elevated: true}, ""},
		{"legacy on a domain controller, installation account, external source", Question{Client: events.Legacy, Run: administrative, Content: external, InstallationAccount: account, DomainController: true},
			Answer{Reader: Installation, Executor: Installation, Network: Installation, Elevated: true}, ""},

		{"a network access account does not run programs of legacy clients", Question{Client: events.Legacy, Run: administrative, Content: dp, InstallationAccount: account, AccountKind: events.NetworkAccess}, Answer{}, events.AccountRefused},
		{"a network access account does not run programs of a domain controller", Question{Client: events.Legacy, Run: administrative, Content: external, InstallationAccount: account, AccountKind: events.NetworkAccess, DomainController: true},
			Answer{}, events.AccountRefused},
		{"an order that gives a network access account is refused by advanced clients too", Question{Client: events.Advanced, Run: administrative, Content: dp, InstallationAccount: account, AccountKind: events.NetworkAccess}, Answer{}, events.AccountRefused},
		{"the domain's client token account is no installation account", Question{Client: events.Legacy, Run: administrative, Content: dp, InstallationAccount: account, AccountKind: events.ClientTokenDomain}, Answer{}, events.AccountRefused},
		{"an unknown kind of account is refused", Question{Client: events.Legacy, Run: administrative, Content: dp, InstallationAccount: account, AccountKind: "other"}, Answer{}, events.AccountRefused},
		{"a user's program has no installation account", Question{Client: events.Legacy, Run: user, Content: dp, InstallationAccount: account}, Answer{}, events.ContextUnsupported},
		{"a user's program has no installation account on advanced clients either", Question{Client: events.Advanced, Run: user, Content: external, InstallationAccount: account}, Answer{}, events.ContextUnsupported},
		{"an unknown client kind is refused", Question{Client: "other", Run: administrative, Content: dp}, Answer{}, events.ContextUnsupported},
		{"no client kind is refused", Question{Run: user, Content: dp}, Answer{}, events.ContextUnsupported},
		{"an unknown run mode is refused", Question{Client: events.Legacy, Run: "root", Content: dp}, Answer{}, events.ContextUnsupported},
		{"no run mode is refused", Question{Client: events.Advanced, Content: dp}, Answer{}, events.ContextUnsupported},
		{"an unknown place is refused", Question{Client: events.Advanced, Run: administrative, Content: "cd"}, Answer{}, events.ContextUnsupported},
		{"no place is refused", Question{Client: events.Legacy, Run: user}, Answer{}, events.ContextUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, refused := Decide(c.q)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if (refused != nil) != (c.no != "") || refused != nil && (refused.Reason != c.no || refused.Error() == "") {
				t.Errorf("refusal %+v, want %q", refused, c.no)
			}
		})
	}
}

func TestARefusedAccountIsNamedWithItsKind(t *testing.T) {
	_, refused := Decide(Question{Client: events.Legacy, Run: events.RunAdministrative, Content: OnDP, InstallationAccount: "corp-reader", AccountKind: events.NetworkAccess})
	if refused == nil || !strings.Contains(refused.Text, "corp-reader") || !strings.Contains(refused.Text, "network-access") {
		t.Errorf("got %+v", refused)
	}
}

func TestWhoRunsHasARunner(t *testing.T) {
	got := map[Who]string{}
	for _, w := range []Who{Nobody, Agent, User, System, NetworkAccess, ClientToken, DomainToken, Installation, "other"} {
		got[w] = w.Runner()
	}
	want := map[Who]string{Nobody: "", Agent: "", User: "user", System: "system", NetworkAccess: "", ClientToken: "token", DomainToken: "token", Installation: "installation", "other": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// question draws questions, also ones that nobody should ask.
func question(t *rapid.T) Question {
	return Question{
		Client:              rapid.SampledFrom([]events.ClientKind{events.Advanced, events.Legacy, events.Advanced, events.Legacy, "", "other"}).Draw(t, "client"),
		Run:                 rapid.SampledFrom([]events.RunMode{events.RunUser, events.RunAdministrative, events.RunAdministrative, "", "root"}).Draw(t, "run"),
		Content:             rapid.SampledFrom([]Place{OnDP, External, OnDP, External, "", "cd"}).Draw(t, "content"),
		InstallationAccount: rapid.SampledFrom([]string{"", "corp-installer"}).Draw(t, "account"),
		AccountKind:         rapid.SampledFrom([]events.AccountKind{"", events.NetworkAccess, events.SoftwareInstallation, events.ClientTokenDomain, "other"}).Draw(t, "kind"),
		DomainController:    rapid.Bool().Draw(t, "controller"),
	}
}

func TestRulesThatNeverBend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := question(t)
		a, refused := Decide(q)
		if again, _ := Decide(q); again != a {
			t.Fatalf("%+v: two answers, %+v and %+v", q, a, again)
		}
		if refused != nil {
			if a != (Answer{}) || !refused.Reason.Known() || refused.Reason == events.NoReason || refused.Text == "" {
				t.Fatalf("%+v: answer %+v, refusal %+v", q, a, refused)
			}
			return
		}
		for broken, is := range map[string]bool{
			"the network access account executes":                               a.Executor == NetworkAccess,
			"the executor has no runner":                                        a.Executor.Runner() == "",
			"nobody reads":                                                      a.Reader == Nobody,
			"an account is needed to read from a distribution point":            q.Content == OnDP && a.Reader != Agent,
			"the agent reads an external source by itself":                      q.Content == External && a.Reader == Agent,
			"somebody who is no legacy client's account is elevated":            a.Elevated && (q.Client != events.Legacy || a.Executor == User || a.Executor == System),
			"a legacy client's account runs without rights":                     !a.Elevated && a.Executor != User && a.Executor != System,
			"a user's program runs by another":                                  (q.Run == events.RunUser) != (a.Executor == User),
			"a client token account is met on the network":                      a.Network == ClientToken || a.Network == DomainToken,
			"an account of another kind executes":                               a.Executor == Installation && q.AccountKind != "" && q.AccountKind != events.SoftwareInstallation,
			"the domain's account is used beside domain controllers":            a.Executor == DomainToken && !q.DomainController,
			"a local account is used on a domain controller":                    a.Executor == ClientToken && q.DomainController,
			"an account that was not given is used":                             q.InstallationAccount == "" && slices.Contains([]Who{a.Reader, a.Executor, a.Network}, Installation),
			"an account is ignored without a word":                              (q.InstallationAccount != "" && a.Executor != Installation) != (a.Note != ""),
			"the client token account reads or executes what needs the network": q.Content == External && (a.Executor == ClientToken || a.Executor == DomainToken),
		} {
			if is {
				t.Fatalf("%s: %+v gives %+v", broken, q, a)
			}
		}
	})
}
