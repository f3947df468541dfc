package faultfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/services/integration/faultfs"
)

// rig is a mounted file system whose clock stands still unless it is moved.
type rig struct {
	t  testing.TB
	fs *faultfs.FS
	at string
	by atomic.Int64 // what the clock is ahead of zero
}

func newRig(t testing.TB, change ...func(*faultfs.Options)) *rig {
	t.Helper()
	faultfs.Need(t)
	r := &rig{t: t, at: filepath.Join(t.TempDir(), "mount")}
	o := faultfs.Options{Dir: filepath.Join(t.TempDir(), "dir"), At: r.at, Clock: func() time.Time { return time.Unix(0, r.by.Load()) }}
	for _, c := range change {
		c(&o)
	}
	var err error
	r.fs, err = faultfs.Mount(o)
	must(t, err)
	t.Cleanup(func() {
		if err := r.fs.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.at, name) }

// write writes text at an offset, which may make the file; negative: at its end.
func (r *rig) write(name, text string, at int64, flags int) {
	r.t.Helper()
	file, err := os.OpenFile(r.path(name), os.O_RDWR|os.O_CREATE|flags, 0o600)
	must(r.t, err)
	defer file.Close()
	if at < 0 {
		info, err := file.Stat()
		must(r.t, err)
		at = info.Size()
	}
	_, err = file.WriteAt([]byte(text), at)
	must(r.t, err)
	must(r.t, file.Close())
}

func (r *rig) put(name, text string)    { r.t.Helper(); r.write(name, text, 0, os.O_TRUNC) }
func (r *rig) append(name, text string) { r.t.Helper(); r.write(name, text, -1, 0) }
func (r *rig) mkdir(name string)        { r.t.Helper(); must(r.t, os.Mkdir(r.path(name), 0o700)) }
func (r *rig) remove(name string)       { r.t.Helper(); must(r.t, os.Remove(r.path(name))) }
func (r *rig) rename(from, to string)   { r.t.Helper(); must(r.t, os.Rename(r.path(from), r.path(to))) }
func (r *rig) truncate(name string, n int64) {
	r.t.Helper()
	must(r.t, os.Truncate(r.path(name), n))
}

// sync is fsync of a file or directory.
func (r *rig) sync(name string) {
	r.t.Helper()
	file, err := os.Open(r.path(name))
	must(r.t, err)
	defer file.Close()
	must(r.t, file.Sync())
}

// tree is a directory as text: "name/" of directories, "name=content" of files.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	list := []string{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			list = append(list, name+"/")
			return nil
		}
		content, err := os.ReadFile(path)
		list = append(list, name+"="+string(content))
		return err
	}))
	return list
}

func (r *rig) cut() []string {
	r.t.Helper()
	to := filepath.Join(r.t.TempDir(), "cut")
	must(r.t, r.fs.Cut(to))
	return tree(r.t, to)
}

func (r *rig) cutKeeping(seed uint64) []string {
	r.t.Helper()
	to := filepath.Join(r.t.TempDir(), "cut")
	must(r.t, r.fs.CutKeeping(to, seed))
	return tree(r.t, to)
}

