package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/services/credentials/vault"
)

func TestAccountsGoInAndTheirSecretsNeverComeOut(t *testing.T) {
	s := newStory(t)
	r := s.running()
	set, err := ask(s, "ada", events.AccountSetCall, reader())
	if err != nil || set.Version != 1 || set.By != "ada" {
		t.Fatalf("set: %+v, %v", set, err)
	}
	eventstest.ExpectExactly(t, s.admin, events.AccountSet, nil, 1)
	set, err = ask(s, "ada", events.AccountSetCall, reader())
	if err != nil || set.Version != 2 {
		t.Fatalf("set again: %+v, %v", set, err)
	}
	told := eventstest.ExpectExactly(t, s.admin, events.AccountSet, nil, 2)[1].Data
	if diff := cmp.Diff(set, told); diff != "" {
		t.Errorf("told: %s", diff)
	}
	all, err := ask(s, "ada", events.AccountList, events.Nothing{})
	if err != nil || len(all.Accounts) != 1 {
		t.Fatalf("listed: %+v, %v", all, err)
	}
	if diff := cmp.Diff(set, all.Accounts[0].AccountNotice); diff != "" {
		t.Errorf("listed: %s", diff)
	}
	// A request that is refused quotes no secret either.
	bad := reader()
	bad.Resources = []string{"smb://reader:" + secret + "@files.example/x"}
	if _, err := ask(s, "ada", events.AccountSetCall, bad); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("refused: %v", err)
	}

	if len(storedAccount(t, r).Sealed) == 0 {
		t.Fatal("nothing is stored")
	}
	s.history("corp-reader", 1) // the secret of version 1 is gone
	if _, err := ask(s, "ada", events.AccountRemove, events.Named{Name: "corp-reader"}); err != nil {
		t.Fatal(err)
	}
	eventstest.ExpectExactly(t, s.admin, events.AccountRemoved, nil, 1)
	s.history("corp-reader", 1)
	if len(storedAccount(t, r).Sealed) != 0 {
		t.Error("the removed account still has a secret")
	}
	if all, err := ask(s, "ada", events.AccountList, events.Nothing{}); err != nil || len(all.Accounts) != 0 {
		t.Errorf("listed after the removal: %+v, %v", all, err)
	}
	set, err = ask(s, "ada", events.AccountSetCall, reader())
	if err != nil || set.Version != 3 {
		t.Errorf("a removed account begins its versions again: %+v, %v", set, err)
	}
	s.leaks()
}

func storedAccount(t testing.TB, r *Service) (a accountRecord) {
	t.Helper()
	if revision, err := r.accounts.load(t.Context(), "corp-reader", &a); err != nil || revision == 0 {
		t.Fatalf("the account is not stored: %v", err)
	}
	return a
}

// history checks how many values the bucket holds of a key.
func (s *story) history(key string, want int) {
	s.t.Helper()
	kv, err := s.admin.JetStream().KeyValue(s.t.Context(), events.BucketAccounts)
	if err != nil {
		s.t.Fatal(err)
	}
	all, err := kv.History(s.t.Context(), key)
	if err != nil || len(all) != want {
		s.t.Errorf("the bucket holds %d values of %s, %v", len(all), key, err)
	}
}

// leaks looks for the secret in everything that was stored, published or logged, as it is and encoded.
func (s *story) leaks() {
	s.t.Helper()
	var forms [][]byte
	forms = append(forms, []byte(secret))
	for offset := range 3 { // base64 depends on where the secret begins
		coded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", offset) + secret))
		forms = append(forms, []byte(coded[4:len(coded)-4]))
	}
	look := func(where string, data []byte) {
		for _, f := range forms {
			if bytes.Contains(data, f) {
				s.t.Errorf("the secret is in %s", where)
			}
		}
	}
	looked := 0
	for _, stream := range streamNames() {
		if _, err := s.admin.Replay(s.t.Context(), stream, ">", 1, func(m jetstream.Msg) error {
			looked++
			look("stream "+stream, m.Data())
			look("stream "+stream, []byte(fmt.Sprint(m.Headers())))
			return nil
		}); err != nil {
			s.t.Fatal(err)
		}
	}
	if looked < 5 {
		s.t.Errorf("only %d messages were looked at", looked)
	}
	s.log.mu.Lock()
	look("the log", s.log.buf.Bytes())
	if s.log.buf.Len() == 0 {
		s.t.Error("nothing was logged")
	}
	s.log.mu.Unlock()
	s.broker.Stop()
	for _, dir := range []string{s.broker.StoreDir(), s.dir} {
		if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			look(path, data)
			return err
		}); err != nil {
			s.t.Fatal(err)
		}
	}
}

func streamNames() (names []string) {
	for _, st := range events.Streams() {
		names = append(names, st.Name)
	}
	for _, b := range events.Buckets() {
		if !b.Objects {
			names = append(names, "KV_"+b.Name)
		}
	}
	return names
}

