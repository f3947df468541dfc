package external

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/fetch"
	"chandler/agent/identity"
	"chandler/agent/lease"
	"chandler/agent/source"
	"chandler/events"
)

const secret = "Pl4nted-s3cret-77aa"

// share is a source that lets one user in and knows some files.
type share struct {
	mu     sync.Mutex
	logons []string // "user secret" of every attempt
	good   string   // the secret that is right
	files  map[string]string
	denied string // address of a file that the user may not read
	pause  chan struct{}
	opened []*file
	folder bool // everything is one
}

func (s *share) Open(ctx context.Context, address string, l source.Login) (source.Object, error) {
	s.mu.Lock()
	s.logons = append(s.logons, l.User+" "+string(l.Secret))
	pause := s.pause
	s.mu.Unlock()
	if pause != nil {
		<-pause
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	text, ok := s.files[address]
	switch {
	case !l.Nobody() && string(l.Secret) != s.good:
		return nil, &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("unknown user name or bad password", source.LogonRefused)}
	case address == s.denied:
		return nil, &source.Error{Reason: events.NetworkAccessDenied, Answer: source.Answer("access denied", source.AccessDenied)}
	case !ok:
		return nil, &source.Error{Reason: events.SourceNotFound, Answer: source.Answer("no such file", source.FileNotFound)}
	}
	f := &file{text: text, folder: s.folder}
	s.opened = append(s.opened, f)
	return f, nil
}

func (s *share) tried() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.logons...)
}

type file struct {
	text   string
	closed bool
	folder bool
}

func (f *file) Info() source.Info {
	return source.Info{Name: "x", Size: int64(len(f.text)), Folder: f.folder}
}
func (f *file) ReadAt(_ context.Context, p []byte, at int64) (int, error) {
	return strings.NewReader(f.text).ReadAt(p, at)
}
func (f *file) List(context.Context) ([]source.Info, error) { return nil, errors.New("no folder") }
func (f *file) Close() error                                { f.closed = true; return nil }

// world is a Reader with everything around it.
type world struct {
	*share
	now      time.Time
	asked    []string // resources
	deny     error
	version  int
	scheme   string // of what can be read
	given    []*lease.Lease
	accesses []events.Access
	leases   []string
	logins   Logins
}

func newWorld() *world {
	return &world{now: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC), version: 1, scheme: "smb",
		share: &share{good: secret, files: map[string]string{"smb://files/apps/a": "content", "smb://files/apps/b": "other", "smb://files/secret": "x"}}}
}

func (w *world) reader(who identity.Who) *Reader {
	o := Options{Who: who, Resources: []string{"smb://files/apps", "smb://files/other"}, Sources: map[string]source.Source{w.scheme: w.share}, Logins: &w.logins,
		Clock: func() time.Time { return w.now }, Told: func(a events.Access, l string) { w.accesses, w.leases = append(w.accesses, a), append(w.leases, l) }}
	if who == identity.NetworkAccess {
		o.Lend = func(_ context.Context, resource string) (*lease.Lease, error) {
			w.asked = append(w.asked, resource)
			if w.deny != nil {
				return nil, w.deny
			}
			l := &lease.Lease{ID: fmt.Sprint("lease", len(w.given)), Account: "corp", Kind: events.NetworkAccess, User: `EXAMPLE\reader`, Version: w.version, Secret: []byte(secret), Expires: w.now.Add(10 * time.Minute)}
			w.given = append(w.given, l)
			return l, nil
		}
	}
	return New(o)
}