func TestACutLeavesWhatIsDurable(t *testing.T) {
	for name, c := range map[string]struct {
		do       func(r *rig)
		want     []string
		careless []string // without auto_da_alloc; nil: the same
	}{
		"nothing, of a file that nobody synced": {do: func(r *rig) { r.put("a", "1") }, want: []string{}},
		"a new file that was synced, with its name and without a sync of its directory": {
			do: func(r *rig) { r.mkdir("d"); r.put("d/a", "1"); r.sync("d/a") }, want: []string{"d/", "d/a=1"}},
		"of what was written after the last sync, nothing": {
			do:   func(r *rig) { r.put("a", "12"); r.sync("a"); r.append("a", "34"); r.write("a", "x", 0, 0) },
			want: []string{"a=12"}},
		"what was written in between, with the next sync": {
			do: func(r *rig) {
				r.put("a", "12345")
				r.sync("a")
				r.write("a", "x", 1, 0)
				r.write("a", "yz", 2, 0)
				r.write("a", "-", 2, 0)
				r.sync("a")
			},
			want: []string{"a=1x-z5"}},
		"what was written by O_SYNC":  {do: func(r *rig) { r.write("a", "1", 0, syscall.O_SYNC) }, want: []string{"a=1"}},
		"what was written by O_DSYNC": {do: func(r *rig) { r.write("a", "1", 0, syscall.O_DSYNC) }, want: []string{"a=1"}},
		"names that a directory's sync covers, of empty files": {
			do: func(r *rig) { r.mkdir("d"); r.put("d/a", "1"); r.sync("d"); r.put("d/b", "2") }, want: []string{"d/", "d/a="}},
		"names that were there before a synced change elsewhere": {
			do: func(r *rig) { r.put("early", "1"); r.put("a", "2"); r.sync("a"); r.put("late", "3") }, want: []string{"a=2", "early="}},
		"the old name of a file whose rename was not synced": {
			do: func(r *rig) { r.put("a", "1"); r.sync("a"); r.rename("a", "b") }, want: []string{"a=1"}},
		"the new name of a file that was synced after the rename": {
			do: func(r *rig) { r.put("a", "1"); r.rename("a", "b"); r.sync("b") }, want: []string{"b=1"}},
		"the new name of a file whose directory was synced after the rename": {
			do: func(r *rig) {
				r.mkdir("d")
				r.put("a", "1")
				r.sync("a")
				r.rename("a", "d/b")
				r.sync("d")
			}, want: []string{"d/", "d/b=1"}},
		"the old file where the one in its place was not synced": {
			do: func(r *rig) { r.put("a", "old"); r.sync("a"); r.put("new", "new"); r.rename("new", "a") }, want: []string{"a=old"}},
		"all of a file that was renamed over another one, once that is durable": {
			do: func(r *rig) {
				r.put("a", "old")
				r.sync("a")
				r.put("new", "new")
				r.rename("new", "a")
				r.sync("")
			},
			want: []string{"a=new"}, careless: []string{"a="}},
		"an empty file, where it was given a name that was free": {
			do: func(r *rig) { r.put("new", "new"); r.rename("new", "a"); r.sync("") }, want: []string{"a="}},
		"a file that was removed, until that is durable": {
			do:   func(r *rig) { r.put("a", "1"); r.sync("a"); r.remove("a") },
			want: []string{"a=1"}},
		"no file that was removed and whose directory was synced": {
			do:   func(r *rig) { r.put("a", "1"); r.sync("a"); r.remove("a"); r.sync("") },
			want: []string{}},
		"the second file of a name": {
			do: func(r *rig) { r.put("a", "1"); r.sync("a"); r.remove("a"); r.put("a", "2"); r.sync("a") }, want: []string{"a=2"}},
		"no removed directory": {
			do: func(r *rig) {
				r.mkdir("d")
				r.mkdir("e")
				r.sync("")
				r.remove("d")
				r.rename("e", "f")
				r.sync("f")
			},
			want: []string{"f/"}},
		"a truncation that is durable, and not what was written after it": {
			do: func(r *rig) {
				r.put("a", "123456")
				r.sync("a")
				r.truncate("a", 4)
				r.append("a", "xy")
				r.put("b", "")
				r.sync("b")
			},
			want: []string{"a=1234", "b="}},
		"no truncation that is not": {
			do: func(r *rig) { r.put("a", "123456"); r.sync("a"); r.truncate("a", 4); r.append("a", "xy") }, want: []string{"a=123456"}},
		"what was truncated and written again, with a sync": {
			do: func(r *rig) {
				r.put("a", "123456")
				r.truncate("a", 2)
				r.append("a", "xy")
				r.truncate("a", 3)
				r.truncate("a", 5)
				r.sync("a")
			},
			want: []string{"a=12x\x00\x00"}},
		"of a file that was emptied and written anew, all or, where nobody sees to it, nothing": {
			do:   func(r *rig) { r.put("a", "old"); r.sync("a"); r.put("a", "new"); r.put("b", ""); r.sync("b") },
			want: []string{"a=new", "b="}, careless: []string{"a=", "b="}},
		"names as old as the kernel lets the log become, and no data yet": {
			do: func(r *rig) { r.put("a", "1"); r.pass(faultfs.Committed); r.put("b", "1") }, want: []string{"a="}},
		"data as old as the kernel lets it become": {
			do: func(r *rig) { r.put("a", "1"); r.pass(faultfs.WrittenBack); r.append("a", "2") }, want: []string{"a=1"}},
		"everything after a sync of everything": {
			do: func(r *rig) {
				r.mkdir("d")
				r.put("d/a", "1")
				r.rename("d", "e")
				r.put("b", "2")
				must(r.t, r.fs.Sync())
				r.append("b", "3")
			},
			want: []string{"b=2", "e/", "e/a=1"}},
	} {
		t.Run(name, func(t *testing.T) {
			for careless, want := range map[bool][]string{false: c.want, true: c.careless} {
				if want == nil {
					want = c.want
				}
				r := newRig(t, func(o *faultfs.Options) { o.NoAutoAlloc = careless })
				c.do(r)
				if diff := cmp.Diff(want, r.cut()); diff != "" {
					t.Errorf("careless %t, -want +got\n%s", careless, diff)
				}
				for seed := range uint64(5) { // whatever is kept, a cut later leaves the same
					r.cutKeeping(seed)
				}
				if diff := cmp.Diff(want, r.cut()); diff != "" {
					t.Errorf("careless %t, once more: -want +got\n%s", careless, diff)
				}
			}
		})
	}
}

