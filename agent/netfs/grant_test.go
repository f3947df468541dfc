package netfs

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/lending"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

func at(t *testing.T, address string) resource.Resource {
	t.Helper()
	r, err := resource.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestALeaseThatIsWithdrawnWhileItIsAskedForIsNotUsed(t *testing.T) {
	g := newRig(t, map[string]string{"smb://files/apps/a": "a"}, "smb://files/apps")
	var r *reader
	g.Login = func(ctx context.Context, resource string) (lending.Loan, error) {
		loan, err := g.login(ctx, resource)
		if len(g.asks()) == 1 {
			r.withdraw("of-apps", func(string) { t.Error("nothing was read by it") })
		}
		return loan, err
	}
	r = newReader(g.Options)
	defer r.close()
	if _, err := r.acquire(at(t, "smb://files/apps/a")); err != nil {
		t.Error(err)
	}
	if asked := g.asks(); len(asked) != 2 || !blank(g.lent[0].Secret) {
		t.Errorf("asked %q; the secret of the first lease is %q", asked, g.lent[0].Secret)
	}
}

// during does something while a file is opened.
type during struct {
	*fake
	do func()
}

func (d *during) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	o, err := d.fake.Open(ctx, address, login)
	if do := d.do; do != nil {
		d.do = nil
		do()
	}
	return o, err
}

func TestALeaseThatIsWithdrawnWhileAFileIsOpenedIsAskedForAnew(t *testing.T) {
	for name, test := range map[string]struct {
		refuse *source.Error
		want   events.Reason
		told   []string
	}{
		"and is lent again": {nil, "", []string{"smb://files/apps"}},
		"and is denied":     {&source.Error{Reason: events.CredentialDenied, Answer: "an administrator revoked it"}, events.CredentialDenied, []string{"credential_denied smb://files/apps/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, map[string]string{"smb://files/apps/a": "a"}, "smb://files/apps")
			var r *reader
			forgot := make(chan string, 1)
			g.Sources["smb"] = &during{g.source, func() {
				g.mu.Lock()
				g.refuse = test.refuse
				g.mu.Unlock()
				r.withdraw("of-apps", func(covering string) { forgot <- covering })
			}}
			r = newReader(g.Options)
			defer r.close()
			f, err := r.acquire(at(t, "smb://files/apps/a"))
			if got := failure(err); got != nil && got.Reason != test.want || got == nil && (test.want != "" || f.grant.isOver()) {
				t.Errorf("answered %v", err)
			}
			if covering := <-forgot; covering != "smb://files/apps" {
				t.Errorf("forgot %q", covering)
			}
			if diff := cmp.Diff(test.told, g.reasons()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"smb://files/apps/a"}, g.source.closed); diff != "" {
				t.Error(diff)
			}
		})
	}
}
