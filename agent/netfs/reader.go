package netfs

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"chandler/agent/lending"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/advice"
	"chandler/events/resource"
)

const (
	idleTime = 5 * time.Second // a file that was looked at is mostly opened next
	maxIdle  = 32              // files that are kept open meanwhile
)

// reader opens addresses, each once for all who use it at a time.
type reader struct {
	Options
	order  order
	logins logins
	teller teller
	ctx    context.Context // ends when the reader is closed
	cancel context.CancelFunc

	mu    sync.Mutex
	files map[string]*file
	idle  []*file // the longest idle first
	pins  map[string]*spool
	gone  map[string]bool // resources of the order that were not there when they were last looked for
}

// file is an opened object.
type file struct {
	address  string
	ready    chan struct{} // closed when the rest is there
	object   source.Object
	info     source.Info
	err      error
	who      lending.Loan // without the secret
	grant    *grant       // nil: not lent
	closed   sync.Once
	covering string
	users    int // under the reader's lock
	lapse    *time.Timer
}

func newReader(o Options) *reader {
	r := &reader{Options: o, order: newOrder(o.Resources), files: map[string]*file{}, pins: map[string]*spool{}, gone: map[string]bool{}}
	r.logins = logins{ask: o.Login, now: o.Clock, held: map[string]*held{}, proofs: map[shown]*proof{}, grants: map[string]*grant{}}
	r.teller = teller{told: o.Told, identity: o.Identity, now: o.Clock}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// acquire opens an address, or joins those who have. release lets go of it.
func (r *reader) acquire(at resource.Resource) (*file, error) {
	address := at.String()
	r.mu.Lock()
	f := r.files[address]
	if f != nil {
		r.use(f)
		r.mu.Unlock()
		<-f.ready
		if f.err != nil {
			r.release(f)
		}
		return f, f.err
	}
	f = &file{address: address, ready: make(chan struct{}), users: 1}
	r.files[address] = f
	r.mu.Unlock()
	f.err = r.open(f, at)
	close(f.ready)
	if f.err != nil {
		r.drop(f)
		r.release(f)
		return nil, f.err
	}
	return f, nil
}

// use takes the file from the idle ones.
func (r *reader) use(f *file) {
	f.users++
	if i := slices.Index(r.idle, f); i >= 0 {
		r.idle = slices.Delete(r.idle, i, i+1)
		f.lapse.Stop()
	}
}

func (r *reader) release(f *file) {
	r.mu.Lock()
	f.users--
	if f.users > 0 {
		r.mu.Unlock()
		return
	}
	if r.files[f.address] != f {
		r.mu.Unlock()
		f.close()
		return
	}
	r.idle = append(r.idle, f)
	f.lapse = time.AfterFunc(idleTime, func() { r.retire(f) })
	var over *file
	if len(r.idle) > maxIdle {
		over = r.idle[0]
	}
	r.mu.Unlock()
	if over != nil {
		r.retire(over)
	}
}

// retire closes a file that is idle still.
func (r *reader) retire(f *file) {
	r.mu.Lock()
	i := slices.Index(r.idle, f)
	if i < 0 {
		r.mu.Unlock()
		return
	}
	r.idle = slices.Delete(r.idle, i, i+1)
	if r.files[f.address] == f {
		delete(r.files, f.address)
	}
	f.lapse.Stop()
	r.mu.Unlock()
	f.close()
}

// drop lets nobody join a file any more.
func (r *reader) drop(f *file) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files[f.address] == f {
		delete(r.files, f.address)
	}
}

func (f *file) close() {
	if f.object == nil {
		return
	}
	f.closed.Do(func() {
		f.grant.remove(f)
		f.object.Close()
	})
}

// open opens by the account of the resource, and tells what came of it.
func (r *reader) open(f *file, at resource.Resource) error {
	ctx, cancel := context.WithTimeout(r.ctx, r.Patience)
	defer cancel()
	f.covering = r.order.covering(at)
	_, err := anew(func() (struct{}, error) { return struct{}{}, r.openAs(ctx, f, at) })
	failed := failure(err)
	if r.ctx.Err() != nil {
		return errClosed
	}
	r.teller.tell(f.address, f.covering, f.who, failed)
	if failed != nil {
		return failed
	}
	f.info = f.object.Info()
	return nil
}

