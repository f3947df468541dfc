package external

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"chandler/agent/source"
	"chandler/events"
)

// Check makes sure that a reference can be read: a folder can be listed, a file begins, and one that is pinned is what it
// was to be.
func (r *Reader) Check(ctx context.Context, reference events.Reference) error {
	opened, err := r.Open(ctx, reference.URL, events.AccessReference)
	if err != nil {
		return err
	}
	defer opened.Close()
	o, pinned := opened.(*object), reference.SHA256 != ""
	switch {
	case o.Info().Folder && pinned:
		return o.said(ctx, &source.Error{Reason: events.ContentChanged, Answer: "it is a folder, and one file was pinned"})
	case o.Info().Folder:
		_, err := o.List(ctx)
		return err
	case !pinned:
		if _, err = o.ReadAt(ctx, make([]byte, 1), 0); errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	digest, err := digestOf(ctx, o)
	if err == nil && digest != reference.SHA256 {
		err = o.said(ctx, &source.Error{Reason: events.ContentChanged, Answer: "its SHA-256 is " + digest})
	}
	return err
}

func digestOf(ctx context.Context, o source.Object) (string, error) {
	sum, buf := sha256.New(), make([]byte, 256<<10)
	for at := int64(0); ; {
		n, err := o.ReadAt(ctx, buf, at)
		sum.Write(buf[:n])
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return hex.EncodeToString(sum.Sum(nil)), nil
		case err != nil:
			return "", err
		case n == 0:
			return "", io.ErrNoProgress
		}
	}
}