func TestAccountsThatAreRefused(t *testing.T) {
	s := newStory(t)
	s.running()
	if _, err := ask(s, "ada", events.AccountSetCall, reader()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*events.AccountRequest)
		want   error
		says   string
	}{
		"a name that is no token":              {func(r *events.AccountRequest) { r.Account = "corp.*" }, bus.ErrBadRequest, `"corp.*"`},
		"a kind nobody knows":                  {func(r *events.AccountRequest) { r.Kind = "admin" }, bus.ErrBadRequest, "network-access, software-installation or client-token-domain"},
		"no user, which would be a null login": {func(r *events.AccountRequest) { r.User = " " }, bus.ErrBadRequest, "needs a user"},
		"a user with a line break":             {func(r *events.AccountRequest) { r.User = "a\nb" }, bus.ErrBadRequest, "control characters"},
		"an empty secret":                      {func(r *events.AccountRequest) { r.Secret = nil }, bus.ErrBadRequest, "secret is empty"},
		"a secret that is too long":            {func(r *events.AccountRequest) { r.Secret = make([]byte, maxSecret+1) }, bus.ErrBadRequest, "longer than 65536"},
		"network access to nothing":            {func(r *events.AccountRequest) { r.Resources = nil }, bus.ErrBadRequest, "needs the resources"},
		"a client token account with resources": {func(r *events.AccountRequest) { r.Account, r.Kind = "token", events.ClientTokenDomain },
			bus.ErrBadRequest, "reaches no resources"},
		"a way to prove it that nobody knows": {func(r *events.AccountRequest) { r.Method = "kerberos" }, bus.ErrBadRequest, "password, bearer or client-certificate"},
		"a token for a share":                 {func(r *events.AccountRequest) { r.Method, r.Secret = events.ByBearer, []byte("t0ken") }, bus.ErrBadRequest, "for https alone"},
		"a token that runs programs": {func(r *events.AccountRequest) {
			r.Account, r.Kind, r.Method, r.Resources = "corp-installer", events.SoftwareInstallation, events.ByBearer, nil
		}, bus.ErrBadRequest, "runs programs"},
		"a token of two lines": {func(r *events.AccountRequest) {
			r.Method, r.Secret, r.Resources = events.ByBearer, []byte("t0ken\r\nHost: x"), []string{"https://mirror.example/x"}
		}, bus.ErrBadRequest, "visible ASCII"},
		"a certificate that is none": {func(r *events.AccountRequest) {
			r.Method, r.Resources = events.ByClientCertificate, []string{"https://mirror.example/x"}
		}, bus.ErrBadRequest, "both in PEM"},
		"a collection that is no token":     {func(r *events.AccountRequest) { r.Collections = []string{"a.>"} }, bus.ErrBadRequest, "collection"},
		"a domain of two words":             {func(r *events.AccountRequest) { r.Domain = "a b" }, bus.ErrBadRequest, "domain"},
		"a former secret kept for too long": {func(r *events.AccountRequest) { r.KeepOld = events.Duration(maxKeep + 1) }, bus.ErrBadRequest, "30 days"},
		"a client token account for some": {func(r *events.AccountRequest) {
			r.Account, r.Kind, r.Resources, r.Domain = "token", events.ClientTokenDomain, nil, "example"
		}, bus.ErrBadRequest, "every domain controller"},
		"too many resources": {func(r *events.AccountRequest) {
			r.Resources = slicesOf("smb://files.example/x", maxResources+1)
		}, bus.ErrBadRequest, "more than 64"},
		"another kind under the same name": {func(r *events.AccountRequest) { r.Kind = events.SoftwareInstallation }, bus.ErrConflict, "is of kind network-access"},
	} {
		t.Run(name, func(t *testing.T) {
			r := reader()
			c.change(&r)
			if _, err := ask(s, "ada", events.AccountSetCall, r); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %s", err, c.says)
			}
		})
	}
	if _, err := ask(s, "ada", events.AccountRemove, events.Named{Name: "absent"}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("removing an account that is not there: %v", err)
	}
	if _, err := ask(s, "ada", events.AccountRemove, events.Named{Name: "*"}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("removing everything: %v", err)
	}
	eventstest.ExpectExactly(t, s.admin, events.AccountSet, nil, 1)
}

func slicesOf(s string, n int) []string {
	return strings.Split(strings.Repeat(s+" ", n-1)+s, " ")
}

