package faultfs

import (
	"context"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or directory as the kernel knows it. What changes names is done and logged under one lock, so that
// the log has the order in which it happened.
type node struct {
	fs.LoopbackNode
	f *FS
}

// WrapChild makes everything below a node of its kind.
func (n *node) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, f: n.f}
}

var (
	_ fs.NodeCreater         = (*node)(nil)
	_ fs.NodeOpener          = (*node)(nil)
	_ fs.NodeMkdirer         = (*node)(nil)
	_ fs.NodeUnlinker        = (*node)(nil)
	_ fs.NodeRmdirer         = (*node)(nil)
	_ fs.NodeRenamer         = (*node)(nil)
	_ fs.NodeSetattrer       = (*node)(nil)
	_ fs.NodeOpendirHandler  = (*node)(nil)
	_ fs.FileFsyncdirer      = (*directory)(nil)
	_ fs.NodeStatfser        = (*node)(nil)
	_ fs.NodeLinker          = (*node)(nil)
	_ fs.NodeSymlinker       = (*node)(nil)
	_ fs.NodeMknoder         = (*node)(nil)
	_ fs.NodeCopyFileRanger  = (*node)(nil)
	_ fs.FileReader          = (*file)(nil)
	_ fs.FileWriter          = (*file)(nil)
	_ fs.FileFsyncer         = (*file)(nil)
	_ fs.FileReleaser        = (*file)(nil)
	_ fs.FileAllocater       = (*file)(nil)
	_ fs.FilePassthroughFder = (*file)(nil)
)

// path is where the node really is.
func (n *node) path() string { return filepath.Join(n.f.live, n.Path(nil)) }

// known is the inode of what has a name in the live directory, nil where there is nothing, as when its directory is
// just being renamed. The caller locks.
func (f *FS) known(path string) (*inode, os.FileInfo) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, nil
	}
	return f.files[number(info)], info
}

// logged is the answer where something was done and logging it failed.
func logged(err error) syscall.Errno {
	if err != nil {
		return syscall.EIO
	}
	return fs.OK
}

// naming locks for a change of names, unless they are to fail.
func (n *node) naming() (unlock func(), errno syscall.Errno) {
	if n.f.fails(Names) {
		return nil, syscall.EIO
	}
	n.f.mu.Lock()
	return n.f.mu.Unlock, fs.OK
}

// Create makes a file, which is then open.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	unlock, errno := n.naming()
	if errno != fs.OK {
		return nil, nil, 0, errno
	}
	defer unlock()
	path := filepath.Join(n.path(), name)
	opened, err := os.OpenFile(path, int(flags&(syscall.O_EXCL|syscall.O_TRUNC))|os.O_RDWR|os.O_CREATE, os.FileMode(mode).Perm())
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	made, errno := n.made(ctx, name, false, out)
	if errno != fs.OK {
		opened.Close()
		return nil, nil, 0, errno
	}
	info, err := opened.Stat()
	if err != nil {
		opened.Close()
		return nil, nil, 0, fs.ToErrno(err)
	}
	return made, n.f.open(opened, n.f.files[number(info)], flags), 0, fs.OK
}

// made logs what has just got a name, and tells the kernel of it.
func (n *node) made(ctx context.Context, name string, dir bool, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	parent, _ := n.f.known(n.path())
	there, info := n.f.known(filepath.Join(n.path(), name))
	if parent == nil || info == nil {
		return nil, syscall.ENOENT
	}
	if there == nil {
		var err error
		if n.f.files[number(info)], err = n.f.disk.make(parent, name, dir, info.Mode()); err != nil {
			return nil, syscall.EIO
		}
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

// Mkdir makes a directory.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	unlock, errno := n.naming()
	if errno != fs.OK {
		return nil, errno
	}
	defer unlock()
	if err := os.Mkdir(filepath.Join(n.path(), name), os.FileMode(mode).Perm()); err != nil {
		return nil, fs.ToErrno(err)
	}
	return n.made(ctx, name, true, out)
}

// Unlink removes a file.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return n.remove(name, syscall.Unlink)
}

