//go:build unix

package vault

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program writes a shell script that its user alone may change.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wrapper")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// turning encrypts as badly as can be, but gives back.
const turning = `case "$1" in wrap) base64;; unwrap) base64 -d;; *) exit 9;; esac`

func TestAKeysetIsKeptByACommand(t *testing.T) {
	r := newRig(t)
	key := r.wrapper("command:" + program(t, turning))
	v, err := r.tryOpen(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed := r.seal(v, "a", 1)
	if v, err = r.tryOpen(key, nil); err != nil {
		t.Fatal(err)
	}
	r.opens(v, "a", 1, sealed)
	if by := r.stored().KeptBy; by != key.Name() {
		t.Errorf("kept by %s", by)
	}
	if _, err := key.Unwrap(t.Context(), r.stored().Wrapped, []byte("another purpose")); err == nil {
		t.Error("opened for another purpose")
	}
}

func TestCommandsThatFail(t *testing.T) {
	for name, c := range map[string]struct{ script, says string }{
		"it ends with an error":              {`cat >&2; exit 3`, "exit status 3"},
		"it answers nothing":                 {`cat >/dev/null`, "answered nothing"},
		"it never stops answering":           {`cat >/dev/null; exec yes`, "answered more than"},
		"it gives back what it was given":    {`cat`, "as it was"},
		"it wraps and cannot unwrap":         {`[ "$1" = wrap ] && exec base64; exit 1`, "cannot open what it made"},
		"it unwraps to something else":       {`[ "$1" = wrap ] && exec base64; echo hello`, "nothing that it was given to wrap"},
		"it is killed":                       {`kill -9 $$`, "killed"},
		"it sees no environment of services": {`[ -z "$CHANDLER_PLANTED$HOME" ] && exit 7; base64`, "exit status 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CHANDLER_PLANTED", secret)
			r := newRig(t)
			if _, err := r.tryOpen(r.wrapper("command:"+program(t, c.script)), nil); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if len(r.names()) != 1 {
				t.Errorf("something was stored: %v", r.names())
			}
		})
	}
}

func TestACommandThatHangsIsEndedWithWhatItStarted(t *testing.T) {
	held := filepath.Join(t.TempDir(), "held")
	if err := syscall.Mkfifo(held, 0o600); err != nil {
		t.Fatal(err)
	}
	key := newRig(t).wrapper("command:" + program(t, `exec 9>`+held+`; echo started >&9; sleep 1000 & wait`))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := key.Wrap(ctx, []byte(secret), []byte(purpose))
		done <- err
	}()
	pipe, err := os.Open(held)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if err := pipe.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(pipe, make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "in time") {
		t.Errorf("error %v", err)
	}
	if _, err := io.ReadAll(pipe); err != nil { // its end is when nobody holds it any more
		t.Errorf("what it started goes on: %v", err)
	}
}

func TestCommandsThatOthersCouldReplaceAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(path string) error
		says   string
	}{
		"others may write to it":                {func(p string) error { return os.Chmod(p, 0o757) }, "chmod go-w"},
		"its group may write to it":             {func(p string) error { return os.Chmod(p, 0o775) }, "chmod go-w"},
		"others may write to its directory":     {func(p string) error { return os.Chmod(filepath.Dir(p), 0o777) }, "chmod go-w"},
		"others may write to one above":         {func(p string) error { return os.Chmod(filepath.Dir(filepath.Dir(p)), 0o777) }, "chmod go-w"},
		"it is not there":                       {os.Remove, "no such file"},
		"it is a directory":                     {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, "no regular file"},
		"it links to one that others change":    {linkToLoose, "chmod go-w"},
		"others could lead its link to another": {linkInLoose, "chmod go-w"},
		"it is a link to nothing":               {func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/nowhere/at/all", p)) }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := program(t, turning)
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			if _, err := newRig(t).wrapper("command:"+path).Wrap(t.Context(), []byte(secret), []byte(purpose)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
	t.Run("it belongs to somebody else", func(t *testing.T) {
		path := program(t, turning)
		if err := os.Chown(path, 65534, -1); err != nil {
			t.Skip("giving a file away needs root")
		}
		if _, err := checkPlace(path); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("it is its user's own below a sticky directory", func(t *testing.T) {
		path := program(t, turning)
		if err := os.Chmod(filepath.Dir(filepath.Dir(path)), 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		if _, err := checkPlace(path); err != nil {
			t.Error(err)
		}
	})
}

func linkToLoose(path string) error {
	loose := path + ".loose"
	return errors.Join(os.Rename(path, loose), os.Chmod(loose, 0o777), os.Symlink(loose, path))
}

// linkInLoose makes the path a link below a directory that others may write to, to a program that they may not change.
func linkInLoose(path string) error {
	good := filepath.Join(filepath.Dir(filepath.Dir(path)), "good")
	return errors.Join(os.Mkdir(good, 0o755), os.Rename(path, filepath.Join(good, "wrapper")), os.Symlink(filepath.Join(good, "wrapper"), path), os.Chmod(filepath.Dir(path), 0o777))
}

func TestACommandMayBeALink(t *testing.T) {
	path := program(t, turning)
	link := filepath.Join(filepath.Dir(path), "called-otherwise")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	if _, err := r.tryOpen(r.wrapper("command:"+link), nil); err != nil {
		t.Error(err)
	}
}

func TestKeysAndTokensThatSomebodyElsePutThereAreRefused(t *testing.T) {
	const stranger = 65534
	planted := func(t *testing.T, data []byte) string {
		path := filepath.Join(t.TempDir(), "planted")
		writeFile(t, path, data)
		if err := os.Chown(path, stranger, -1); err != nil {
			t.Skip("giving a file away needs root")
		}
		return path
	}
	t.Run("a key that is there before the first start", func(t *testing.T) {
		r := newRig(t)
		if _, err := r.tryOpen(r.wrapper("file:"+planted(t, make([]byte, fileKeySize))), nil); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
			t.Errorf("error %v", err)
		}
		if names := r.names(); len(names) != 1 {
			t.Errorf("something was stored: %v", names)
		}
	})
	t.Run("a transit engine's token", func(t *testing.T) {
		key := newRig(t).wrapper("transit:http://127.0.0.1:1/transit/chandler?token-file=" + planted(t, []byte("t")))
		if _, err := key.Wrap(t.Context(), []byte(secret), []byte(purpose)); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
			t.Errorf("error %v", err)
		}
	})
}

func TestFilesThatOthersMayReadAreRefused(t *testing.T) {
	r := newRig(t)
	r.open()
	for path, mode := range map[string]os.FileMode{r.dir: 0o700, filepath.Join(r.dir, File): 0o600, r.key: 0o600, filepath.Dir(r.key): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v, %v", path, info.Mode().Perm(), mode, err)
		}
	}
	for _, path := range []string{filepath.Join(r.dir, File), r.key} {
		for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := r.tryOpen(r.wrapper("file:"+r.key), nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
				t.Errorf("%s of mode %o: %v", path, mode, err)
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.open()
}