func reasonOf(t *testing.T, err error) events.Reason {
	t.Helper()
	if err == nil {
		return ""
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Resource == "" || e.Identity == "" || strings.Contains(err.Error(), secret) {
		t.Fatalf("not an error that says who tried what: %v", err)
	}
	return e.Reason
}

func TestEachAccessHasOneIdentityAndOneReason(t *testing.T) {
	for name, c := range map[string]struct {
		who     identity.Who
		address string
		change  func(*world)
		want    events.Reason
		asked   int
		tried   []string
	}{
		"the network access account reads":      {identity.NetworkAccess, "smb://files/apps/a", nil, "", 1, []string{`EXAMPLE\reader ` + secret}},
		"and is refused a file":                 {identity.NetworkAccess, "smb://files/apps/b", func(w *world) { w.denied = "smb://files/apps/b" }, events.NetworkAccessDenied, 1, []string{`EXAMPLE\reader ` + secret}},
		"a file is not there":                   {identity.NetworkAccess, "smb://files/apps/none", nil, events.SourceNotFound, 1, []string{`EXAMPLE\reader ` + secret}},
		"the secret is wrong":                   {identity.NetworkAccess, "smb://files/apps/a", func(w *world) { w.good = "other" }, events.CredentialRejected, 1, []string{`EXAMPLE\reader ` + secret}},
		"what the order does not name":          {identity.NetworkAccess, "smb://files/secret", nil, events.CredentialDenied, 0, nil},
		"above what the order names":            {identity.NetworkAccess, "smb://files/app", nil, events.CredentialDenied, 0, nil},
		"nonsense":                              {identity.NetworkAccess, "nonsense", nil, events.SourceNotFound, 0, nil},
		"no account covers it":                  {identity.NetworkAccess, "smb://files/apps/a", func(w *world) { w.deny = &lease.Denied{Reason: events.NetworkAccessAccountMissing, Why: "none"} }, events.NetworkAccessAccountMissing, 1, nil},
		"the service is not heard":              {identity.NetworkAccess, "smb://files/apps/a", func(w *world) { w.deny = errors.New("no responders") }, events.CredentialUnavailable, 1, nil},
		"nobody has no identity":                {identity.Nobody, "smb://files/apps/a", nil, events.NoNetworkIdentity, 0, nil},
		"the user reads by means of its own":    {identity.User, "smb://files/apps/a", nil, "", 0, []string{" "}},
		"an installation account without asker": {identity.Installation, "smb://files/apps/a", nil, events.CredentialUnavailable, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			if c.change != nil {
				c.change(w)
			}
			r := w.reader(c.who)
			defer r.Close()
			o, err := r.Open(t.Context(), c.address, events.AccessContent)
			if got := reasonOf(t, err); got != c.want {
				t.Errorf("reason %q: %v", got, err)
			}
			if o != nil {
				defer o.Close()
			}
			if diff := cmp.Diff(c.tried, w.tried()); diff != "" || len(w.asked) != c.asked {
				t.Errorf("asked %d times; tried: %s", len(w.asked), diff)
			}
			if len(w.accesses) != 1 || w.accesses[0].Reason != c.want || w.accesses[0].When != events.AccessContent {
				t.Errorf("told %+v", w.accesses)
			}
		})
	}
}

func TestOneLeaseServesAResourceUntilItNearsItsEnd(t *testing.T) {
	w := newWorld()
	r := w.reader(identity.NetworkAccess)
	for range 3 {
		for _, name := range []string{"a", "b"} {
			o, err := r.Open(t.Context(), "smb://files/apps/"+name, events.AccessRun)
			if err != nil {
				t.Fatal(err)
			}
			o.Close()
		}
	}
	if diff := cmp.Diff([]string{"smb://files/apps"}, w.asked); diff != "" {
		t.Error(diff)
	}
	w.now = w.now.Add(9*time.Minute + time.Second)
	if o, err := r.Open(t.Context(), "smb://files/apps/a", events.AccessRun); err != nil || len(w.asked) != 2 {
		t.Errorf("asked %d times, %v", len(w.asked), err)
	} else {
		o.Close()
	}
	if w.given[0].Secret != nil {
		t.Error("the first lease's secret is still there")
	}
	if len(w.accesses) != 1 {
		t.Errorf("told %d times of the same success", len(w.accesses))
	}
	r.Close()
	if w.given[1].Secret != nil {
		t.Error("after the end the secret is still there")
	}
	if _, err := r.Open(t.Context(), "smb://files/apps/a", events.AccessRun); err == nil {
		t.Error("it reads after its end")
	}
}

func TestADeniedLeaseIsNotAskedForAgain(t *testing.T) {
	w := newWorld()
	w.deny = &lease.Denied{Reason: events.CredentialDenied, Why: "no"}
	r := w.reader(identity.NetworkAccess)
	defer r.Close()
	for range 3 {
		if _, err := r.Open(t.Context(), "smb://files/apps/a", events.AccessRun); reasonOf(t, err) != events.CredentialDenied {
			t.Error(err)
		}
	}
	if len(w.asked) != 1 || len(w.accesses) != 1 {
		t.Errorf("asked %d times, told %d", len(w.asked), len(w.accesses))
	}
}

