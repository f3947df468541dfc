// Package httpssource reads files from servers of the web, over TLS only, as nobody or by a password (basic
// authentication), a bearer token or a client certificate.
//
// What proves the login goes to the host of the address and nowhere else: a redirect to another host or port, or to an
// address without TLS, is refused and named, and so is any redirect that carries a user of its own. Proxies of the
// environment are not used. The secret is written into a header or a key for as long as the object is open.
//
// Opening is one request for the whole file, whose bytes the first ReadAt from the beginning gets: reading on is one
// transfer. Reading elsewhere asks for a range; a server without ranges can only be read from the beginning on.
//
// # Under failure
//
// A secret that was refused is not sent again, also not by reads that follow. 401 is [events.CredentialRejected], and of
// nobody in particular [events.NoNetworkIdentity]; 403 is [events.NetworkAccessDenied]; 404 and 410 are
// [events.SourceNotFound]; every other refusal, a certificate that is not believed, and silence for longer than the
// patience are [events.SourceUnreachable]. Every request but the first is for the file that the first one met, by its
// strong ETag or else its date, and an answer with another ETag, date or size is [events.ContentChanged]; a server that
// gives neither can only be caught at another size. Folders are not listed, and what is compressed on the way is refused.
// Nothing that a server wrote is in an error, since it could be the secret that it was sent.
package httpssource

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path"
	"time"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// DefaultPatience is how long a server may be silent.
const DefaultPatience = 30 * time.Second

const (
	maxRedirects = 3
	maxHead      = 64 << 10
)

// notSupported is ERROR_NOT_SUPPORTED of Windows.
const notSupported source.Code = 50

// Options of a source. The zero value is right outside tests.
type Options struct {
	TLS      *tls.Config   // nil: the system's roots. TLS 1.2 at least, whatever it says
	Patience time.Duration // 0: DefaultPatience
	// Proxy is that of a request, as http.ProxyURL gives one; nil: none.
	Proxy func(*http.Request) (*url.URL, error)
}

// Source reads https addresses. Its connections serve every login but certificates, which have their own.
type Source struct {
	transport *http.Transport
	patience  time.Duration
}

// New makes a source. It starts nothing.
func New(o Options) *Source {
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	secure := &tls.Config{}
	if o.TLS != nil {
		secure = o.TLS.Clone()
	}
	secure.MinVersion, secure.NextProtos = max(secure.MinVersion, tls.VersionTLS12), nil
	dialer := &net.Dialer{Timeout: o.Patience}
	return &Source{patience: o.Patience, transport: &http.Transport{
		Proxy: o.Proxy, DialContext: dialer.DialContext, TLSClientConfig: secure, TLSHandshakeTimeout: o.Patience,
		ResponseHeaderTimeout: o.Patience, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4, MaxResponseHeaderBytes: maxHead,
		DisableCompression: true, ReadBufferSize: 64 << 10,
	}}
}

// Open asks for the file. What it answers is a folder where the server says so, by sending on to the same path with a /.
func (s *Source) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	where, err := resource.Parse(address)
	if err != nil || where.Scheme != resource.HTTPS {
		return nil, refuse(events.SourceUnsupported, "not an https address", notSupported)
	}
	proof, err := prove(login)
	if err != nil {
		return nil, err
	}
	o := &object{
		address: where.String(), info: source.Info{Name: path.Base(where.Path)}, size: -1, proof: proof, patience: s.patience, slots: make(chan struct{}, maxReaders),
		client: &http.Client{Transport: s.transport, CheckRedirect: redirect},
	}
	if proof.certificate != nil {
		o.own = s.transport.Clone()
		o.own.TLSClientConfig.Certificates = []tls.Certificate{*proof.certificate}
		o.client.Transport = o.own
	}
	err = o.open(ctx)
	if errors.Is(err, errFolder) {
		o.Close()
		return folder{source.Info{Name: o.info.Name, Folder: true}}, nil
	}
	if err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// CloseIdleConnections closes those that are kept for later openings.
func (s *Source) CloseIdleConnections() { s.transport.CloseIdleConnections() }

// errFolder is where a server sends who leaves out the / at the end of a folder.
var errFolder = errors.New("is a folder")

func redirect(r *http.Request, via []*http.Request) error {
	first, last := via[0].URL, via[len(via)-1].URL
	switch {
	case r.URL.Scheme != "https":
		return refuse(events.SourceUnsupported, "the server sends elsewhere, to an address without TLS: publish an https address", notSupported)
	case hostOf(r.URL) != hostOf(first):
		return refuse(events.SourceUnsupported, "the server sends elsewhere, to "+brief(hostOf(r.URL))+", where the account is not sent: publish that address", notSupported)
	case r.URL.User != nil:
		return refuse(events.SourceUnsupported, "the server sends elsewhere, as another user", notSupported)
	case r.URL.Path == last.Path+"/":
		return errFolder
	case len(via) > maxRedirects:
		return refuse(events.SourceUnreachable, "the server sends elsewhere again and again", source.BadNetworkPath)
	}
	return nil
}

// hostOf is the host with its port.
func hostOf(u *url.URL) string {
	r, err := resource.Parse("https://" + u.Host + "/x")
	if err != nil {
		return "a host that cannot be read"
	}
	return r.Host
}

// folder is an object without bytes, whose entries no server tells in a way that is known.
type folder struct{ info source.Info }

func (f folder) Info() source.Info { return f.info }
func (f folder) Close() error      { return nil }

func (f folder) ReadAt(context.Context, []byte, int64) (int, error) {
	return 0, refuse(events.SourceUnsupported, "is a folder", notSupported)
}

func (f folder) List(context.Context) ([]source.Info, error) { return nil, unlisted() }

func unlisted() error {
	return refuse(events.SourceUnsupported, "servers of the web do not list folders: publish the addresses of the files", notSupported)
}
