package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"chandler/services/integration/clustertest"
	"chandler/services/integration/faultfs"
)

// disk is what a broker keeps its files on; fs is nil where no such file system can be mounted.
type disk struct {
	at string
	fs *faultfs.FS
}

// mountDisk mounts a broker's disk, or leaves it out where that is impossible.
func (r *rig) mountDisk(dir, name string) string {
	d := disk{at: filepath.Join(dir, name, "store")}
	must(r.t, os.MkdirAll(d.at, 0o700))
	fs, err := faultfs.Mount(faultfs.Options{Dir: filepath.Join(dir, name, "disk"), At: d.at})
	if err != nil && !errors.Is(err, faultfs.ErrImpossible) {
		r.t.Fatal(err)
	}
	if err == nil {
		d.fs = fs
		r.t.Cleanup(func() {
			if err := fs.Close(); err != nil {
				r.t.Errorf("unmount %s: %v", d.at, err)
			}
		})
	}
	r.disks = append(r.disks, d)
	return d.at
}

func noDisks(r *rig) string {
	if r.disks[0].fs == nil {
		return faultfs.ErrImpossible.Error()
	}
	return ""
}

func (r *rig) anyDisk(random *rand.Rand) (*clustertest.Node, disk) {
	i := random.IntN(len(r.disks))
	return r.cluster.Nodes[i], r.disks[i]
}

func diskSlow(r *rig, random *rand.Rand) (string, func() error, error) {
	node, d := r.anyDisk(random)
	write, sync := time.Duration(random.IntN(20))*time.Millisecond, time.Duration(random.IntN(300))*time.Millisecond
	d.fs.Slow(write, sync)
	return fmt.Sprintf("%s: %s a write, %s a sync", node.Name, write, sync), func() error { d.fs.Slow(0, 0); return nil }, nil
}

// diskFull leaves a broker a few more bytes. It gives up what it keeps, so that it is started again when there is room.
func diskFull(r *rig, random *rand.Rand) (string, func() error, error) {
	node, d := r.anyDisk(random)
	left := int64(random.IntN(64 << 10))
	d.fs.Full(left)
	return fmt.Sprintf("%s: %d KiB left", node.Name, left>>10), func() error {
		d.fs.Full(-1)
		node.Kill()
		return node.Start()
	}, nil
}

// diskFails has a broker's disk refuse to write, or to sync. What it had not synced may be gone: as with a lost directory, the
// others must have everything before, and it after.
func diskFails(r *rig, random *rand.Rand) (string, func() error, error) {
	if err := r.whole(); err != nil {
		return "", nil, err
	}
	node, d := r.anyDisk(random)
	op, what := faultfs.Writes, "writes"
	if random.IntN(2) == 0 {
		op, what = faultfs.Syncs, "syncs"
	}
	d.fs.Fail(op)
	return node.Name + ": " + what, func() error {
		d.fs.Fail(0)
		node.Kill()
		return errors.Join(node.Start(), r.whole())
	}, nil
}

// powerCut cuts one broker's power: what its disk did not hold yet is gone, or is there in part. As with a lost directory, the
// others must have everything before, and it after.
func powerCut(r *rig, random *rand.Rand) (string, func() error, error) {
	if err := r.whole(); err != nil {
		return "", nil, err
	}
	node, d := r.anyDisk(random)
	node.Kill()
	left := d.at + ".left"
	err := d.fs.CutKeeping(left, random.Uint64())
	if err == nil {
		err = errors.Join(emptied(d.at), os.CopyFS(d.at, os.DirFS(left)), os.RemoveAll(left), d.fs.Sync())
	}
	return node.Name, r.whole, errors.Join(err, node.Start())
}
