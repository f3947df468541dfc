package faultfs

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// inode is a file or a directory: what the disk holds of it, and what it will hold.
type inode struct {
	id  int // names its file in the disk's directory
	dir bool
	// children are the durable names; nil in a file.
	children map[string]*inode
	mode     os.FileMode
	// live is the content as programs see it, for reading; nil until the first write.
	live  *os.File
	dirty []extent // written and not durable, oldest first, none over another
	// changed is the length of the log after the last change of this file or directory.
	changed int
	// truncations counts those that are in the log and not durable.
	truncations int
	emptied     bool // truncated to nothing since it was last closed
	linked      bool // has a name for programs
	gone        bool // let go of: neither programs nor the disk have a name for it
}

// extent is a range of a file.
type extent struct {
	from, to int64
	at       time.Time
	change   int // the length of the log when it was written
}

// entry is one change in the log.
type entry struct {
	what   change
	at     time.Time
	file   *inode
	parent *inode // of name
	name   string
	onto   *inode // directory that it is moved to
	newer  string // name there
	size   int64
	number int // of the entry, counted from the mount
}

type change int

const (
	made change = iota
	moved
	removed
	truncated
	allocated // data written until here is durable with this entry
)

// disk is what is durable, and the log of what is not yet. The caller locks.
type disk struct {
	dir   string // holds a file per inode
	root  *inode
	next  int
	first int // number of the first entry of log
	log   []entry
	auto  bool // auto_da_alloc
	clock func() time.Time
}

func newDisk(dir string, auto bool, clock func() time.Time) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the durable files: %w", err)
	}
	d := &disk{dir: dir, auto: auto, clock: clock}
	d.root = d.newInode(true, 0o700)
	return d, nil
}

func (d *disk) newInode(dir bool, mode os.FileMode) *inode {
	d.next++
	n := &inode{id: d.next, dir: dir, mode: mode.Perm(), linked: true}
	if dir {
		n.children = map[string]*inode{}
	}
	return n
}

func (d *disk) blob(n *inode) string { return filepath.Join(d.dir, strconv.Itoa(n.id)) }

// end is the length of the whole log.
func (d *disk) end() int { return d.first + len(d.log) }

func (d *disk) append(e entry) error {
	e.at, e.number = d.clock(), d.end()
	d.log = append(d.log, e)
	for _, n := range []*inode{e.file, e.parent, e.onto} {
		if n != nil {
			n.changed = d.end()
		}
	}
	return d.age()
}

// make logs a new file or directory.
func (d *disk) make(parent *inode, name string, dir bool, mode os.FileMode) (*inode, error) {
	n := d.newInode(dir, mode)
	return n, d.append(entry{what: made, file: n, parent: parent, name: name})
}

// move logs a rename; over is what had the new name before, nil: nothing.
func (d *disk) move(n, parent *inode, name string, onto *inode, newer string, over *inode) error {
	if over != nil {
		over.linked = false
		if d.auto && !n.dir {
			if err := d.append(entry{what: allocated, file: n}); err != nil {
				return err
			}
		}
	}
	return d.append(entry{what: moved, file: n, parent: parent, name: name, onto: onto, newer: newer})
}

func (d *disk) remove(n, parent *inode, name string) error {
	n.linked = false
	return d.append(entry{what: removed, file: n, parent: parent, name: name})
}

// truncate logs that a file is so long now; what was written beyond is nobody's any more.
func (d *disk) truncate(n *inode, size int64) error {
	n.dirty = slices.DeleteFunc(n.dirty, func(e extent) bool { return e.from >= size })
	for i := range n.dirty {
		n.dirty[i].to = min(n.dirty[i].to, size)
	}
	n.truncations++
	n.emptied = n.emptied || size == 0
	return d.append(entry{what: truncated, file: n, size: size})
}

// closed notes that a program closed a file that it may have emptied and written anew.
func (d *disk) closed(n *inode) error {
	if !n.emptied {
		return nil
	}
	n.emptied = false
	if !d.auto || len(n.dirty) == 0 {
		return nil
	}
	return d.append(entry{what: allocated, file: n})
}

