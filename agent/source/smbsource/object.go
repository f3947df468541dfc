package smbsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/cloudsoda/go-smb2"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// object is a file or folder that is open at a server.
type object struct {
	source  *Source
	session *session
	target  target
	share   *smb2.Share
	info    source.Info
	opened  version

	handle sync.RWMutex // held while file is used; for writing while it is another
	file   *smb2.File

	requests sync.WaitGroup // that use file; none are added once closed is set
	mu       sync.Mutex
	closed   bool
	checked  time.Time // when the file was last seen to be what was opened
	lost     error     // why nothing more can be read of it: it is another, or gone
	reading  reading
}

// checkEvery is how often a file is compared with what was opened, at least, while it is read.
const checkEvery = time.Second

// open opens the file and notes what it is.
func (o *object) open() error {
	file, err := o.share.Open(backslashed(o.target.path))
	if err != nil {
		if parent := path.Dir(o.target.path); errors.Is(err, fs.ErrNotExist) && parent != "." {
			if _, above := o.share.Stat(backslashed(parent)); errors.Is(above, fs.ErrNotExist) {
				return &source.Error{Reason: events.SourceNotFound, Answer: source.Answer("no such folder", source.PathNotFound), Err: err}
			}
		}
		return err
	}
	stat, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	o.file, o.info, o.opened, o.checked = file, infoOf(stat), versionOf(stat), time.Now()
	o.info.Name = path.Base(o.target.share + "/" + o.target.path)
	return nil
}

// version tells one state of a file from another.
type version struct {
	id              uint64
	size            int64
	written, change time.Time
}

func versionOf(stat fs.FileInfo) version {
	v := version{size: stat.Size(), written: stat.ModTime()}
	if more, ok := stat.Sys().(*smb2.FileStat); ok {
		v.id, v.change = more.FileId, more.ChangeTime
	}
	return v
}

func (v version) String() string {
	return fmt.Sprintf("file %d of %d bytes, written %s, changed %s", v.id, v.size, v.written.UTC().Format(time.RFC3339Nano), v.change.UTC().Format(time.RFC3339Nano))
}