func TestResourcesAreKeptInTheirOneForm(t *testing.T) {
	for pattern, want := range map[string]string{ // "": it is refused
		"smb://files.example/software/*":        "smb://files.example/software",
		"smb://FILES.example:445/software/":     "smb://files.example/software",
		`\\files.example\software`:              "smb://files.example/software",
		`\\files.example\software\*`:            "",
		"smb://files.example/software/hello":    "smb://files.example/software/hello",
		"https://mirror.example:8443/debian/*":  "https://mirror.example:8443/debian",
		"s3://bucket/prefix/*":                  "s3://bucket/prefix",
		"oci://registry.example/team/app":       "oci://registry.example/team/app",
		"file://files.example/software":         "file://files.example/software",
		"smb://files.example/with%20space/a":    "smb://files.example/with%20space/a",
		"":                                      "",
		"files.example/software":                "",
		"http://mirror.example/debian/*":        "",
		"file:///etc/shadow":                    "",
		"file://localhost/etc/shadow":           "",
		"smb://*/software/*":                    "",
		"smb://files.example":                   "",
		"smb://files.example/*":                 "",
		"smb://files.example/soft*/x":           "",
		"smb://files.example/soft*":             "",
		"smb://files.example/**":                "",
		"smb://files.example/a/../b":            "",
		"smb://files.example/a/%2e%2e/b":        "",
		"smb://user@files.example/software/*":   "",
		"https://mirror.example/a?token=1":      "",
		"https://mirror.example/a#b":            "",
		"smb://files.example/a\nb":              "",
		"smb://h/" + strings.Repeat("x", 1<<10): "",
	} {
		if got, err := accountResource("", pattern); got != want || (err == nil) != (want != "") {
			t.Errorf("%.60q: %q, %v", pattern, got, err)
		}
	}
	for pattern, ok := range map[string]bool{"https://mirror.example/debian": true, "smb://files.example/software": false, "s3://bucket/prefix": false} {
		if _, err := accountResource(events.ByBearer, pattern); (err == nil) != ok {
			t.Errorf("%s by a bearer token: %v", pattern, err)
		}
	}
}

func TestACrashBeforeTellingIsCaughtUpAtTheNextStart(t *testing.T) {
	s := newStory(t)
	r := s.replica()
	n := events.AccountNotice{Account: "corp-reader", Kind: events.NetworkAccess, User: "reader", Version: 1, By: "ada", At: time.Now().UTC()}
	sealed, err := r.sealer.Seal(t.Context(), "corp-reader", 1, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.accounts.save(t.Context(), "corp-reader", accountRecord{AccountNotice: n, Sealed: sealed}, 0); err != nil {
		t.Fatal(err)
	}
	s.running()
	s.running()
	eventstest.ExpectExactly(t, s.admin, events.AccountSet, nil, 1)
}

func TestALostKeysetIsToldWithTheAccountsThatNeedTheirSecretAgain(t *testing.T) {
	s := newStory(t)
	stop := s.run(s.replica())
	if _, err := ask(s, "ada", events.AccountSetCall, reader()); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := os.Remove(filepath.Join(s.dir, vault.File)); err != nil {
		t.Fatal(err)
	}
	r := s.replica()
	s.run(r)
	says := func(part string) func() bool {
		return func() bool { return strings.Contains(fmt.Sprint(r.Healthy(t.Context())), part) }
	}
	s.eventually("health names the account", says("secrets of corp-reader"))
	if _, err := ask(s, "ada", events.AccountSetCall, reader()); err != nil {
		t.Fatal(err)
	}
	s.eventually("healthy again", says("<nil>"))
}

func TestABrokerOrBucketThatIsAwayIsWaitedFor(t *testing.T) {
	s := newStory(t)
	s.broker.Stop()
	r := s.replica()
	s.run(r)
	if r.Healthy(t.Context()) == nil {
		t.Error("healthy without a broker")
	}
	s.broker.Start()
	s.eventually("healthy", func() bool { return r.Healthy(t.Context()) == nil })
	if err := s.admin.JetStream().DeleteKeyValue(t.Context(), events.BucketAccounts); err != nil && !errors.Is(err, nats.ErrNoResponders) {
		t.Fatal(err)
	}
	if _, err := ask(s, "ada", events.AccountSetCall, reader()); err != nil {
		t.Errorf("after the bucket was lost: %v", err)
	}
}

func FuzzResource(f *testing.F) {
	for _, seed := range []string{"smb://files.example/software/*", "smb://u:" + secret + "@h/x", "https://h/a?b#c", "://", "smb://h/%zz"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		kept, err := accountResource("", pattern)
		if err != nil {
			return
		}
		if again, err := accountResource("", kept); again != kept || err != nil {
			t.Errorf("%q is kept as %q, which is read as %q, %v", pattern, kept, again, err)
		}
		if strings.HasPrefix(kept, "file:///") || strings.Contains(kept, "/../") || strings.Contains(strings.SplitN(kept, "/", 4)[2], "@") {
			t.Errorf("%q was accepted as %q", pattern, kept)
		}
	})
}

func TestAListingThatIsCutIsAnError(t *testing.T) {
	updates := make(chan jetstream.KeyValueEntry)
	close(updates)
	visit := func(jetstream.KeyValueEntry) error { return nil }
	if err := visitAll(t.Context(), updates, visit); err == nil {
		t.Error("it looks whole")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := visitAll(ctx, make(chan jetstream.KeyValueEntry), visit); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestALookAtTheAccountsIsBounded(t *testing.T) {
	s := newStory(t)
	r := s.replica()
	r.lookTime = time.Nanosecond
	if failed, _ := r.reconcile(context.WithoutCancel(t.Context())); !errors.Is(failed, context.DeadlineExceeded) {
		t.Errorf("error: %v", failed)
	}
}