// write notes that a range of a file was written.
func (d *disk) write(n *inode, from, to int64) error {
	if n.gone {
		return nil
	}
	n.changed = d.end()
	now := d.clock()
	if len(n.dirty) > 0 && now.Sub(n.dirty[0].at) >= WrittenBack {
		if err := d.writeBack(n); err != nil {
			return err
		}
	}
	if last := len(n.dirty) - 1; last >= 0 && n.dirty[last].to == from && n.dirty[last].change == n.changed && now.Sub(n.dirty[last].at) < time.Second {
		n.dirty[last].to = to
		return nil
	}
	var kept []extent
	for _, e := range n.dirty {
		if e.from < from {
			kept = append(kept, extent{e.from, min(e.to, from), e.at, e.change})
		}
		if e.to > to {
			kept = append(kept, extent{max(e.from, to), e.to, e.at, e.change})
		}
	}
	n.dirty = append(kept, extent{from, to, now, n.changed})
	return d.age()
}

// sync is fsync of a file or directory.
func (d *disk) sync(n *inode) error {
	if err := d.commit(n.changed); err != nil {
		return err
	}
	return d.flush(n, func(extent) bool { return true })
}

// age makes durable what the kernel has written by itself.
func (d *disk) age() error {
	now := d.clock()
	old := 0
	for old < len(d.log) && now.Sub(d.log[old].at) >= Committed {
		old++
	}
	return d.commit(d.first + old)
}

// writeBack makes durable what is as old in a file as the kernel lets it become.
func (d *disk) writeBack(n *inode) error {
	if err := d.age(); err != nil {
		return err
	}
	now := d.clock()
	return d.flush(n, func(e extent) bool { return now.Sub(e.at) >= WrittenBack })
}

// commit makes the log durable up to a length.
func (d *disk) commit(until int) error {
	for d.first < until && len(d.log) > 0 {
		e := d.log[0]
		d.log = d.log[1:]
		d.first++
		if err := d.apply(e); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) apply(e entry) error {
	switch e.what {
	case made:
		e.parent.children[e.name] = e.file
		if !e.file.dir {
			return os.WriteFile(d.blob(e.file), nil, 0o600)
		}
	case moved:
		over := e.onto.children[e.newer]
		delete(e.parent.children, e.name)
		e.onto.children[e.newer] = e.file
		return d.forget(over)
	case removed:
		delete(e.parent.children, e.name)
		return d.forget(e.file)
	case truncated:
		if e.file.truncations--; e.file.gone {
			return nil
		}
		return os.Truncate(d.blob(e.file), e.size)
	case allocated:
		return d.flush(e.file, func(x extent) bool { return x.change <= e.number })
	}
	return nil
}

// forget lets go of a file that has no name any more, here and for programs.
func (d *disk) forget(n *inode) error {
	if n == nil || n.dir || n.linked {
		return nil
	}
	n.dirty, n.gone = nil, true
	return errors.Join(n.release(), os.Remove(d.blob(n)))
}

// release closes what was opened to read a file's content.
func (n *inode) release() error {
	if n.live == nil {
		return nil
	}
	err := n.live.Close()
	n.live = nil
	return err
}

// flush copies written ranges of a file to the durable one.
func (d *disk) flush(n *inode, which func(extent) bool) error {
	var chosen []extent
	n.dirty = slices.DeleteFunc(n.dirty, func(e extent) bool {
		if which(e) {
			chosen = append(chosen, e)
		}
		return which(e)
	})
	if len(chosen) == 0 {
		return nil
	}
	return d.copy(n, chosen)
}

func (d *disk) copy(n *inode, ranges []extent) error {
	blob, err := os.OpenFile(d.blob(n), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer blob.Close()
	for _, e := range ranges {
		if _, err := io.Copy(io.NewOffsetWriter(blob, e.from), io.NewSectionReader(n.live, e.from, e.to-e.from)); err != nil {
			return err
		}
	}
	return blob.Close()
}

// load takes a directory with all that it holds as durable. see is told each file and directory.
func (d *disk) load(dir string, n *inode, see func(*inode, os.FileInfo)) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		child := d.newInode(info.IsDir(), info.Mode())
		n.children[e.Name()] = child
		see(child, info)
		path := filepath.Join(dir, e.Name())
		switch {
		case info.IsDir():
			err = d.load(path, child, see)
		case info.Mode().IsRegular():
			err = copyFile(d.blob(child), path, 0o600)
		default:
			err = fmt.Errorf("%s is neither a file nor a directory", path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// layOut writes the durable state into a directory.
func (d *disk) layOut(n *inode, to string) error {
	if err := os.Mkdir(to, n.mode|0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		child, path := n.children[name], filepath.Join(to, name)
		var err error
		if child.dir {
			err = d.layOut(child, path)
		} else {
			err = copyFile(path, d.blob(child), child.mode)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
