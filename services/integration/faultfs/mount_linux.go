package faultfs

import (
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	device   = "/dev/fuse"
	largest  = 1 << 20          // bytes of one write
	believed = 10 * time.Second // attributes and names: nobody else changes them
	endLimit = 10 * time.Second
)

// FS is a mounted file system. Its methods may be called at any time, also while programs use the mount.
type FS struct {
	o      Options
	live   string
	server *fuse.Server
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	disk   *disk
	files  map[uint64]*inode // those that have a name for programs, by their number in the live directory
	faults faults
}

// faults are those that are switched on.
type faults struct {
	write, sync time.Duration
	left        int64 // bytes free; negative: no limit
	failing     Op
}

func possible() error {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImpossible, err)
	}
	file.Close()
	if os.Geteuid() != 0 {
		return ErrImpossible
	}
	return nil
}

// Mount mounts the file system and serves it until Close.
func Mount(o Options) (*FS, error) {
	if err := possible(); err != nil {
		return nil, err
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	f := &FS{o: o, live: filepath.Join(o.Dir, "live"), closed: make(chan struct{}), files: map[uint64]*inode{}, faults: faults{left: -1}}
	if err := errors.Join(os.MkdirAll(f.live, 0o700), os.MkdirAll(o.At, 0o700)); err != nil {
		return nil, fmt.Errorf("mount %s: %w", o.At, err)
	}
	var err error
	if f.disk, err = newDisk(filepath.Join(o.Dir, "durable"), !o.NoAutoAlloc, o.Clock); err != nil {
		return nil, fmt.Errorf("mount %s: %w", o.At, err)
	}
	if err := f.disk.load(f.live, f.disk.root, func(n *inode, info os.FileInfo) { f.files[number(info)] = n }); err != nil {
		return nil, fmt.Errorf("mount %s: read %s: %w", o.At, f.live, err)
	}
	return f, f.serve()
}

func number(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

func (f *FS) serve() error {
	info, err := os.Stat(f.live)
	if err != nil {
		return err
	}
	f.files[number(info)] = f.disk.root
	loop := &fs.LoopbackRoot{Path: f.live, Dev: uint64(info.Sys().(*syscall.Stat_t).Dev)}
	root := &node{LoopbackNode: fs.LoopbackNode{RootData: loop}, f: f}
	loop.RootNode = root
	long := believed
	f.server, err = fs.Mount(f.o.At, root, &fs.Options{EntryTimeout: &long, AttrTimeout: &long, MountOptions: fuse.MountOptions{
		Name: "faultfs", FsName: "faultfs", MaxWrite: largest, DisableXAttrs: true, DirectMountStrict: true, DisableReadDirPlus: true,
		Logger: log.New(os.Stderr, "faultfs: ", log.LstdFlags),
	}})
	if err != nil {
		return fmt.Errorf("mount %s: %w", f.o.At, err)
	}
	return nil
}

// Close takes the mount from whoever still uses it; what is there stays in the directory. Operations that wait
// because the file system is slow end.
func (f *FS) Close() error {
	var failed error
	f.once.Do(func() {
		close(f.closed)
		failed = unix.Unmount(f.o.At, unix.MNT_FORCE|unix.MNT_DETACH)
		ended := make(chan struct{})
		go func() {
			f.server.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(endLimit):
			failed = errors.Join(failed, errors.New("requests are under way still"))
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, n := range f.files {
			failed = errors.Join(failed, n.release())
		}
	})
	if failed != nil {
		return fmt.Errorf("unmount %s: %w", f.o.At, failed)
	}
	return nil
}

// Slow makes every write and every fsync take so much longer; 0 and 0: as fast as it can.
func (f *FS) Slow(write, sync time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults.write, f.faults.sync = write, sync
}

// Full leaves so many bytes free: files grow by so much together, then writes are answered ENOSPC (the last one that
// fits in part is short). Removing and truncating gives back. Negative: no limit.
func (f *FS) Full(left int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults.left = left
}

// Fail makes operations of these kinds be answered EIO until it is called again; 0: none.
func (f *FS) Fail(ops Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults.failing = ops
}

// Sync is sync(2): all that was written so far is durable. It is what time does to a file system that rests for
// [WrittenBack].
func (f *FS) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.disk.commit(f.disk.end())
	for _, n := range f.files {
		err = errors.Join(err, f.disk.sync(n))
	}
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// Cut copies to a new directory what a power cut at this moment leaves at least. Nothing else changes, so that more
// may be written and cut.
func (f *FS) Cut(to string) error { return f.cut(to, nil) }

// CutKeeping copies what a power cut at this moment may leave: what Cut does, and of the rest what the seed says.
func (f *FS) CutKeeping(to string, seed uint64) error {
	return f.cut(to, rand.New(rand.NewPCG(seed, 0)))
}

func (f *FS) cut(to string, chance *rand.Rand) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.disk.age()
	for _, n := range f.files {
		err = errors.Join(err, f.disk.writeBack(n))
	}
	if err == nil {
		err = f.disk.cut(to, chance)
	}
	if err != nil {
		return fmt.Errorf("cut the power of %s: %w", f.o.At, err)
	}
	return nil
}

// hold waits as long as the file system is slow.
func (f *FS) hold(pause time.Duration) {
	if pause <= 0 {
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.closed:
	}
}

// fails says whether an operation is to be answered EIO.
func (f *FS) fails(op Op) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults.failing&op != 0
}

// room takes what a file is to grow by from the bytes that are free, and says how much it may. The caller locks.
func (f *FS) room(grow int64) int64 {
	if f.faults.left < 0 {
		return grow
	}
	grow = min(grow, f.faults.left)
	f.faults.left -= grow
	return grow
}
