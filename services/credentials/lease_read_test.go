package credentials

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/lease"
	"chandler/events/order"
)

const hello = "smb://files.example/software/hello"

// advanced is a machine that an administrator made an advanced client; its facts name a domain, "": none.
func (l *lender) advanced(domain string) *machine {
	l.t.Helper()
	l.n++
	k := l.token(fmt.Sprintf("advanced-%d", l.n), 0)
	m := l.machine(fmt.Sprintf("ws-%d", l.n))
	m.domain = domain
	m.want(m.enrol(k), "")
	return m
}

// readWish is of an advanced client for the network access account, by a new order of a program that needs a resource.
func (l *lender) readWish(m *machine) *wish {
	l.t.Helper()
	w := l.wish(m)
	w.order.InstallationAccount, w.order.Resources = "", []string{hello}
	w.st.Account, w.st.Kind, w.st.Purpose, w.st.Resource = "", events.NetworkAccess, events.LeaseToRead, hello
	return w
}

// legacyWish is of a legacy client for the installation account.
func (l *lender) legacyWish(m *machine) *wish {
	l.t.Helper()
	w := l.readWish(m)
	w.order.InstallationAccount, w.st.Account, w.st.Kind = "corp-installer", "corp-installer", ""
	return w
}

// set an account of kind network access.
func (l *lender) set(name string, change ...func(*events.AccountRequest)) events.AccountNotice {
	l.t.Helper()
	r := events.AccountRequest{Account: name, Kind: events.NetworkAccess, User: `EXAMPLE\` + name, Resources: []string{"smb://files.example/software"}, Secret: []byte(secret)}
	for _, c := range change {
		c(&r)
	}
	set, err := ask(l.story, "ada", events.AccountSetCall, r)
	if err != nil {
		l.t.Fatal(err)
	}
	return set
}

func reaching(resources ...string) func(*events.AccountRequest) {
	return func(r *events.AccountRequest) { r.Resources = resources }
}

func forCollections(names ...string) func(*events.AccountRequest) {
	return func(r *events.AccountRequest) { r.Collections = names }
}

func inDomain(name string) func(*events.AccountRequest) {
	return func(r *events.AccountRequest) { r.Domain = name }
}

// denied asks and wants a denial that is audited.
func (w *wish) denied(reason events.Reason, says ...string) {
	w.l.t.Helper()
	a, err := w.ask()
	if err != nil || !a.Denied || a.Grant != nil || a.Reason != reason {
		w.l.t.Errorf("answer %+v, %v; want %s", a, err, reason)
		return
	}
	for _, s := range says {
		if !strings.Contains(a.Why, s) {
			w.l.t.Errorf("denied with %q, want %q", a.Why, s)
		}
	}
	eventstest.ExpectExactly(w.l.t, w.l.admin, events.LeaseDenied, func(e events.Event[events.LeaseNotice]) bool {
		return e.Data.Agent == w.m.id && e.Data.Job == w.st.Job && e.Data.Reason == reason && e.Data.Why == a.Why
	}, 1)
}

func TestAnAdvancedClientReadsByTheNetworkAccessAccountThatIsChosenForIt(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	w := l.readWish(l.advanced("")).offer(1)
	first, got := w.granted()
	if got != secret || first.Account != "corp-reader" || first.Kind != events.NetworkAccess || first.Resource != hello || first.Purpose != events.LeaseToRead || first.Method != "" {
		t.Errorf("granted %+v", first)
	}
	// What lies below, however it is written, is of the same lease.
	for _, below := range []string{hello + "/setup.exe", `\\FILES.example\software\Hello\setup.exe`} {
		w.again().st.Resource = below
		if g, got := w.granted(); g.Lease != first.Lease || got != secret {
			t.Errorf("%s: granted %+v", below, g)
		}
	}
	if n := leases(l); n != 1 {
		t.Errorf("%d leases are kept", n)
	}
	asked := eventstest.ExpectExactly(t, l.admin, events.CredentialRequested, nil, 3)
	if n := asked[0].Data; n.Agent != w.m.id || n.Job != w.st.Job || n.Kind != events.NetworkAccess || n.Resource != hello || n.Nonce == "" || n.Lease != "" || n.Order != w.st.Order {
		t.Errorf("told of the request: %+v", n)
	}
	for _, e := range eventstest.ExpectExactly(t, l.admin, events.CredentialLeased, nil, 3) {
		if e.Data.Resource != hello || e.Data.Account != "corp-reader" || e.Data.Version != 1 {
			t.Errorf("told of the lease: %+v", e.Data)
		}
	}
	l.leaks()
}

func TestALegacyClientReadsByItsInstallationAccountOrNotAtAll(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	m := l.member()
	if g, got := l.legacyWish(m).offer(1).granted(); g.Account != "corp-installer" || got != secret || g.Purpose != events.LeaseToRead {
		t.Errorf("granted %+v", g)
	}
	none := l.legacyWish(m)
	none.order.InstallationAccount = ""
	none.offer(1).denied(events.NoNetworkIdentity, "client token account", "installation-account")
	byKind := l.legacyWish(m)
	byKind.st.Account, byKind.st.Kind = "", events.NetworkAccess
	byKind.offer(1).denied(events.CredentialDenied, "legacy client")
	another := l.legacyWish(m)
	another.st.Account = "corp-other"
	another.offer(1).denied(events.CredentialDenied, "does not name account corp-other")
	reader := l.legacyWish(m)
	reader.order.InstallationAccount, reader.st.Account = "corp-reader", "corp-reader"
	reader.offer(1).denied(events.AccountRefused, "must not run programs")
	l.set("corp-installer", func(r *events.AccountRequest) { r.Kind = events.SoftwareInstallation }, reaching("smb://files.example/other"))
	l.legacyWish(m).offer(1).denied(events.CredentialDenied, "corp-installer does not cover", `\\files.example\software\hello`)
}

func TestTheNetworkAccessAccountIsChosenByResourceDomainAndCollection(t *testing.T) {
	for name, c := range map[string]struct {
		accounts func(*lender)
		want     string
		reason   events.Reason
		says     []string
	}{
		"the longest resource wins": {func(l *lender) {
			l.set("wide", forCollections("all"), inDomain("example"))
			l.set("close", reaching(hello))
			l.set("others", reaching(hello), forCollections("servers"))
		}, "close", "", nil},
		"two that are equal are never tried in turn": {func(l *lender) { l.set("one"); l.set("two"); l.set("far", reaching("smb://files.example/other")) }, "",
			events.CredentialDenied, []string{"accounts one, two serve", "none is tried"}},
		"there is none": {func(*lender) {}, "", events.NetworkAccessAccountMissing,
			[]string{`covers \\files.example\software\hello`}},
		"there is one for a part only": {func(l *lender) { l.set("part", reaching(hello+"/setup.exe")) }, "", events.NetworkAccessAccountMissing, []string{"covers"}},
		"there are only ones for others": {func(l *lender) {
			l.set("elsewhere", inDomain("other"))
			l.set("servers-only", forCollections("servers"))
		}, "", events.NetworkAccessAccountMissing,
			[]string{"account elsewhere is for machines of domain other only, and this one is of example", "account servers-only is for deployments to servers only"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLender(t)
			c.accounts(l)
			w := l.readWish(l.advanced("example")).offer(1)
			if c.want == "" {
				w.denied(c.reason, c.says...)
				return
			}
			if g, _ := w.granted(); g.Account != c.want {
				t.Errorf("granted %s, want %s", g.Account, c.want)
			}
		})
	}
}

func TestReadsThatAreDenied(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader", reaching("smb://files.example/software", "https://mirror.example/Debian"))
	other := l.advanced("")
	m := l.advanced("")
	for name, c := range map[string]struct {
		prepare func(*wish)
		says    string
	}{
		"another agent's job":                {func(w *wish) { w.st.Job = events.JobID(w.order.Deployment, 1, other.id, 0, "") }, "is not one of deployment"},
		"another agent's key":                {func(w *wish) { w.seed = other.seed }, "not signed by the agent's enrolled key"},
		"a finished job":                     {func(w *wish) { w.finish() }, "has ended"},
		"a cancelled job":                    {func(w *wish) { w.speak(events.Cancelled) }, "has ended"},
		"a stopped job":                      {func(w *wish) { w.withdraw() }, "was stopped"},
		"a sibling":                          {func(w *wish) { w.st.Resource = "smb://files.example/software/other" }, "the signed order does not name it"},
		"the folder above":                   {func(w *wish) { w.st.Resource = "smb://files.example/software" }, "does not name it"},
		"a name that begins in the same way": {func(w *wish) { w.st.Resource = hello + "2" }, "does not name it"},
		"a way up":                           {func(w *wish) { w.st.Resource = hello + "/../other" }, "does not name it"},
		"a way up that is encoded":           {func(w *wish) { w.st.Resource = hello + "/%2e%2e/other" }, "does not name it"},
		"another port":                       {func(w *wish) { w.st.Resource = "smb://files.example:446/software/hello" }, "does not name it"},
		"another host":                       {func(w *wish) { w.st.Resource = "smb://evil.example/software/hello" }, "does not name it"},
		"another scheme":                     {func(w *wish) { w.st.Resource = "file://files.example/software/hello" }, "does not name it"},
		"something that is no address":       {func(w *wish) { w.st.Resource = "smb://u:" + secret + "@files.example/x" }, "an address that cannot be read"},
		"a sibling by case where it matters": {func(w *wish) { w.st.Resource = "https://mirror.example/debian/hello" }, "does not name it"},
		"an account by its name":             {func(w *wish) { w.st.Account, w.st.Kind = "corp-reader", "" }, "asks for another"},
		"an account of another kind":         {func(w *wish) { w.st.Kind = events.ClientTokenDomain }, "asks for another"},
		"a job of the logged-on user":        {func(w *wish) { w.order.Run = events.RunUser; w.st.Order = ""; w.offer(1) }, "logged-on user"},
		"an account to run programs by":      {func(w *wish) { w.st.Purpose, w.st.Resource = events.LeaseToExecute, "" }, "advanced client"},
	} {
		t.Run(name, func(t *testing.T) {
			w := l.readWish(m)
			w.order.Resources = []string{"https://mirror.example/Debian/hello", hello}
			w.offer(1)
			if _, got := w.granted(); got != secret {
				t.Fatal("the wish is a bad one from the beginning")
			}
			c.prepare(w.again())
			w.denied(events.CredentialDenied, c.says)
			l.clock.pass(6 * leaseEvery)
		})
	}
}

func TestAReadThatIsSentAgainOrTakenByAnotherIsOfNoUse(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	w := l.readWish(l.advanced("")).offer(1)
	r := w.request()
	first, err := l.service.lease(t.Context(), w.m.id, r)
	if err != nil || first.Grant == nil {
		t.Fatalf("answer %+v, %v", first, err)
	}
	if a, err := l.service.lease(t.Context(), w.m.id, r); err != nil || !a.Denied || !strings.Contains(a.Why, "sent again") {
		t.Errorf("the same request: %+v, %v", a, err)
	}
	thief := l.readWish(l.advanced(""))
	if a, err := l.service.lease(t.Context(), thief.m.id, r); err != nil || !a.Denied {
		t.Errorf("another agent: %+v, %v", a, err)
	}
	if got, err := thief.key.Open(w.st, *first.Grant, l.clock.Now()); err == nil {
		t.Errorf("another agent opens %q", got)
	}
	if got, err := w.key.Open(w.st, *first.Grant, first.Grant.Expires); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("after its end it opens to %q, %v", got, err)
	}
	eventstest.ExpectExactly(t, l.admin, events.LeaseDenied, nil, 2)
	eventstest.ExpectExactly(t, l.admin, events.CredentialRequested, nil, 1)
	l.clock.pass(6 * time.Minute) // the nonce is forgotten by the clock, and so is the request
	if a, err := l.service.lease(t.Context(), w.m.id, r); err != nil || !a.Denied || !strings.Contains(a.Why, "sent again, or the clock") {
		t.Errorf("much later: %+v, %v", a, err)
	}
}

func TestATokenWithoutAUserIsLentWithItsMethod(t *testing.T) {
	l := newLender(t)
	const token = "t0ken-" + secret
	l.set("mirror-token", reaching("https://mirror.example/debian"), func(r *events.AccountRequest) { r.Method, r.User, r.Secret = events.ByBearer, "", []byte(token) })
	w := l.readWish(l.advanced(""))
	w.order.Resources, w.st.Resource = []string{"https://mirror.example/debian/pool"}, "https://mirror.example/debian/pool"
	if g, got := w.offer(1).granted(); g.Method != events.ByBearer || g.User != "" || got != token {
		t.Errorf("granted %+v", g)
	}
	if _, err := bus.Request(t.Context(), l.admin, "ada", events.AccountRotate, events.AccountRotation{Account: "mirror-token", Secret: []byte("two words")}); err == nil {
		t.Error("a rotation takes what is no token")
	}
}

// BenchmarkReadLease is a lease asked for and opened, with every check and event of it, against signing and sealing alone,
// which is what it cannot do without.
func BenchmarkReadLease(b *testing.B) {
	l := newLender(b)
	l.set("corp-reader")
	var wishes []*wish
	for range 64 {
		wishes = append(wishes, l.readWish(l.advanced("")).offer(1))
	}
	b.Run("whole", func(b *testing.B) {
		for i := range b.N {
			if i > 0 && i%len(wishes) == 0 {
				b.StopTimer()
				l.clock.pass(leaseEvery) // nobody asks too often
				b.StartTimer()
			}
			wishes[i%len(wishes)].again().granted()
		}
	})
	b.Run("seal", func(b *testing.B) {
		pair, err := nkeys.FromSeed(wishes[0].m.seed)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			w := wishes[0].again()
			r, err := lease.Sign(w.st, nil, pair.Sign)
			if err != nil {
				b.Fatal(err)
			}
			st, err := lease.Verify(r, wishes[0].m.key)
			if err != nil {
				b.Fatal(err)
			}
			g := events.LeaseGrant{Lease: "l", Agent: st.Agent, Job: st.Job, Account: "corp-reader", Kind: events.NetworkAccess, User: "reader", Version: 1, Resource: st.Resource, Purpose: st.Purpose, Expires: l.clock.Now().Add(leaseLife)}
			if g, err = lease.Seal(st, g, []byte(secret)); err != nil {
				b.Fatal(err)
			}
			if _, err := w.key.Open(st, g, l.clock.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestWhatRunsFirstIsLentItsOwnAccountForItsOwnResources(t *testing.T) {
	const runtime = "smb://files.example/software/runtime"
	step := func(change ...func(*order.Step)) func(*wish) {
		return func(w *wish) {
			s := order.Step{Why: order.StepFirst, Package: "runtime", Version: "4.2", Manifest: events.DigestOf([]byte("r")), Program: "install", Run: events.RunAdministrative, InstallationAccount: "corp-runtime", Resources: []string{runtime}}
			for _, c := range change {
				c(&s)
			}
			w.order.First, w.st.Resource = []order.Step{s}, runtime+"/setup.exe"
		}
	}
	plain := func(s *order.Step) { s.InstallationAccount = "" }
	asUser := func(s *order.Step) { s.Run = events.RunUser }
	for name, c := range map[string]struct {
		legacy  bool
		change  func(*wish)
		account string // that is asked for, of a legacy client
		runs    bool   // asked for to run by, not to read
		want    string
		reason  events.Reason
	}{
		"an advanced client's network access account reads for it":       {change: step(plain), want: "corp-reader"},
		"also where the order's own program is the user's":               {change: func(w *wish) { step(plain)(w); w.order.Run, w.order.Resources = events.RunUser, nil }, want: "corp-reader"},
		"not where the step is the user's":                               {change: step(plain, asUser), reason: events.CredentialDenied},
		"what no program names is not read":                              {change: func(w *wish) { step(plain)(w); w.st.Resource = "smb://files.example/software/other" }, reason: events.CredentialDenied},
		"a legacy client's account of the step reads for it":             {legacy: true, change: step(), account: "corp-runtime", want: "corp-runtime"},
		"the account of the order's own program does not":                {legacy: true, change: step(), account: "corp-installer", reason: events.CredentialDenied},
		"and that of the step does not read for the order's own program": {legacy: true, change: func(w *wish) { step()(w); w.st.Resource = hello }, account: "corp-runtime", reason: events.CredentialDenied},
		"a step without an account has no identity":                      {legacy: true, change: step(plain), account: "corp-installer", reason: events.NoNetworkIdentity},
		"a step runs by its account":                                     {legacy: true, runs: true, change: step(), account: "corp-runtime", want: "corp-runtime"},
		"and the order's own program by its own":                         {legacy: true, runs: true, change: step(), account: "corp-installer", want: "corp-installer"},
		"a step that is the user's runs by none":                         {legacy: true, runs: true, change: step(asUser), account: "corp-runtime", reason: events.CredentialDenied},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLender(t)
			l.set("corp-reader")
			l.account("corp-runtime", events.SoftwareInstallation, secret)
			w := l.readWish(l.advanced(""))
			if c.legacy {
				w = l.legacyWish(l.member())
				w.st.Account = c.account
			}
			c.change(w)
			if c.runs {
				w.st.Purpose, w.st.Resource = events.LeaseToExecute, ""
			}
			w.offer(1)
			if c.reason != "" {
				w.denied(c.reason)
				return
			}
			if g, got := w.granted(); g.Account != c.want || got != secret {
				t.Errorf("granted %+v", g)
			}
		})
	}
}