func (r *reader) openAs(ctx context.Context, f *file, at resource.Resource) error {
	driver := r.Sources[at.Scheme]
	switch {
	case f.covering == "":
		return r.foreign()
	case driver == nil:
		return &source.Error{Reason: events.SourceUnsupported, Answer: "this agent does not read " + at.Scheme + "://"}
	}
	loan, granted, refused := r.logins.login(ctx, f.covering)
	defer loan.Clear()
	f.who = loan
	f.who.Secret = nil
	if refused != nil {
		return refused
	}
	try := func() (err error) {
		if granted.isOver() {
			return errWithdrawn
		}
		f.object, err = driver.Open(ctx, f.address, loan.Login())
		return err
	}
	var err error
	if loan.Login().Nobody() {
		err = try()
	} else {
		err = r.logins.show(shown{loan.Account, loan.User, loan.Version, at.Host}, try)
	}
	if err != nil {
		return err
	}
	if f.grant = granted; !granted.add(f) {
		f.object.Close()
		f.object = nil
		return errWithdrawn
	}
	return nil
}

// foreign is the refusal of what the order does not name.
func (r *reader) foreign() *source.Error {
	return &source.Error{Reason: events.CredentialDenied, Answer: advice.NotNamed}
}

// readAt reads from an opened file. Less than was to be there is a file that changed.
func (r *reader) readAt(f *file, p []byte, offset int64) (int, error) {
	if f.grant.isOver() {
		return 0, errWithdrawn
	}
	if f.info.Size >= 0 {
		p = p[:max(0, min(int64(len(p)), f.info.Size-offset))]
	}
	if len(p) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.Patience)
	defer cancel()
	n, err := f.object.ReadAt(ctx, p, offset)
	switch {
	case n == len(p) || f.info.Size < 0 && errors.Is(err, io.EOF):
		return n, nil
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		err = &source.Error{Reason: events.ContentChanged, Answer: "it has become shorter while it was read"}
	}
	return n, r.failed(f, err)
}

// list lists a folder.
func (r *reader) list(at resource.Resource) ([]source.Info, error) {
	return anew(func() ([]source.Info, error) { return r.listOnce(at) })
}

func (r *reader) listOnce(at resource.Resource) ([]source.Info, error) {
	f, err := r.acquire(at)
	if err != nil {
		return nil, err
	}
	defer r.release(f)
	ctx, cancel := context.WithTimeout(r.ctx, r.Patience)
	defer cancel()
	all, err := f.object.List(ctx)
	if err != nil {
		return nil, r.failed(f, err)
	}
	return all, nil
}

// failed tells of a failure of an opened file, which is not used again.
func (r *reader) failed(f *file, err error) error {
	if r.ctx.Err() != nil {
		return errClosed
	}
	r.drop(f)
	if f.grant.isOver() {
		return errWithdrawn
	}
	failed := failure(err)
	r.teller.tell(f.address, f.covering, f.who, failed)
	return failed
}

// close ends everything under way and overwrites all secrets.
func (r *reader) close() {
	r.cancel()
	r.logins.close()
	r.mu.Lock()
	idle := slices.Clone(r.idle)
	r.mu.Unlock()
	for _, f := range idle {
		r.retire(f)
	}
	r.closePins()
}

// stat describes what lies at a place.
func (r *reader) stat(p place) (source.Info, error) {
	at := p.resource()
	f, err := r.acquire(at)
	r.noteGone(at, err)
	if err != nil {
		return source.Info{}, err
	}
	defer r.release(f)
	return f.info, nil
}

// noteGone notes whether a resource of the order was there, so that what was not is not listed.
func (r *reader) noteGone(at resource.Resource, err error) {
	e := failure(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e == nil:
		delete(r.gone, at.String())
	case e.Reason == events.SourceNotFound && r.order.names(at):
		r.gone[at.String()] = true
	}
}

// children are the names in a place above resources that are not known to be missing.
func (r *reader) children(p place) []string {
	r.mu.Lock()
	gone := maps.Clone(r.gone)
	r.mu.Unlock()
	return r.order.children(p, func(at resource.Resource) bool { return gone[at.String()] })
}
