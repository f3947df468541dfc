package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"chandler/agent/source"
	"chandler/agent/source/filesource"
	"chandler/agent/source/httpssource"
	"chandler/agent/source/smbsource"
	"chandler/events"
	"chandler/events/resource"
	"chandler/services/content/publish"
)

// sourceFlags say how external sources are read at publish, as typed.
type sourceFlags struct {
	user, method, secretFile string
	dirs                     []string
}

func (f *sourceFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.user, "source-user", "", "read external sources as this user; its secret is asked for, or read from standard input")
	cmd.Flags().StringVar(&f.method, "source-method", "", "how the secret proves it: password, or over https bearer or client-certificate")
	cmd.Flags().StringVar(&f.secretFile, "source-secret-file", "", "read the secret from this file (-: standard input)")
	cmd.Flags().StringArrayVar(&f.dirs, "source-dir", nil, "read the package's source in this directory, where it is mounted; ADDRESS=DIR for another address (may be repeated)")
	completeWords(cmd, "source-method", events.ByPassword, events.ByBearer, events.ByClientCertificate)
	_ = cmd.MarkFlagDirname("source-dir")
}

// any says whether there are any.
func (f sourceFlags) any() bool { return f.login() || f.secretFile != "" || len(f.dirs) > 0 }

func (f sourceFlags) login() bool { return f.user != "" || f.method != "" }

func (f sourceFlags) check() error {
	switch f.method {
	case "", events.ByPassword, events.ByBearer, events.ByClientCertificate:
	default:
		return fmt.Errorf("--source-method %q: it must be password, bearer or client-certificate", f.method)
	}
	if f.secretFile != "" && !f.login() {
		return errors.New("--source-secret-file is for a login: say --source-user too, or --source-method")
	}
	_, err := f.mounted()
	return err
}

// mounted are the directories by their addresses; "" is the package's source.
func (f sourceFlags) mounted() (map[string]string, error) {
	mounted := map[string]string{}
	for _, typed := range f.dirs {
		address, dir := "", typed
		if strings.Contains(typed, "://") || strings.HasPrefix(typed, `\\`) && strings.Contains(typed, "=") {
			var ok bool
			if address, dir, ok = strings.Cut(typed, "="); !ok || dir == "" {
				return nil, fmt.Errorf("--source-dir %s: write ADDRESS=DIR", typed)
			}
			r, err := resource.Parse(address)
			if err != nil {
				return nil, fmt.Errorf("--source-dir: the address %w", err)
			}
			address = r.String()
		}
		if _, twice := mounted[address]; twice {
			return nil, fmt.Errorf("--source-dir %s: there is another one for the same address", typed)
		}
		mounted[address] = dir
	}
	return mounted, nil
}

// publishSources are what external sources are read with at publish, by scheme.
func publishSources() map[string]source.Source {
	return map[string]source.Source{
		resource.SMB:   smbsource.New(smbsource.Options{}),
		resource.HTTPS: httpssource.New(httpssource.Options{Proxy: http.ProxyFromEnvironment}),
		resource.File:  filesource.New(filesource.Options{}),
	}
}

// outside reads external sources for publishing, by one login. The login is shown to one host alone, the first that is
// asked, and where it is refused it is not tried again: that is how accounts get locked out.
type outside struct {
	sources map[string]source.Source // by scheme
	login   source.Login

	mu      sync.Mutex
	host    string // that the login is for
	refused error
}

// readsOutside makes the reader of external sources that the flags describe, which is to be closed.
func (a *app) readsOutside(cmd *cobra.Command, f sourceFlags) (*outside, error) {
	o := &outside{sources: publishSources(), login: source.Login{User: f.user, Method: f.method}}
	if !f.login() {
		return o, nil
	}
	var err error
	o.login.Secret, err = a.accountSecret(cmd, f.secretFile, f.method)
	return o, err
}

// close forgets the secret and ends what the sources keep.
func (o *outside) close() {
	clear(o.login.Secret)
	for _, from := range o.sources {
		if c, ok := from.(io.Closer); ok {
			_ = c.Close()
		}
	}
}

