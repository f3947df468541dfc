package detect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"chandler/events"
)

// File detects by a file or directory at an absolute path, following symbolic
// links, and with sha256 by the content of a regular file.
type File struct{}

// Detect looks at the path of rule.File.
func (File) Detect(ctx context.Context, rule events.Detect) Result {
	if !filepath.IsAbs(rule.File) || strings.ContainsRune(rule.File, 0) {
		return unknown("file %q is not an absolute path of this machine", rule.File)
	}
	// A file system that hangs cannot be interrupted, only left behind.
	done := make(chan Result, 1)
	go func() { done <- detectFile(ctx, rule.File, rule.SHA256) }()
	select {
	case result := <-done:
		return result
	case <-ctx.Done():
		return unknown("file %s could not be read in time: %v", rule.File, ctx.Err())
	}
}

func detectFile(ctx context.Context, path, digest string) Result {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return notInstalled("file %s does not exist", path)
	case err != nil:
		return unknown("file %s cannot be examined: %v", path, err)
	case digest == "":
		return installed("file %s exists", path)
	case !info.Mode().IsRegular():
		// Also never opened: a pipe would block.
		return notInstalled("%s is not a regular file", path)
	}
	got, err := digestOf(ctx, path)
	if err != nil {
		return unknown("file %s cannot be read: %v", path, err)
	}
	if !strings.EqualFold(got, digest) {
		return notInstalled("file %s has the SHA-256 %s, not %s", path, got, digest)
	}
	return installed("file %s has the SHA-256 %s", path, got)
}

func digestOf(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, whileWanted{ctx, f}); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// whileWanted ends the reading of a large file when nobody waits for it any more.
type whileWanted struct {
	ctx context.Context
	r   io.Reader
}

func (w whileWanted) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}