func backslashed(path string) string { return strings.ReplaceAll(path, "/", `\`) }

func infoOf(stat fs.FileInfo) source.Info {
	i := source.Info{Name: stat.Name(), Folder: stat.IsDir(), Modified: stat.ModTime()}
	if !i.Folder {
		i.Size = stat.Size()
	}
	return i
}

func (o *object) Info() source.Info { return o.info }

// enter counts a request that uses the file, until leave.
func (o *object) enter() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return fmt.Errorf("read %s: %w", o.info.Name, fs.ErrClosed)
	}
	o.requests.Add(1)
	return nil
}

func (o *object) leave() { o.requests.Done() }

// ReadAt reads from the pieces that are there or on their way.
func (o *object) ReadAt(ctx context.Context, p []byte, offset int64) (n int, err error) {
	if err := o.enter(); err != nil {
		return 0, err
	}
	defer o.leave()
	switch {
	case o.info.Folder:
		return 0, &source.Error{Reason: events.SourceUnsupported, Answer: "a folder cannot be read as a file"}
	case offset < 0:
		return 0, fmt.Errorf("read %s: negative offset", o.info.Name)
	case offset >= o.info.Size:
		return 0, io.EOF
	}
	o.mu.Lock()
	lost := o.lost
	o.mu.Unlock()
	if lost != nil {
		return 0, lost
	}
	end := min(offset+int64(len(p)), o.info.Size)
	for at := offset; at < end; at = offset + int64(n) {
		piece := o.piece(at, end)
		select {
		case <-piece.done:
		case <-ctx.Done():
			return n, context.Cause(ctx)
		}
		if piece.err != nil {
			return n, piece.err
		}
		n += copy(p[n:end-offset], piece.data[at-piece.offset:])
	}
	o.read(offset, end)
	if err := o.compare(ctx, end == o.info.Size && n > 0); err != nil {
		return n, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// compare says whether the file is still what was opened, if its end was read or it is time to ask. At the end it is opened
// anew: to whoever has a file open Samba tells the times of when it was opened, unless the writer came through Samba too.
func (o *object) compare(ctx context.Context, end bool) error {
	o.mu.Lock()
	lost, since := o.lost, time.Since(o.checked)
	o.mu.Unlock()
	if lost != nil || !end && since < checkEvery {
		return lost
	}
	if err := o.enter(); err != nil {
		return err
	}
	_, err := await(ctx, func() (struct{}, error) {
		defer o.leave()
		return struct{}{}, o.session.do(func() error {
			if end {
				return o.reopen()
			}
			o.handle.RLock()
			defer o.handle.RUnlock()
			return o.same(o.file)
		})
	}, nil)
	return err
}

// reopen puts a new handle in the place of the old one.
func (o *object) reopen() error {
	o.handle.Lock()
	defer o.handle.Unlock()
	if err := o.file.Close(); err != nil {
		return err
	}
	file, err := o.share.Open(backslashed(o.target.path))
	if errors.Is(err, fs.ErrNotExist) {
		return o.other("it is gone")
	}
	if err != nil {
		return o.lose(o.session.answer(err))
	}
	o.file = file
	return o.same(file)
}

// same compares a file with the one that was opened.
func (o *object) same(file *smb2.File) error {
	stat, err := file.Stat()
	if err != nil {
		return err
	}
	if now := versionOf(stat); now != o.opened {
		return o.other(fmt.Sprintf("it was %s, and is %s", o.opened, now))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.checked = time.Now()
	return o.lost
}

// other notes that the file is no longer what was opened.
func (o *object) other(what string) error {
	return o.lose(&source.Error{Reason: events.ContentChanged, Answer: "the file changed while it was read: " + what})
}

// lose notes why nothing more can be read; the first reason stays.
func (o *object) lose(why error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lost == nil {
		o.lost = why
	}
	return o.lost
}

// List opens the folder anew, since a handle lists only once. Names that no address can spell are left out.
func (o *object) List(ctx context.Context) ([]source.Info, error) {
	if !o.info.Folder {
		return nil, &source.Error{Reason: events.SourceUnsupported, Answer: "a file cannot be listed as a folder"}
	}
	if err := o.enter(); err != nil {
		return nil, err
	}
	return await(ctx, func() (list []source.Info, err error) {
		defer o.leave()
		err = o.session.do(func() error {
			list, err = o.list()
			return err
		})
		return list, err
	}, nil)
}

func (o *object) list() ([]source.Info, error) {
	folder, err := o.share.Open(backslashed(o.target.path))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	entries, err := folder.Readdir(source.MaxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(entries) > source.MaxEntries {
		return nil, &source.Error{Reason: events.SourceUnsupported, Answer: fmt.Sprintf("the folder holds more than %d files", source.MaxEntries)}
	}
	list := make([]source.Info, 0, len(entries))
	for _, entry := range entries {
		if speakable(entry.Name()) {
			list = append(list, infoOf(entry))
		}
	}
	slices.SortFunc(list, func(a, b source.Info) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// speakable says whether a name that a server told can be part of an address, and is one part.
func speakable(name string) bool {
	if name == "" || strings.ContainsAny(name, `/\:*?"<>|`) || strings.ContainsRune(name, utf8.RuneError) {
		return false
	}
	_, err := resource.Parse(resource.Resource{Scheme: resource.SMB, Host: "h", Path: "/s/" + name}.String())
	return err == nil
}

// closing is how long Close waits for the server, and how long what nobody waits for may keep a session that nobody else uses.
const closing = time.Second

// Close always succeeds: a reader has nothing to lose.
func (o *object) Close() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil
	}
	o.closed = true
	o.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		giveUp := time.AfterFunc(closing, func() { o.source.endSole(o.session) })
		o.requests.Wait()
		_ = o.session.do(o.shut)
		giveUp.Stop()
		o.source.release(o.session)
	}()
	patience := time.NewTimer(2 * closing)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	}
	return nil
}

func (o *object) shut() error {
	o.handle.Lock()
	defer o.handle.Unlock()
	return o.file.Close()
}