func (r *rig) pass(d time.Duration) { r.by.Add(int64(d)) }

func TestAFileThatStaysOpenIsDurableByItsSyncsAlone(t *testing.T) {
	r := newRig(t)
	file, err := os.OpenFile(r.path("log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	defer file.Close()
	for i := range 100 {
		_, err := fmt.Fprintf(file, "%02d,", i)
		must(t, err)
		if i == 49 {
			must(t, file.Sync())
		}
	}
	if got := r.cut(); len(got) != 1 || !strings.HasSuffix(got[0], "49,") {
		t.Errorf("left is %q", got)
	}
	// A file that has lost its name goes on, and is nowhere after the cut.
	r.remove("log")
	_, err = file.WriteString("more")
	must(t, err)
	must(t, file.Sync())
	r.sync("")
	_, err = file.WriteString("still more")
	must(t, err)
	must(t, file.Truncate(1))
	must(t, file.Sync())
	if got := r.cut(); len(got) != 0 {
		t.Errorf("left is %q", got)
	}
}

func TestACutThatKeepsMoreKeepsWhatADiskMayHold(t *testing.T) {
	r := newRig(t)
	r.put("a", "0000")
	r.sync("a")
	page := strings.Repeat("x", 4096)
	r.append("a", page[:4092]+page+page)
	r.put("b", "1")
	r.put("c", "2")
	r.rename("c", "d")
	r.remove("b")
	seen := map[string]bool{}
	for seed := range uint64(200) {
		got := r.cutKeeping(seed)
		if diff := cmp.Diff(got, r.cutKeeping(seed)); diff != "" {
			t.Fatalf("seed %d is not repeatable: %s", seed, diff)
		}
		content, _ := strings.CutPrefix(got[0], "a=")
		names := ""
		for _, line := range got[1:] {
			names += line[:1]
		}
		if !slices.Contains([]string{"", "b", "bc", "bd", "d"}, names) {
			t.Errorf("seed %d: names %q, which never were", seed, names)
		}
		if n := len(content); !strings.HasPrefix(content, "0000") || n != 4 && n != 4096 && n != 8192 && n != 12288 || strings.Trim(content[4:], "x\x00") != "" {
			t.Errorf("seed %d: %d bytes, %.20q…", seed, n, content)
		}
		hole := strings.Contains(content, "\x00")
		seen[fmt.Sprintf("%d,%t", len(content), hole)] = true
		seen[names] = true
	}
	for _, want := range []string{"", "b", "bc", "bd", "d", "4,false", "4096,false", "8192,false", "12288,false", "8192,true", "12288,true"} {
		if !seen[want] {
			t.Errorf("no seed left %q", want)
		}
	}
}

// TestWhateverWasSyncedOutlivesEveryCut does many things at random, and after each looks whether the files that were
// not touched since their sync are there in every cut.
func TestWhateverWasSyncedOutlivesEveryCut(t *testing.T) {
	for seed := range uint64(4) {
		r := newRig(t, func(o *faultfs.Options) { o.NoAutoAlloc = seed%2 == 1 })
		chance := rand.New(rand.NewPCG(seed, 1))
		live, synced, shown := map[string]string{}, map[string]string{}, 0
		for step := range 300 {
			name := string(rune('a' + chance.IntN(6)))
			_, there := live[name]
			text := fmt.Sprintf("%d;", step)
			switch what := chance.IntN(6); {
			case what == 0:
				r.put(name, text)
				live[name] = text
				delete(synced, name)
			case what == 1:
				r.append(name, text)
				live[name] += text
				delete(synced, name)
			case what == 2 && there:
				r.sync(name)
				synced[name] = live[name]
			case what == 3 && there:
				r.remove(name)
				delete(live, name)
				delete(synced, name)
			case what == 4 && there:
				other := string(rune('a' + chance.IntN(6)))
				if other == name {
					continue
				}
				r.rename(name, other)
				live[other] = live[name]
				delete(live, name)
				delete(synced, name)
				delete(synced, other)
			case what == 5:
				r.pass(time.Duration(chance.IntN(2)) * time.Second)
			}
			shown += len(synced)
			if step%10 == 0 {
				r.holds(synced, r.cut())
				r.holds(synced, r.cutKeeping(chance.Uint64()))
			}
		}
		if shown < 50 {
			t.Fatal("the test shows nothing")
		}
		must(t, r.fs.Sync())
		if diff := cmp.Diff(tree(t, r.at), r.cut()); diff != "" {
			t.Errorf("seed %d: synced all, -live +cut\n%s", seed, diff)
		}
	}
}

func (r *rig) holds(synced map[string]string, cut []string) {
	r.t.Helper()
	for name, content := range synced {
		if !slices.Contains(cut, name+"="+content) {
			r.t.Fatalf("%s=%s was synced; left is %q", name, content, cut)
		}
	}
}

func TestWhatLivedThroughACutIsMountedAgain(t *testing.T) {
	r := newRig(t)
	r.mkdir("d")
	r.put("d/a", "1")
	r.sync("d/a")
	dir := t.TempDir()
	must(t, r.fs.Cut(filepath.Join(dir, "live")))
	again := newRig(t, func(o *faultfs.Options) { o.Dir = dir })
	again.append("d/a", "2")
	again.put("d/b", "3")
	if diff := cmp.Diff([]string{"d/", "d/a=12", "d/b=3"}, tree(t, again.at)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"d/", "d/a=1"}, again.cut()); diff != "" {
		t.Error(diff)
	}
}

func TestAFullFileSystemTakesNoMoreUntilThereIsRoom(t *testing.T) {
	r := newRig(t)
	r.put("a", "1234567890")
	r.fs.Full(5)
	file, err := os.OpenFile(r.path("b"), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer file.Close()
	if n, err := file.WriteString("12345678"); n != 5 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d, %v", n, err)
	}
	if _, err := file.WriteAt([]byte("xxxxx"), 0); err != nil {
		t.Errorf("in place: %v", err)
	}
	var stat syscall.Statfs_t
	must(t, syscall.Statfs(r.at, &stat))
	if stat.Bavail != 0 {
		t.Errorf("%d blocks are said to be free", stat.Bavail)
	}
	r.truncate("a", 7)
	if n, err := file.WriteString("678"); n != 3 || err != nil {
		t.Errorf("after a truncation wrote %d, %v", n, err)
	}
	r.remove("a")
	if n, err := file.WriteString("12345678"); n != 7 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("after a removal wrote %d, %v", n, err)
	}
	r.fs.Full(-1)
	if _, err := file.WriteString("more"); err != nil {
		t.Error(err)
	}
}