func TestAWrongSecretIsShownToAHostOnceByTheWholeAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.good = "another"
		w.share.pause = make(chan struct{})
		var all sync.WaitGroup
		var mu sync.Mutex
		for n := range 8 {
			all.Go(func() {
				mu.Lock() // of the fake lender
				r := w.reader(identity.NetworkAccess)
				mu.Unlock()
				r.Lend = func(context.Context, string) (*lease.Lease, error) {
					return &lease.Lease{ID: "l", Account: "corp", User: "reader", Version: 1, Secret: []byte(secret), Expires: w.now.Add(time.Hour)}, nil
				}
				r.Told = func(events.Access, string) {}
				defer r.Close()
				if _, err := r.Open(t.Context(), fmt.Sprint("smb://files/apps/", n), events.AccessContent); reasonOf(t, err) != events.CredentialRejected {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := len(w.tried()); n != 1 {
			t.Errorf("%d readers try at once", n)
		}
		close(w.share.pause)
		all.Wait()
		if n := len(w.tried()); n != 1 {
			t.Errorf("tried %d times", n)
		}

		w.share.pause = nil
		r := w.reader(identity.NetworkAccess)
		if _, err := r.Borrow(t.Context(), "smb://files/apps/a", events.AccessRun); reasonOf(t, err) != events.CredentialRejected {
			t.Errorf("a supervisor gets it: %v", err)
		}
		w.good, w.version = secret, 2
		again := w.reader(identity.NetworkAccess)
		if _, err := again.Open(t.Context(), "smb://files/apps/a", events.AccessRun); err != nil {
			t.Errorf("the next version is not tried: %v", err)
		}
		w.version = 1
		w.now = w.now.Add(forgetAfter)
		last := w.reader(identity.NetworkAccess)
		if _, err := last.Open(t.Context(), "smb://files/apps/a", events.AccessRun); err != nil {
			t.Errorf("it is not tried again after a long time: %v", err)
		}
		for _, r := range []*Reader{r, again, last} {
			r.Close()
		}
	})
}

func TestWhatOthersHeardOfASecretCountsToo(t *testing.T) {
	w := newWorld()
	w.logins.Heard(events.Access{Resource: "smb://files/apps/a", Account: "corp", User: `EXAMPLE\reader`, Version: 1, Reason: events.CredentialRejected, Answer: source.Answer("no", source.LogonRefused), At: w.now})
	r := w.reader(identity.NetworkAccess)
	defer r.Close()
	if _, err := r.Open(t.Context(), "smb://files/apps/a", events.AccessRun); reasonOf(t, err) != events.CredentialRejected || len(w.tried()) != 0 {
		t.Errorf("tried %q, %v", w.tried(), err)
	}
	w.logins.Heard(events.Access{Resource: "smb://files/apps", Account: "corp", User: `EXAMPLE\reader`, Version: 1, At: w.now})
	if _, err := r.Open(t.Context(), "smb://files/apps/a", events.AccessRun); err != nil {
		t.Error(err)
	}
}

func TestASecretOfADomainThatOneHostCalledWrongIsWrongAtItsOtherHosts(t *testing.T) {
	for name, c := range map[string]struct {
		user  string
		taken string // by a host, before
		bad   string // who calls it wrong
		shut  map[string]bool
	}{
		"a user of a domain":                      {user: `EXAMPLE\\reader`, bad: "a", shut: map[string]bool{"a": true, "b": true}},
		"a user of a domain, by another spelling": {user: "reader@example", bad: "a", shut: map[string]bool{"a": true, "b": true}},
		"which another host has taken":            {user: `EXAMPLE\\reader`, taken: "b", bad: "a", shut: map[string]bool{"a": true}},
		"a user of each host":                     {user: "reader", bad: "a", shut: map[string]bool{"a": true}},
		"and a host that took it before":          {user: `EXAMPLE\\reader`, taken: "a", bad: "a", shut: map[string]bool{"a": true, "b": true}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			heard := func(host string, answer string) {
				w.logins.Heard(events.Access{Resource: "smb://" + host + "/x", Account: "corp", User: c.user, Version: 1, Answer: answer, At: w.now})
			}
			if c.taken != "" {
				heard(c.taken, "")
			}
			heard(c.bad, source.Answer("no", source.LogonRefused))
			for _, host := range []string{"a", "b"} {
				if shut := !w.logins.refusedAt(loginAt("corp", c.user, 1, host), w.now).IsZero(); shut != c.shut[host] {
					t.Errorf("shut for %s: %v", host, shut)
				}
			}
			if !w.logins.refusedAt(loginAt("corp", c.user, 2, c.bad), w.now).IsZero() {
				t.Error("the next version is shut too")
			}
		})
	}
}