// Rmdir removes a directory.
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	return n.remove(name, syscall.Rmdir)
}

func (n *node) remove(name string, do func(string) error) syscall.Errno {
	unlock, errno := n.naming()
	if errno != fs.OK {
		return errno
	}
	defer unlock()
	path := filepath.Join(n.path(), name)
	parent, _ := n.f.known(n.path())
	gone, info := n.f.known(path)
	if parent == nil || gone == nil {
		return syscall.ENOENT
	}
	if err := do(path); err != nil {
		return fs.ToErrno(err)
	}
	n.f.dropped(info)
	return logged(n.f.disk.remove(gone, parent, name))
}

// dropped notes that the last name of a file is gone.
func (f *FS) dropped(info os.FileInfo) {
	delete(f.files, number(info))
	if f.faults.left >= 0 && info.Mode().IsRegular() {
		f.faults.left += info.Size()
	}
}

// Rename moves a file or directory, in the place of what has the name.
func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newer string, flags uint32) syscall.Errno {
	onto, ok := to.(*node)
	if !ok || flags != 0 {
		return syscall.EINVAL
	}
	unlock, errno := n.naming()
	if errno != fs.OK {
		return errno
	}
	defer unlock()
	from, into := filepath.Join(n.path(), name), filepath.Join(onto.path(), newer)
	moved, _ := n.f.known(from)
	over, info := n.f.known(into)
	parent, _ := n.f.known(n.path())
	target, _ := n.f.known(onto.path())
	if moved == nil || parent == nil || target == nil {
		return syscall.ENOENT
	}
	if err := syscall.Rename(from, into); err != nil {
		return fs.ToErrno(err)
	}
	if over == moved {
		return fs.OK
	}
	if over != nil {
		n.f.dropped(info)
	}
	return logged(n.f.disk.move(moved, parent, name, target, newer, over))
}

// Setattr changes the length of a file, its mode or times.
func (n *node) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	size, ok := in.GetSize()
	if !ok {
		return n.LoopbackNode.Setattr(ctx, h, in, out)
	}
	unlock, errno := n.naming()
	if errno != fs.OK {
		return errno
	}
	defer unlock()
	known, _ := n.f.known(n.path())
	if open, ok := h.(*file); ok {
		known = open.inode
	}
	if known == nil {
		return syscall.ENOENT
	}
	var before fuse.AttrOut
	if errno := n.LoopbackNode.Getattr(ctx, h, &before); errno != fs.OK {
		return errno
	}
	if grow := int64(size) - int64(before.Size); n.f.faults.left >= 0 && grow <= 0 {
		n.f.faults.left -= grow
	} // a file that is made longer has a hole there, which takes no room
	if errno := n.LoopbackNode.Setattr(ctx, h, in, out); errno != fs.OK {
		return errno
	}
	return logged(n.f.disk.truncate(known, int64(size)))
}

// Open opens a file: always for reading too, since what becomes durable is read.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	path := n.path()
	mode := os.O_RDWR
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		mode = os.O_RDONLY
	}
	opened, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	known, _ := n.f.known(path)
	if known == nil {
		opened.Close()
		return nil, 0, syscall.ENOENT
	}
	return n.f.open(opened, known, flags), 0, fs.OK
}

// OpendirHandle opens a directory.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	opened, kernel, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != fs.OK {
		return nil, 0, errno
	}
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	known, _ := n.f.known(n.path())
	stream, ok := opened.(stream)
	if known == nil || !ok {
		return nil, 0, syscall.ENOENT
	}
	return &directory{stream, n.f, known}, kernel, fs.OK
}

// stream is what is read of an open directory.
type stream interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
}

// directory is an open directory.
type directory struct {
	stream
	f     *FS
	inode *inode
}

// Fsyncdir makes the directory's names durable.
func (d *directory) Fsyncdir(context.Context, uint32) syscall.Errno { return d.f.sync(d.inode) }

