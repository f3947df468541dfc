package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"chandler/events"
)

// Owner is who may read a staged copy, by the numbers of a Unix account; one that is Writable the owner may
// change and add to.
type Owner struct {
	UID, GID int
	Writable bool
}

// mode is that of a file or directory whose own owner bits are given.
func (o *Owner) mode(bits fs.FileMode) fs.FileMode {
	if o.Writable {
		return bits & 0o700
	}
	return bits & 0o500
}

// Stage makes a fresh copy of the files for one run in dest, which must not exist; its parent must. Every
// byte is hashed as it is copied. The copy is for this process's account alone (directories 0700); with an
// owner it is readable by that account alone, which root gives it to. Windows has no such owners.
//
// After an error nothing is left of dest. A blob that is not in the cache is content_unavailable (Fetch
// again); one that decayed there is content_mismatch and no longer in the cache. The error is an *[Error],
// or the context's.
func (f *Fetcher) Stage(ctx context.Context, files []events.File, dest string, owner *Owner) error {
	if err := os.Mkdir(dest, 0o700); err != nil {
		return f.failed(ctx, known(err, events.AgentFault, dest))
	}
	if err := f.stage(ctx, files, dest, owner); err != nil {
		if removeErr := os.RemoveAll(dest); removeErr != nil {
			f.log.WarnContext(ctx, "half a copy could not be removed", "directory", dest, "error", removeErr)
		}
		return f.failed(ctx, known(err, events.AgentFault, dest))
	}
	return nil
}

func (f *Fetcher) stage(ctx context.Context, files []events.File, dest string, owner *Owner) error {
	// Within a root not even a hostile manifest can name a place outside of it.
	root, err := os.OpenRoot(dest)
	if err != nil {
		return err
	}
	defer root.Close()
	directories := []string{"."}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := safePath(file.Path); err != nil {
			return &Error{Reason: events.ContentMismatch, Identity: Agent, Resource: "the package's manifest", Err: err}
		}
		made, err := makeParents(root, path.Dir(file.Path))
		if err != nil {
			return err
		}
		directories = append(directories, made...)
		if err := f.stageFile(ctx, root, file, owner); err != nil {
			return err
		}
	}
	if owner == nil {
		return nil
	}
	// Innermost first: afterwards nothing can be added.
	for i := len(directories) - 1; i >= 0; i-- {
		if err := errors.Join(root.Chmod(directories[i], owner.mode(0o700)), root.Lchown(directories[i], owner.UID, owner.GID)); err != nil {
			return err
		}
	}
	return nil
}

// safePath refuses what the publisher's check refuses, as far as it matters here.
func safePath(p string) error {
	if !fs.ValidPath(p) || p == "." || strings.ContainsAny(p, "\\:\x00") || !filepath.IsLocal(filepath.FromSlash(p)) {
		return fmt.Errorf("file path %q leaves the package's directory, or is not one on this system", p)
	}
	return nil
}

// makeParents makes a directory and those around it, and returns the new ones, outermost first.
func makeParents(root *os.Root, dir string) (made []string, err error) {
	if dir == "." {
		return nil, nil
	}
	made, err = makeParents(root, path.Dir(dir))
	if err != nil {
		return nil, err
	}
	switch err := root.Mkdir(filepath.FromSlash(dir), 0o700); {
	case err == nil:
		return append(made, dir), nil
	case errors.Is(err, fs.ErrExist):
		return made, nil
	default:
		return nil, err
	}
}

func (f *Fetcher) stageFile(ctx context.Context, root *os.Root, file events.File, owner *Owner) error {
	src, err := f.cache.open(file.SHA256)
	if errors.Is(err, fs.ErrNotExist) {
		return &Error{Reason: events.ContentUnavailable, Identity: Agent, Resource: f.cache.dir, Answer: "file " + file.Path + " is no longer in the cache"}
	}
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := root.OpenFile(filepath.FromSlash(file.Path), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	sum, size, err := copyHashed(ctx, dst, src, file.Size)
	if err != nil {
		return err
	}
	if sum != file.SHA256 || size != file.Size {
		f.metrics.mismatches.Inc()
		src.Close() // Windows removes no file that is open
		f.cache.drop(file.SHA256)
		return &Error{Reason: events.ContentMismatch, Identity: Agent, Resource: f.cache.dir,
			Answer: fmt.Sprintf("file %s decayed in the cache and was thrown out", file.Path)}
	}
	mode := fs.FileMode(file.Mode) & 0o700
	if owner != nil {
		mode = owner.mode(mode)
		if err := dst.Chown(owner.UID, owner.GID); err != nil {
			return err
		}
	}
	return errors.Join(dst.Chmod(mode), dst.Close())
}

// copyHashed copies and returns the digest and size of what the copy holds. Where the file system can share
// the bytes they are not copied, and the copy is read instead.
func copyHashed(ctx context.Context, dst, src *os.File, size int64) (string, int64, error) {
	hash := sha256.New()
	// One byte more than wanted tells a file that is too long.
	from := io.Reader(io.LimitReader(src, size+1))
	to := io.Writer(hash)
	if err := clone(dst, src); err == nil {
		from = dst
	} else {
		to = io.MultiWriter(dst, hash)
	}
	n, err := io.CopyBuffer(to, interruptible{ctx, from}, make([]byte, chunk))
	return hex.EncodeToString(hash.Sum(nil)), n, err
}

// interruptible ends reading when the context does.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if err := context.Cause(i.ctx); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}