func TestABrokenFileSystemFailsWhatItIsToldTo(t *testing.T) {
	r := newRig(t)
	file, err := os.OpenFile(r.path("a"), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer file.Close()
	write := func(text string) error { _, err := file.WriteString(text); return err }
	must(t, write("1"))
	must(t, file.Sync())
	for ops, do := range map[faultfs.Op]func() error{
		faultfs.Writes: func() error { return write("x") },
		faultfs.Syncs:  func() error { return errors.Join(write("2"), file.Sync()) },
		faultfs.Names:  func() error { return os.Rename(r.path("a"), r.path("b")) },
		faultfs.Reads: func() error {
			other, err := os.OpenFile(r.path("a"), syscall.O_DIRECT, 0)
			if err != nil {
				return err
			}
			defer other.Close()
			_, err = other.ReadAt(make([]byte, 4096), 0)
			return err
		},
	} {
		r.fs.Fail(ops)
		if err := do(); !errors.Is(err, syscall.EIO) {
			t.Errorf("operations %b: %v", ops, err)
		}
		r.fs.Fail(0)
	}
	// What could not be synced is given up, although the next sync succeeds.
	must(t, write("3"))
	must(t, file.Sync())
	if diff := cmp.Diff([]string{"a=1\x003"}, r.cut()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a=123"}, tree(t, r.at)); diff != "" {
		t.Error(diff)
	}
}

func TestASlowFileSystemTakesItsTimeAndEndsWithTheMount(t *testing.T) {
	r := newRig(t)
	const pause = 30 * time.Millisecond
	r.fs.Slow(pause, 2*pause)
	began := time.Now()
	file, err := os.OpenFile(r.path("a"), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer file.Close()
	_, err = file.WriteString("1")
	must(t, err)
	must(t, file.Sync())
	if took := time.Since(began); took < 3*pause {
		t.Errorf("it took %s", took)
	}
	r.fs.Slow(time.Hour, 0)
	ended := make(chan error)
	go func() {
		_, err := file.WriteString("2")
		ended <- err
	}()
	must(t, r.fs.Close())
	if err := <-ended; err == nil {
		t.Error("written to what is not mounted")
	}
}

// BenchmarkAppend appends messages as a broker does, a sync now and then, here and on the directory itself.
func BenchmarkAppend(b *testing.B) {
	r := newRig(b, func(o *faultfs.Options) { o.Clock = nil })
	for name, dir := range map[string]string{"mounted": r.at, "plain": b.TempDir()} {
		b.Run(name, func(b *testing.B) {
			file, err := os.Create(filepath.Join(dir, "log"))
			must(b, err)
			defer file.Close()
			message := make([]byte, 1024)
			b.SetBytes(int64(len(message)))
			for i := 0; b.Loop(); i++ {
				_, err := file.Write(message)
				must(b, err)
				if i%10000 == 9999 && dir == r.at {
					must(b, file.Sync())
				}
			}
		})
	}
}
