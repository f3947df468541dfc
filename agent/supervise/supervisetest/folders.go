package supervisetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// Who reads by the sources of SupervisorReading.
const (
	User   = `EXAMPLE\reader`
	Secret = "open sesame"
	Mute   = "mute" // name of a file whose opening is never answered
)

// folders is a source that supervisors in other processes share.
type folders struct{ root string }

func (f folders) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	at, err := resource.Parse(address)
	if err != nil {
		return nil, err
	}
	if err := f.note(login.User + " " + address); err != nil {
		return nil, err
	}
	if login.User != User || string(login.Secret) != Secret {
		return nil, &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("unknown user name or bad password", source.LogonRefused)}
	}
	if strings.HasSuffix(at.Path, "/"+Mute) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	file, err := os.Open(filepath.Join(f.root, at.Host, filepath.FromSlash(at.Path)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &source.Error{Reason: events.SourceNotFound, Answer: source.Answer("file not found", source.FileNotFound), Err: err}
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Mode().Perm() == 0 { // root could
		err = &source.Error{Reason: events.NetworkAccessDenied, Answer: source.Answer("access denied", source.AccessDenied)}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return folderObject{file, infoOf(info)}, nil
}

func (f folders) note(line string) error {
	file, err := os.OpenFile(filepath.Join(f.root, "opened"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, line)
	return errors.Join(err, file.Close())
}

func infoOf(info fs.FileInfo) source.Info {
	return source.Info{Name: info.Name(), Folder: info.IsDir(), Size: info.Size(), Modified: info.ModTime()}
}

type folderObject struct {
	file *os.File
	info source.Info
}

func (o folderObject) Info() source.Info { return o.info }

func (o folderObject) ReadAt(_ context.Context, p []byte, offset int64) (int, error) {
	return o.file.ReadAt(p, offset)
}

func (o folderObject) List(context.Context) ([]source.Info, error) {
	entries, err := os.ReadDir(o.file.Name())
	var all []source.Info
	for _, entry := range entries {
		info, failed := entry.Info()
		if failed != nil {
			return nil, failed
		}
		all = append(all, infoOf(info))
	}
	return all, err
}

func (o folderObject) Close() error { return o.file.Close() }