func TestAWrongSecretIsTriedOnceHoweverManyProcessesBorrowIt(t *testing.T) {
	w := newWorld()
	w.good = "another"
	r := w.reader(identity.NetworkAccess)
	defer r.Close()
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if loan, err := r.Borrow(t.Context(), "smb://files/apps", events.AccessRun); reasonOf(t, err) != events.CredentialRejected || loan != nil {
				t.Errorf("lent %v, %v", loan, err)
			}
		})
	}
	all.Wait()
	if n := len(w.tried()); n != 1 || len(w.accesses) != 0 {
		t.Errorf("tried %d times, and told %+v, which whoever borrows does", n, w.accesses)
	}
}

func TestASecretIsLentOnceItsHostTookIt(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world)
		want   events.Reason
	}{
		"who lets it read":           {nil, ""},
		"who denies the resource":    {func(w *world) { w.denied = "smb://files/apps" }, ""},
		"who finds nothing there":    {func(w *world) { delete(w.files, "smb://files/apps") }, ""},
		"who is not to be read here": {func(w *world) { w.scheme = "https" }, events.SourceUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.files["smb://files/apps"] = ""
			if c.change != nil {
				c.change(w)
			}
			r := w.reader(identity.NetworkAccess)
			defer r.Close()
			for range 2 {
				loan, err := r.Borrow(t.Context(), "smb://files/apps", events.AccessRun)
				if got := reasonOf(t, err); got != c.want {
					t.Fatalf("%q: %v", got, err)
				}
				if err == nil && (string(loan.Login.Secret) != secret || loan.Kind != events.NetworkAccess) {
					t.Errorf("lent %+v", loan.Access)
				}
			}
			if n := len(w.tried()); c.want == "" && n != 1 {
				t.Errorf("tried %d times here", n)
			}
			for _, f := range w.share.opened {
				if !f.closed {
					t.Error("what was tried is open still")
				}
			}
		})
	}
}

func TestWhatWaitsWhenAnotherFileFailsIsToldOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.share.pause = make(chan struct{})
		r := w.reader(identity.NetworkAccess)
		defer r.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		go r.Open(t.Context(), "smb://files/apps/none", events.AccessContent)
		synctest.Wait()
		var err error
		var all sync.WaitGroup
		all.Go(func() { _, err = r.Open(ctx, "smb://files/apps/a", events.AccessContent) })
		synctest.Wait()
		why := &source.Error{Reason: events.NetworkAccessDenied, Answer: "of another file"}
		cancel(why)
		all.Wait()
		if !errors.Is(err, why) || len(w.accesses) != 0 {
			t.Errorf("%v, told %+v", err, w.accesses)
		}
		close(w.share.pause)
		synctest.Wait()
	})
}

func TestAFileOfTheMachineIsNoTestOfAnAccount(t *testing.T) {
	w := newWorld()
	r := New(Options{Who: identity.NetworkAccess, Resources: []string{"file:///etc/passwd"}, Sources: map[string]source.Source{"file": w.share}})
	defer r.Close()
	if _, err := r.Open(t.Context(), "file:///etc/passwd", events.AccessTest); reasonOf(t, err) != events.SourceUnsupported || len(w.tried()) != 0 {
		t.Errorf("tried %q, %v", w.tried(), err)
	}
}