// Statfs tells how much is free.
func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	if errno := n.LoopbackNode.Statfs(ctx, out); errno != fs.OK {
		return errno
	}
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	if n.f.faults.left >= 0 && out.Bsize > 0 {
		free := uint64(n.f.faults.left) / uint64(out.Bsize)
		out.Bfree, out.Bavail = min(out.Bfree, free), min(out.Bavail, free)
	}
	return fs.OK
}

// Link, Symlink and Mknod are not had here.
func (n *node) Link(context.Context, fs.InodeEmbedder, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Symlink is not had here.
func (n *node) Symlink(context.Context, string, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Mknod is not had here.
func (n *node) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// CopyFileRange makes the kernel read and write instead.
func (n *node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOSYS
}

// file is an open file.
type file struct {
	*fs.LoopbackFile
	f      *FS
	inode  *inode
	opened *os.File
	synced bool // O_SYNC or O_DSYNC
}

func (f *FS) open(opened *os.File, n *inode, flags uint32) *file {
	return &file{fs.NewLoopbackFileFromOS(opened), f, n, opened, flags&(unix.O_SYNC|unix.O_DSYNC) != 0}
}

// PassthroughFd would keep the writes from us.
func (h *file) PassthroughFd() (int, bool) { return 0, false }

// Read reads.
func (h *file) Read(ctx context.Context, into []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	if h.f.fails(Reads) {
		return nil, syscall.EIO
	}
	return h.LoopbackFile.Read(ctx, into, at)
}

// Write writes as much as there is room for.
func (h *file) Write(ctx context.Context, data []byte, at int64) (uint32, syscall.Errno) {
	f := h.f
	f.mu.Lock()
	pause, failing := f.faults.write, f.faults.failing&Writes != 0
	f.mu.Unlock()
	if failing {
		return 0, syscall.EIO
	}
	f.hold(pause)
	written, errno := h.write(data, at)
	if errno == fs.OK && h.synced {
		errno = f.sync(h.inode)
	}
	return written, errno
}

func (h *file) write(data []byte, at int64) (uint32, syscall.Errno) {
	f := h.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.faults.left >= 0 {
		info, err := h.opened.Stat()
		if err != nil {
			return 0, fs.ToErrno(err)
		}
		end := at + int64(len(data))
		from := max(at, info.Size())
		if grow := end - from; grow > 0 {
			data = data[:int64(len(data))-grow+f.room(grow)]
		}
		if len(data) == 0 {
			return 0, syscall.ENOSPC
		}
	}
	written, err := h.opened.WriteAt(data, at)
	if err != nil {
		return 0, fs.ToErrno(err)
	}
	if h.inode.live == nil && !h.inode.gone {
		if h.inode.live, err = h.again(); err != nil {
			return 0, fs.ToErrno(err)
		}
	}
	return uint32(written), logged(f.disk.write(h.inode, at, at+int64(written)))
}

// again is the file for as long as it is not durable.
func (h *file) again() (*os.File, error) {
	fd, err := unix.FcntlInt(h.opened.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), h.opened.Name()), nil
}

// Fsync makes the file durable.
func (h *file) Fsync(context.Context, uint32) syscall.Errno { return h.f.sync(h.inode) }

func (f *FS) sync(n *inode) syscall.Errno {
	f.mu.Lock()
	pause := f.faults.sync
	f.mu.Unlock()
	f.hold(pause)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.faults.failing&Syncs != 0 {
		n.dirty = nil
		return syscall.EIO
	}
	if n.gone {
		return fs.OK
	}
	return logged(f.disk.sync(n))
}

// Allocate is not had here: whoever asks writes instead.
func (h *file) Allocate(context.Context, uint64, uint64, uint32) syscall.Errno {
	return syscall.ENOTSUP
}

// Release is the last close.
func (h *file) Release(ctx context.Context) syscall.Errno {
	h.f.mu.Lock()
	err := h.f.disk.closed(h.inode)
	h.f.mu.Unlock()
	if errno := h.LoopbackFile.Release(ctx); errno != fs.OK {
		return errno
	}
	return logged(err)
}
