package cmlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func openLog(t *testing.T, path string, opt Options) *Log {
	t.Helper()
	l, err := Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func write(t *testing.T, l *Log, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := l.Write(Entry{Component: "test", Text: text}); err != nil {
			t.Fatal(err)
		}
	}
}

func texts(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, e := range parseAll(t, string(data)) {
		texts = append(texts, e.Text)
	}
	return texts
}

func wantTexts(t *testing.T, path string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, texts(t, path)); diff != "" {
		t.Errorf("texts of %s (-want +got):\n%s", filepath.Base(path), diff)
	}
}

// big makes an entry of which two do not fit into the smallest log.
func big(name string) string { return name + strings.Repeat(".", 6000) }

func TestAnEntryLooksLikeTheOriginals(t *testing.T) {
	at := time.Date(2020, 8, 16, 12, 25, 31, 358_999_999, time.UTC)
	e := Entry{Time: at, Component: "execmgr", Type: Warning, Thread: 561, File: "run.go:38", Context: "a\"<b>", Text: "line 1\r\nline 2"}
	tests := []struct {
		name   string
		format Format
		zone   *time.Location
		want   string
	}{
		{"west of Greenwich the bias is positive", CCM, time.FixedZone("", -4*3600),
			"<![LOG[line 1\nline 2]LOG]!><time=\"08:25:31.358+240\" date=\"08-16-2020\" component=\"execmgr\" context=\"a'(b)\" type=\"2\" thread=\"561\" file=\"run.go:38\">\n"},
		{"east of Greenwich the bias is negative and the date may be the next", CCM, time.FixedZone("", 13*3600),
			"<![LOG[line 1\nline 2]LOG]!><time=\"01:25:31.358-780\" date=\"08-17-2020\" component=\"execmgr\" context=\"a'(b)\" type=\"2\" thread=\"561\" file=\"run.go:38\">\n"},
		{"in Greenwich it is zero", CCM, time.UTC,
			"<![LOG[line 1\nline 2]LOG]!><time=\"12:25:31.358+000\" date=\"08-16-2020\" component=\"execmgr\" context=\"a'(b)\" type=\"2\" thread=\"561\" file=\"run.go:38\">\n"},
		{"a legacy line says its type in words and its thread in two bases", Legacy, time.FixedZone("", -4*3600),
			"WARNING: line 1~line 2  $$<execmgr><Sun Aug 16 08:25:31.358 2020><thread=561 (0x231)>\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "execmgr.log")
			l := openLog(t, path, Options{Format: tt.format, Location: tt.zone})
			if err := l.Write(e); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(data)); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTextCannotForgeAnEntry(t *testing.T) {
	forged := "x]LOG]!><time=\"08:25:31.358+240\" date=\"08-16-2020\" component=\"execmgr\" context=\"\" type=\"1\" thread=\"1\" file=\"\">\n<![LOG[Program succeeded"
	path := filepath.Join(t.TempDir(), "a.log")
	write(t, openLog(t, path, Options{}), forged)
	wantTexts(t, path, forged)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// What matters to viewers, which know nothing of our escape: each mark is there once.
	for _, mark := range []string{textStart, textEnd} {
		if n := strings.Count(string(data), mark); n != 1 {
			t.Errorf("mark %s occurs %d times, want once", mark, n)
		}
	}
}

func TestLongTextIsCutAndSaysSo(t *testing.T) {
	for _, size := range []int{MaxText + 1, 10 * MaxText} {
		path := filepath.Join(t.TempDir(), "a.log")
		write(t, openLog(t, path, Options{}), strings.Repeat("é", size/2+1))
		got := texts(t, path)
		if len(got) != 1 || len(got[0]) > MaxText || !strings.HasSuffix(got[0], "é"+cutNote) {
			t.Errorf("text of %d bytes came back as %d entries, the first of %d bytes", size, len(got), len(got[0]))
		}
	}
}

func TestAZeroTimeIsTheTimeOfWriting(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	got := Entry{}.Clean().Time
	if got.Before(before) || got.After(time.Now()) {
		t.Errorf("time %v is not now", got)
	}
}

func TestRotation(t *testing.T) {
	tests := []struct {
		name    string
		history int
		want    map[string]string // file to its only entry, "*" for any stamp
	}{
		{"one old file is kept by default", 0, map[string]string{"a.log": "4", "a.lo_": "3"}},
		{"a negative history keeps none", -1, map[string]string{"a.log": "4"}},
		{"a longer history keeps dated files and removes the oldest", 3, map[string]string{"a.log": "4", "a.lo_": "3", "a-1.log": "2", "a-0.log": "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, filepath.Join(dir, "a.log"), Options{MaxSize: 10_000, History: tt.history})
			for i := range 5 {
				write(t, l, big(fmt.Sprint(i)))
			}
			got := map[string]string{}
			dated := 0
			files, err := os.ReadDir(dir) // sorted by name, so by stamp
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				name := f.Name()
				if strings.HasPrefix(name, "a-") {
					name = fmt.Sprintf("a-%d.log", dated)
					dated++
				}
				entries := texts(t, filepath.Join(dir, f.Name()))
				got[name] = strings.TrimRight(strings.Join(entries, "|"), ".")
				info, err := f.Info()
				if err != nil {
					t.Fatal(err)
				}
				if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %v, want 0600", name, info.Mode())
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHistoryOfALogWithALongerNameIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	others := []string{"a-b.log", "a-b-20200816-082531.358.log", "a-2020.log"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := openLog(t, filepath.Join(dir, "a.log"), Options{MaxSize: 10_000, History: 2})
	for range 6 {
		write(t, l, big("x"))
	}
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestTheSizeLimitHoldsWhenHistoryCannotBeKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	// A directory that is not empty can be neither replaced nor written.
	if err := os.MkdirAll(filepath.Join(filepath.Dir(path), "a.lo_", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, path, Options{MaxSize: 10_000})
	write(t, l, big("1"))
	if err := l.Write(Entry{Text: big("2")}); err == nil {
		t.Error("losing the old file was not reported")
	}
	wantTexts(t, path, big("2"))
}

func TestALogContinuesAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	l := openLog(t, path, Options{})
	write(t, l, "first", "torn")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	firstLen := int64(strings.Index(string(whole), "\n") + 1)
	// Wherever the last entry is torn, what is written afterwards is read.
	for size := firstLen; size < info.Size()-1; size++ {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		next, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		write(t, next, "after")
		next.Close()
		wantTexts(t, path, "first", "after")
	}
}

func TestADeletedLogIsCreatedAgain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be deleted there")
	}
	path := filepath.Join(t.TempDir(), "sub", "a.log")
	l := openLog(t, path, Options{})
	write(t, l, "lost")
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	write(t, l, "kept")
	wantTexts(t, path, "kept")
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "dir.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link.log")); err != nil {
		t.Logf("no symbolic links here: %v", err)
	} else if _, err := Open(filepath.Join(dir, "link.log"), Options{}); err == nil {
		t.Error("opened a symbolic link")
	}
	if _, err := Open(filepath.Join(dir, "dir.log"), Options{}); err == nil {
		t.Error("opened a directory")
	}
	if _, err := Open(filepath.Join(dir, "a.txt"), Options{}); err == nil {
		t.Error("opened a file not named .log")
	}
	if _, err := Open(filepath.Join(dir, "a.log"), Options{MaxSize: 9999}); err == nil {
		t.Error("took a size limit below the least")
	}
}

func TestWritingAClosedLogFails(t *testing.T) {
	l := openLog(t, filepath.Join(t.TempDir(), "a.log"), Options{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(Entry{Text: "x"}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want os.ErrClosed", err)
	}
}

func TestConcurrentEntriesAreAllKeptAndTeedInTheOrderOfTheFile(t *testing.T) {
	const writers, each = 8, 50
	dir := t.TempDir()
	var teed []string
	l := openLog(t, filepath.Join(dir, "a.log"), Options{MaxSize: 10_000, History: 1000, Tee: func(e Entry) { teed = append(teed, e.Text) }})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := l.Write(Entry{Text: fmt.Sprintf("%d/%d\x00", w, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	aged, err := agedFiles(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if len(aged) == 0 {
		t.Fatal("the log was not rotated often enough to test anything")
	}
	var got []string
	for _, path := range append(aged, filepath.Join(dir, "a.lo_"), filepath.Join(dir, "a.log")) {
		got = append(got, texts(t, path)...)
	}
	if len(got) != writers*each {
		t.Errorf("%d entries in the files, want %d", len(got), writers*each)
	}
	if diff := cmp.Diff(teed, got); diff != "" {
		t.Errorf("entries (-teed +in the files):\n%s", diff)
	}
}

func TestTheTeeGetsEntriesThatCannotBeWritten(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be moved away there")
	}
	path := filepath.Join(t.TempDir(), "sub", "a.log")
	var teed []string
	l := openLog(t, path, Options{Tee: func(e Entry) { teed = append(teed, e.Text) }})
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(Entry{Text: "x"}); err == nil {
		t.Error("an entry was written below a file")
	}
	if diff := cmp.Diff([]string{"x"}, teed); diff != "" {
		t.Errorf("teed (-want +got):\n%s", diff)
	}
	if err := os.Remove(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	write(t, l, "y")
	wantTexts(t, path, "y")
}
