package netfs

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	device    = "/dev/fuse"
	largest   = 1 << 20 // bytes of one read
	readahead = "1024"  // KiB
	endLimit  = 10 * time.Second
)

// mounted is a thread in a mount namespace of its own, and what is mounted there. The thread is never used for anything
// else, and ends with it.
type mounted struct {
	*reader
	work   chan func() // done by the thread
	server *fuse.Server
	root   *node
	once   *sync.Once
}

func mount(o Options) (mounted, error) {
	m := mounted{reader: newReader(o), work: make(chan func()), once: &sync.Once{}}
	go m.live()
	var err error
	m.on(func() { m.server, m.root, err = serve(m.reader) })
	if err != nil {
		m.reader.close()
		close(m.work)
		return mounted{}, fmt.Errorf("%w: %w", ErrImpossible, err)
	}
	return m, nil
}

// live is the life of the thread, which no other goroutine gets after it. It is not the main thread, whose namespace
// counts as that of the process.
func (m mounted) live() {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		elsewhere := make(chan struct{})
		go func() {
			runtime.LockOSThread() // while the main thread is locked it is another
			close(elsewhere)
			m.live()
		}()
		<-elsewhere
		runtime.UnlockOSThread()
		return
	}
	for job := range m.work {
		job()
	}
}

// on does something on the thread.
func (m mounted) on(job func()) {
	done := make(chan struct{})
	m.work <- func() {
		defer close(done)
		job()
	}
	<-done
}

// part leaves the mount namespace of this process for one of the thread's own, and opens the device there.
func part() (fd int, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return -1, fmt.Errorf("make a mount namespace: %w", err)
	}
	// Nothing that is mounted from here on, by us or by the program, is seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("part the mounts from those of the machine: %w", err)
	}
	fd, err = unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: device, Err: err}
	}
	return fd, nil
}

// possible does all that comes before a mount, on a thread that ends with it.
func possible() (err error) {
	m := mounted{work: make(chan func())}
	go m.live()
	defer close(m.work)
	m.on(func() {
		var fd int
		if fd, err = part(); err == nil {
			unix.Close(fd)
		}
	})
	return err
}

// serve mounts in a namespace of its own.
func serve(r *reader) (*fuse.Server, *node, error) {
	fd, err := part()
	if err != nil {
		return nil, nil, err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_RDONLY | unix.MS_NOATIME)
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d,allow_other", fd, os.Geteuid(), os.Getegid(), largest)
	if err := unix.Mount("chandler", r.Options.Mount, "fuse.chandler", flags, data); err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("mount at %s: %w", r.Options.Mount, err)
	}
	long := believed
	root := &node{r: r}
	server, err := fuse.NewServer(fs.NewNodeFS(root, &fs.Options{EntryTimeout: &long, AttrTimeout: &long}),
		fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
			Name: "chandler", MaxWrite: largest, DisableXAttrs: true, DisableSplice: true, DisableReadDirPlus: true,
			Logger: log.New(os.Stderr, "netfs: ", log.LstdFlags),
		})
	if err != nil {
		unix.Close(fd)
		unix.Unmount(r.Options.Mount, unix.MNT_DETACH)
		return nil, nil, fmt.Errorf("serve %s: %w", r.Options.Mount, err)
	}
	go server.Serve()
	readFarAhead(r.Options.Mount)
	return server, root, nil
}

// readFarAhead makes reading on less a matter of round trips. The default of the kernel works too.
func readFarAhead(mount string) {
	var stat unix.Stat_t
	if unix.Stat(mount, &stat) == nil {
		path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(stat.Dev), unix.Minor(stat.Dev))
		if file, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			file.WriteString(readahead)
			file.Close()
		}
	}
}

func (m mounted) start(cmd *exec.Cmd) error {
	err := errors.New("the mount is closed")
	if m.reader.ctx.Err() != nil {
		return err
	}
	m.on(func() { err = cmd.Start() })
	return err
}

func (m mounted) withdraw(lease string) { m.reader.withdraw(lease, m.root.forget) }

// close aborts the connection to the kernel (MNT_FORCE), so that whatever waits for it is answered, and takes the mount
// from whoever still uses it.
func (m mounted) close() error {
	var failed error
	m.once.Do(func() {
		m.reader.cancel()
		m.on(func() { failed = unix.Unmount(m.Options.Mount, unix.MNT_FORCE|unix.MNT_DETACH) })
		if errors.Is(failed, unix.EINVAL) || errors.Is(failed, unix.ENOENT) {
			failed = nil // the program, which may, has unmounted it
		}
		close(m.work)
		ended := make(chan struct{})
		go func() {
			m.server.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(endLimit):
			failed = errors.Join(failed, errors.New("requests are under way still"))
		}
		m.reader.close()
	})
	if failed != nil {
		return fmt.Errorf("unmount %s: %w", m.Options.Mount, failed)
	}
	return nil
}