// as is who reads at an address.
func (o *outside) as(r resource.Resource) (source.Login, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.refused != nil:
		return source.Login{}, o.refused
	case o.login.Nobody(), r.Host == "":
		return source.Login{}, nil
	case o.host == "":
		o.host = r.Host
	case o.host != r.Host:
		return source.Login{}, fmt.Errorf("%s: the login is for %s alone, and is not shown to another host: say where the address is mounted, by --source-dir ADDRESS=DIR", r.Shown(), o.host)
	}
	return o.login, nil
}

// object opens what lies at an address.
func (o *outside) object(ctx context.Context, address string) (resource.Resource, source.Login, source.Object, error) {
	r, err := resource.Parse(address)
	if err != nil {
		return r, source.Login{}, nil, err
	}
	from, ok := o.sources[r.Scheme]
	if !ok {
		return r, source.Login{}, nil, fmt.Errorf("%s: nothing here reads %s://", r.Shown(), r.Scheme)
	}
	login, err := o.as(r)
	if err != nil {
		return r, login, nil, err
	}
	opened, err := from.Open(ctx, address, login)
	if err != nil {
		return r, login, nil, o.said(r, login, err)
	}
	return r, login, opened, nil
}

// said is a failure in words: who tried what, and what was answered.
func (o *outside) said(r resource.Resource, login source.Login, err error) error {
	failed, ok := errors.AsType[*source.Error](err)
	if !ok {
		return fmt.Errorf("reading %s as %s: %w", r.Shown(), reader(login), err)
	}
	said := fmt.Errorf("reading %s as %s: %s: %s%s", r.Shown(), reader(login), failed.Reason, failed.Answer, wayOut(failed.Reason, login))
	switch {
	case failed.Reason == events.SourceNotFound:
		return &absent{said}
	case failed.Reason == events.CredentialRejected && !login.Nobody():
		o.mu.Lock()
		o.refused = said
		o.mu.Unlock()
	}
	return said
}

func reader(login source.Login) string {
	switch {
	case login.User != "":
		return login.User
	case login.Nobody():
		return "nobody (without a login)"
	}
	return "the holder of a " + login.Method
}

// wayOut is what may help where a login is missing.
func wayOut(reason events.Reason, login source.Login) string {
	switch reason {
	case events.NoNetworkIdentity, events.CredentialRejected, events.NetworkAccessDenied, events.NetworkAccessAccountMissing:
		if login.Nobody() {
			return "; say --source-user, or --source-dir where it is mounted here"
		}
	}
	return ""
}

// absent is that nothing lies at an address.
type absent struct{ error }

func (a *absent) Unwrap() []error { return []error{a.error, fs.ErrNotExist} }

// Open is of publish.Outside.
func (o *outside) Open(ctx context.Context, address string) (publish.OutsideFile, error) {
	r, login, opened, err := o.object(ctx, address)
	if err != nil {
		return nil, err
	}
	if opened.Info().Folder {
		return nil, errors.Join(fmt.Errorf("%s is a folder, not a file", r.Shown()), opened.Close())
	}
	return &outsideFile{ctx: ctx, Object: opened, words: func(err error) error { return o.said(r, login, err) }}, nil
}

// List is of publish.Outside.
func (o *outside) List(ctx context.Context, address string) ([]publish.OutsideEntry, error) {
	r, login, opened, err := o.object(ctx, address)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	if !opened.Info().Folder {
		return nil, fmt.Errorf("%s is a file: a package's source is the folder around its files", r.Shown())
	}
	infos, err := opened.List(ctx)
	if err != nil {
		return nil, o.said(r, login, err)
	}
	entries := make([]publish.OutsideEntry, len(infos))
	for i, info := range infos {
		entries[i] = publish.OutsideEntry{Name: info.Name, Folder: info.Folder}
	}
	return entries, nil
}

// outsideFile is an object of a source as publishing reads it.
type outsideFile struct {
	source.Object
	ctx   context.Context // of all its reading
	words func(error) error
}

func (f *outsideFile) Size() int64       { return f.Info().Size }
func (f *outsideFile) Mode() fs.FileMode { return f.Info().Mode }

func (f *outsideFile) ReadAt(p []byte, offset int64) (int, error) {
	n, err := f.Object.ReadAt(f.ctx, p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		err = f.words(err)
	}
	return n, err
}
