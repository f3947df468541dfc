package netfs

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"chandler/agent/lending"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

const (
	believed = 5 * time.Second // what was said of a file or folder
	denied   = syscall.EACCES
	fileMode = 0o555 // installers are started from here
)

// node is a folder or file as the kernel knows it.
type node struct {
	fs.Inode
	r     *reader
	at    place
	named bool // within a resource; else it is on the way to one, or to nothing

	mu      sync.Mutex
	info    source.Info
	known   time.Time              // when info was said
	listed  map[string]source.Info // what the folder's last listing said, by name
	listing time.Time
	cached  source.Info // what the kernel's cache holds
}

var (
	_ fs.NodeLookuper  = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeOpendirer = (*node)(nil)
	_ fs.NodeReaddirer = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeStatfser  = (*node)(nil)
	_ fs.FileReader    = (*handle)(nil)
	_ fs.FileReleaser  = (*handle)(nil)
)

// errno is what a program is answered.
func errno(err error) syscall.Errno {
	e := failure(err)
	if e == nil {
		return fs.OK
	}
	switch e.Reason {
	case events.NetworkAccessDenied, events.CredentialDenied, events.CredentialRejected, events.NetworkAccessAccountMissing, events.NoNetworkIdentity:
		return denied
	case events.SourceNotFound:
		return syscall.ENOENT
	case events.SourceUnreachable:
		return syscall.EHOSTUNREACH
	case events.SourceUnsupported:
		return syscall.EOPNOTSUPP
	}
	return syscall.EIO
}

// inside says whether the caller may use the mount.
func (n *node) inside(ctx context.Context) bool {
	caller, ok := fuse.FromContext(ctx)
	return ok && caller.Pid != 0 && n.r.Inside(int(caller.Pid))
}

// Lookup finds a child. Folders that are not named lead to refusals rather than to nothing, so that it is told what a
// program wanted.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if !n.inside(ctx) {
		return nil, denied
	}
	at, ok := n.at.child(name)
	if !ok {
		return nil, syscall.ENOENT
	}
	standing := n.r.order.standing(at)
	info := source.Info{Folder: true}
	switch standing {
	case above:
		if !n.r.order.meets(at) {
			refused := n.r.foreign()
			n.r.teller.tell(at.scheme+"://"+at.host, "", lending.Loan{}, refused)
			return nil, errno(refused)
		}
	case foreign:
		refused := n.r.foreign()
		n.r.teller.tell(at.resource().String(), "", lending.Loan{}, refused)
		return nil, errno(refused)
	case named:
		var err error
		if info, err = n.look(at, name); err != nil {
			return nil, errno(err)
		}
	}
	fill(&out.Attr, info)
	mode := out.Attr.Mode & syscall.S_IFMT
	if child := n.GetChild(name); child != nil && child.StableAttr().Mode == mode {
		child.Operations().(*node).learn(info)
		return child, fs.OK
	}
	child := &node{r: n.r, at: at, named: standing == named}
	child.learn(info)
	return n.NewInode(ctx, child, fs.StableAttr{Mode: mode}), fs.OK
}

// look finds out what lies at a place, by the last listing of its folder if that is new.
func (n *node) look(at place, name string) (source.Info, error) {
	n.mu.Lock()
	info, ok := n.listed[name]
	fresh := time.Since(n.listing) < believed
	n.mu.Unlock()
	if ok && fresh {
		return info, nil
	}
	return n.r.stat(at)
}

func (n *node) learn(info source.Info) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.info, n.known = info, time.Now()
}

// Getattr describes the node; an open file as it was opened.
func (n *node) Getattr(ctx context.Context, h fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if !n.named {
		fill(&out.Attr, source.Info{Folder: true})
		return fs.OK
	}
	if open, ok := h.(*handle); ok {
		fill(&out.Attr, open.info)
		return fs.OK
	}
	n.mu.Lock()
	info, fresh := n.info, time.Since(n.known) < believed
	n.mu.Unlock()
	if !fresh {
		if !n.inside(ctx) {
			return denied
		}
		var err error
		if info, err = n.r.stat(n.at); err != nil {
			return errno(err)
		}
		n.learn(info)
	}
	fill(&out.Attr, info)
	return fs.OK
}

func fill(out *fuse.Attr, info source.Info) {
	out.Mode, out.Nlink = syscall.S_IFREG|fileMode, 1
	if info.Folder {
		out.Mode, out.Nlink = syscall.S_IFDIR|fileMode, 2
	} else if info.Size > 0 {
		out.Size, out.Blocks = uint64(info.Size), (uint64(info.Size)+511)/512
	}
	if !info.Modified.IsZero() {
		out.SetTimes(&info.Modified, &info.Modified, &info.Modified)
	}
}

