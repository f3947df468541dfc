package faultfs

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// cut writes to a directory what a power cut at this moment leaves; chance says what is kept beyond what must be, nil:
// nothing. The disk itself is as before.
func (d *disk) cut(to string, chance *rand.Rand) (err error) {
	if chance == nil {
		return d.layOut(d.root, to)
	}
	scratch := filepath.Clean(to) + ".blobs"
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	left, files, err := d.clone(scratch)
	if err != nil {
		return err
	}
	if err := left.commit(left.first + chance.IntN(len(left.log)+1)); err != nil {
		return err
	}
	for _, n := range files {
		if n.truncations > 0 || len(n.dirty) == 0 { // blocks are found for new data after the truncation is logged
			continue
		}
		if _, err := os.Stat(left.blob(n)); errors.Is(err, os.ErrNotExist) {
			continue // the file itself is not there, or no more
		}
		if err := left.copy(n, keep(chance, n.dirty)); err != nil {
			return err
		}
	}
	return left.layOut(left.root, to)
}

// keep chooses of what is not durable none, the first pages, or any pages.
func keep(chance *rand.Rand, dirty []extent) (kept []extent) {
	var pages []extent
	for _, e := range dirty {
		for from := e.from; from < e.to; {
			to := min(e.to, (from/pageSize+1)*pageSize)
			pages = append(pages, extent{from: from, to: to})
			from = to
		}
	}
	switch chance.IntN(3) {
	case 0:
		return nil
	case 1:
		return pages[:chance.IntN(len(pages)+1)]
	}
	return slices.DeleteFunc(pages, func(extent) bool { return chance.IntN(2) == 0 })
}

// clone copies the disk, with its files to a directory; what is read of programs' files is shared.
func (d *disk) clone(dir string) (*disk, []*inode, error) {
	c := &disk{dir: dir, next: d.next, first: d.first, auto: d.auto, clock: d.clock}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make room for a copy: %w", err)
	}
	twins := map[*inode]*inode{}
	var twin func(n *inode) *inode
	twin = func(n *inode) *inode {
		if n == nil || twins[n] != nil {
			return twins[n]
		}
		t := *n
		twins[n] = &t
		t.linked = true // so that nothing is let go of that the disk still has
		t.dirty = slices.Clone(n.dirty)
		if n.dir {
			t.children = map[string]*inode{}
			for name, child := range n.children {
				t.children[name] = twin(child)
			}
		}
		return &t
	}
	c.root = twin(d.root)
	for _, e := range d.log {
		e.file, e.parent, e.onto = twin(e.file), twin(e.parent), twin(e.onto)
		c.log = append(c.log, e)
	}
	var files []*inode
	for n, t := range twins {
		if n.dir {
			continue
		}
		files = append(files, t)
		if err := copyFile(c.blob(t), d.blob(n), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, nil, err
		}
	}
	slices.SortFunc(files, func(a, b *inode) int { return cmp.Compare(a.id, b.id) })
	return c, files, nil
}