func TestAReferenceIsCheckedAndToldOfAsWhoReadIt(t *testing.T) {
	for name, c := range map[string]struct {
		digest string
		folder bool
		want   events.Reason
	}{
		"a file":                       {},
		"a file that is pinned":        {digest: events.DigestOf([]byte("content"))},
		"a file that is another":       {digest: events.DigestOf([]byte("x")), want: events.ContentChanged},
		"a folder where a file was to": {digest: events.DigestOf([]byte("x")), folder: true, want: events.ContentChanged},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.folder = c.folder
			r := w.reader(identity.NetworkAccess)
			defer r.Close()
			err := r.Check(t.Context(), events.Reference{URL: "smb://files/apps/a", SHA256: c.digest})
			if got := reasonOf(t, err); got != c.want {
				t.Fatalf("%q: %v", got, err)
			}
			last := w.accesses[len(w.accesses)-1]
			if last.Reason != c.want || last.Account != "corp" || last.When != events.AccessReference {
				t.Errorf("told %+v", last)
			}
			if !w.share.opened[0].closed {
				t.Error("still open")
			}
		})
	}
}

func TestBytesThatTheFetcherRefutesAreToldOf(t *testing.T) {
	w := newWorld()
	r := w.reader(identity.NetworkAccess)
	defer r.Close()
	if _, err := r.Open(t.Context(), "smb://files/apps/a", events.AccessContent); err != nil {
		t.Fatal(err)
	}
	err := r.Refuted(t.Context(), &fetch.Error{Reason: events.ContentChanged, Resource: "smb://files/apps/a", Answer: "the block at byte 0 does not match the manifest"})
	if reasonOf(t, err) != events.ContentChanged {
		t.Error(err)
	}
	if last := w.accesses[len(w.accesses)-1]; last.Reason != events.ContentChanged || last.Account != "corp" || w.leases[len(w.leases)-1] != "lease0" {
		t.Errorf("told %+v by %q", last, w.leases)
	}
	n := len(w.accesses)
	for _, other := range []error{nil, err, io.EOF, &fetch.Error{Reason: events.DiskFull}} {
		if got := r.Refuted(t.Context(), other); got != other || len(w.accesses) != n {
			t.Errorf("%v becomes %v", other, got)
		}
	}
}

func TestAWithdrawnLeaseClosesWhatWasOpenedByIt(t *testing.T) {
	w := newWorld()
	r := w.reader(identity.NetworkAccess)
	defer r.Close()
	if _, err := r.Open(t.Context(), "smb://files/apps/a", events.AccessRun); err != nil {
		t.Fatal(err)
	}
	if id := r.LeaseFor("smb://files/apps/b"); id != "lease0" {
		t.Errorf("lease %q", id)
	}
	r.Withdraw("another")
	if w.share.opened[0].closed {
		t.Error("closed for another lease")
	}
	r.Withdraw("lease0")
	if !w.share.opened[0].closed || w.given[0].Secret != nil {
		t.Error("still open, or the secret is still there")
	}
	w.deny = &lease.Denied{Reason: events.CredentialDenied, Why: "withdrawn"}
	if _, err := r.Open(t.Context(), "smb://files/apps/a", events.AccessRun); reasonOf(t, err) != events.CredentialDenied {
		t.Error(err)
	}
}

func TestContentIsReadFromAnOffsetAndNoOtherSizeThanWasPinned(t *testing.T) {
	w := newWorld()
	r := w.reader(identity.NetworkAccess)
	defer r.Close()
	body, err := Content{r}.Open(t.Context(), fetch.Ref{URL: "smb://files/apps/a", Size: 7}, 3)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); err != nil || string(got) != "tent" {
		t.Errorf("%q, %v", got, err)
	}
	body.Close()
	_, err = Content{r}.Open(t.Context(), fetch.Ref{URL: "smb://files/apps/a", Size: 8}, 0)
	e, ok := errors.AsType[*fetch.Error](err)
	if !ok || e.Reason != events.ContentChanged || e.Identity != string(identity.NetworkAccess) || e.Resource != `\\files\apps\a` {
		t.Errorf("%#v", err)
	}
	if got := reasonOf(t, err); got != events.ContentChanged || !w.share.opened[1].closed {
		t.Error("the access is lost, or the file still open")
	}
}
