package netfs

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chandler/agent/lending"
	"chandler/agent/source"
	"chandler/events"
)

// fake is a source in memory: what lies at addresses, and what it was asked.
type fake struct {
	mu     sync.Mutex
	files  map[string][]byte // by address
	denied map[string]bool
	secret string
	opened []string // addresses, in order
	users  []string
	wrong  int           // wrong secrets it was shown
	mute   chan struct{} // not nil: nothing is answered until it is closed
	met    chan struct{} // somebody is not answered
	reads  int
	cut    map[string]int64 // files end here although they say otherwise
	size   func(int64) int64
	closed []string // addresses
	idled  int      // how often idle sessions were ended
}

func newFake(files map[string]string) *fake {
	f := &fake{files: map[string][]byte{}, denied: map[string]bool{}, secret: "sesame", cut: map[string]int64{}, size: func(n int64) int64 { return n }}
	for address, text := range files {
		f.files[address] = []byte(text)
	}
	return f
}

func (f *fake) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mute != nil {
		mute := f.mute
		f.mu.Unlock()
		if f.met != nil {
			f.met <- struct{}{}
		}
		select {
		case <-ctx.Done():
		case <-mute:
		}
		f.mu.Lock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	f.opened, f.users = append(f.opened, address), append(f.users, login.User)
	if string(login.Secret) != f.secret {
		f.wrong++
		return nil, &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("unknown user name or bad password", source.LogonRefused)}
	}
	if f.denied[address] {
		return nil, &source.Error{Reason: events.NetworkAccessDenied, Answer: source.Answer("access denied", source.AccessDenied)}
	}
	data, ok := f.files[address]
	info := source.Info{Name: path.Base(address), Size: f.size(int64(len(data))), Modified: time.Unix(1_700_000_000, 0)}
	if !ok {
		if !slices.ContainsFunc(f.addresses(), func(a string) bool { return strings.HasPrefix(a, address+"/") }) {
			return nil, &source.Error{Reason: events.SourceNotFound, Answer: source.Answer("file not found", source.FileNotFound)}
		}
		info = source.Info{Name: path.Base(address), Folder: true}
	}
	return &object{f, address, data, info}, nil
}

func (f *fake) addresses() []string {
	var all []string
	for a := range f.files {
		all = append(all, a)
	}
	slices.Sort(all)
	return all
}

type object struct {
	f       *fake
	address string
	data    []byte
	info    source.Info
}

func (o *object) Info() source.Info { return o.info }

func (o *object) ReadAt(_ context.Context, p []byte, offset int64) (int, error) {
	o.f.mu.Lock()
	o.f.reads++
	if end, ok := o.f.cut[o.address]; ok {
		o.data = o.data[:end]
	}
	o.f.mu.Unlock()
	if offset >= int64(len(o.data)) {
		return 0, io.EOF
	}
	n := copy(p, o.data[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (o *object) List(context.Context) ([]source.Info, error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	var all []source.Info
	for _, a := range o.f.addresses() {
		rest, ok := strings.CutPrefix(a, o.address+"/")
		if !ok {
			continue
		}
		name, _, folder := strings.Cut(rest, "/")
		name, _ = url.PathUnescape(name)
		if !slices.ContainsFunc(all, func(i source.Info) bool { return i.Name == name }) {
			all = append(all, source.Info{Name: name, Folder: folder, Size: int64(len(o.f.files[a]))})
		}
	}
	return all, nil
}

func (o *object) Close() error {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	o.f.closed = append(o.f.closed, o.address)
	return nil
}

func (f *fake) CloseIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idled++
}

func (f *fake) asked() (opened []string, wrong int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.opened), f.wrong
}

func (f *fake) readings() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads
}

// rig is what a mount is made of, and what it said.
type rig struct {
	Options
	source *fake

	mu      sync.Mutex
	told    []events.Access
	asked   []string       // resources whose account was asked for
	lent    []lending.Loan // shares its secret with what was given
	life    time.Duration  // of a loan; 0: for ever
	refuse  *source.Error
	user    string // whose account is lent
	now     time.Time
	secret  string // that is lent
	version int
}

const reader1 = `EXAMPLE\reader`

func newRig(t *testing.T, files map[string]string, resources ...string) *rig {
	f := newFake(files)
	g := &rig{source: f, user: reader1, secret: f.secret, version: 3, now: time.Unix(1_800_000_000, 0)}
	dir := t.TempDir()
	g.Options = Options{
		Mount: dir + "/net", Dir: dir, Sources: map[string]source.Source{"smb": f, "https": f}, Resources: resources, Identity: "network-access-account",
		Login: g.login, Inside: func(int) bool { return true }, Clock: func() time.Time { g.mu.Lock(); defer g.mu.Unlock(); return g.now },
		Told: func(a events.Access) { g.mu.Lock(); defer g.mu.Unlock(); g.told = append(g.told, a) },
	}
	if err := os.Mkdir(g.Mount, 0o755); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *rig) login(_ context.Context, resource string) (lending.Loan, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, resource)
	loan := lending.Loan{Identity: "network-access-account", Account: "corp-reader", User: g.user, Version: g.version, Lease: "of-" + path.Base(resource)}
	if g.refuse != nil {
		return loan, g.refuse
	}
	loan.Secret = []byte(g.secret)
	if g.life != 0 {
		loan.Expires = g.now.Add(g.life)
	}
	g.lent = append(g.lent, loan)
	return loan, nil
}

func (g *rig) asks() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.asked)
}

// reasons that were told, with the end of each address.
func (g *rig) reasons() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []string
	for _, a := range g.told {
		all = append(all, strings.TrimSpace(string(a.Reason)+" "+a.Resource))
	}
	return all
}

func (g *rig) elapse(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = g.now.Add(d)
}

func blank(secret []byte) bool { return len(bytes.Trim(secret, "\x00")) == 0 }