// Statfs has nothing to say; some installers look.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	return fs.OK
}

// Opendir lets only the program list.
func (n *node) Opendir(ctx context.Context) syscall.Errno {
	if !n.inside(ctx) {
		return denied
	}
	return fs.OK
}

// Readdir lists what the source has, or above a resource what leads to one.
func (n *node) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	if !n.inside(ctx) {
		return nil, denied
	}
	if !n.named {
		var all []fuse.DirEntry
		for _, name := range n.r.children(n.at) {
			all = append(all, fuse.DirEntry{Name: name, Mode: syscall.S_IFDIR})
		}
		return fs.NewListDirStream(all), fs.OK
	}
	infos, err := n.r.list(n.at.resource())
	if err != nil {
		return nil, errno(err)
	}
	listed := make(map[string]source.Info, len(infos))
	all := make([]fuse.DirEntry, 0, len(infos))
	for _, info := range infos {
		if _, ok := n.at.child(info.Name); !ok {
			continue // it could not be opened
		}
		var attr fuse.Attr
		fill(&attr, info)
		listed[info.Name] = info
		all = append(all, fuse.DirEntry{Name: info.Name, Mode: attr.Mode & syscall.S_IFMT})
	}
	n.mu.Lock()
	n.listed, n.listing = listed, time.Now()
	n.mu.Unlock()
	return fs.NewListDirStream(all), fs.OK
}

// Open opens a file. The kernel keeps what it read before only of the same file.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	switch {
	case !n.inside(ctx):
		return nil, 0, denied
	case flags&syscall.O_ACCMODE != syscall.O_RDONLY:
		return nil, 0, syscall.EROFS
	case !n.named:
		return nil, 0, syscall.EISDIR
	}
	at := n.at.resource()
	o, err := n.r.openFile(at)
	if err != nil {
		return nil, 0, errno(err)
	}
	h := &handle{r: n.r, at: at, info: o.info, opened: o}
	n.learn(h.info)
	if h.info.Size < 0 {
		return h, fuse.FOPEN_DIRECT_IO, fs.OK
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	same := n.cached.Size == h.info.Size && n.cached.Modified.Equal(h.info.Modified) && !h.info.Modified.IsZero()
	n.cached = h.info
	if same {
		return h, fuse.FOPEN_KEEP_CACHE, fs.OK
	}
	return h, 0, fs.OK
}

// handle is an open file.
type handle struct {
	r    *reader
	at   resource.Resource
	info source.Info

	mu     sync.Mutex
	opened opened
}

// current is what to read from: it is opened anew where the lease that it was opened by was withdrawn.
func (h *handle) current() (opened, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.opened.grant.isOver() {
		return h.opened, nil
	}
	again, err := h.r.openFile(h.at)
	if err != nil {
		return opened{}, err
	}
	if again.info.Size != h.info.Size || !again.info.Modified.Equal(h.info.Modified) {
		err := &source.Error{Reason: events.ContentChanged, Answer: "it is another file than the one that was opened"}
		if again.file == nil {
			return opened{}, err
		}
		defer h.r.release(again.file)
		return opened{}, h.r.failed(again.file, err)
	}
	h.letGo()
	h.opened = again
	return again, nil
}

func (h *handle) letGo() {
	if h.opened.file != nil {
		h.r.release(h.opened.file)
	}
}

// Read is not asked for who calls: whoever has the descriptor has it from the program.
func (h *handle) Read(_ context.Context, dest []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	if h.r.ctx.Err() != nil {
		return nil, syscall.ENOTCONN
	}
	n, err := anew(func() (int, error) {
		o, err := h.current()
		if err != nil {
			return 0, err
		}
		return h.r.readOpened(o, dest, offset)
	})
	if err != nil {
		return nil, errno(err)
	}
	return fuse.ReadResultData(dest[:n]), fs.OK
}

// Release lets go of the file.
func (h *handle) Release(context.Context) syscall.Errno {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.letGo()
	return fs.OK
}

// forget takes from the kernel what it keeps of files of a resource, also where a program has them mapped.
func (n *node) forget(covering string) {
	if n.named && n.r.order.covering(n.at.resource()) == covering {
		n.NotifyContent(0, 0)
	}
	for _, child := range n.Children() {
		child.Operations().(*node).forget(covering)
	}
}
