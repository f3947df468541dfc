package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"

	"chandler/agent"
	"chandler/agent/detect"
	"chandler/agent/elevate"
	"chandler/agent/execute"
	"chandler/agent/execute/installationrunner"
	"chandler/agent/execute/systemrunner"
	"chandler/agent/execute/tokenrunner"
	"chandler/agent/execute/userrunner"
	"chandler/agent/fetch"
	"chandler/agent/fetch/dpsource"
	"chandler/agent/identity"
	"chandler/agent/logon"
	"chandler/agent/source"
	"chandler/agent/source/asuser"
	"chandler/agent/source/filesource"
	"chandler/agent/source/httpssource"
	"chandler/agent/source/smbsource"
	"chandler/events"
	"chandler/events/resource"
)

// sources is the table of where content can be read from, by the scheme of an address. secure says whose
// certificates are believed; nil: those of the system's authorities.
func sources(secure *tls.Config) map[string]fetch.Source {
	dp := dpsource.New(dpsource.Options{TLS: secure})
	return map[string]fetch.Source{"http": dp, "https": dp}
}

// external is the table of where content and references can be read from outside of distribution points, by the scheme of
// an address. ca is a file with further certificate authorities for https, in PEM; "": those of the system alone.
func external(ca string) map[string]source.Source {
	return map[string]source.Source{
		resource.SMB: smbsource.New(smbsource.Options{}),
		// To read all authorities takes longer than most programs run, and few are read over https.
		resource.HTTPS: later(sync.OnceValues(func() (source.Source, error) {
			roots, err := authorities(ca)
			return httpssource.New(httpssource.Options{TLS: &tls.Config{RootCAs: roots}}), err
		})),
		resource.File: filesource.New(filesource.Options{}),
	}
}

// later is a source that is made when it is first needed.
type later func() (source.Source, error)

func (l later) Open(ctx context.Context, address string, login source.Login) (source.Object, error) {
	s, err := l()
	if err != nil {
		return nil, &source.Error{Reason: events.SourceUnsupported, Answer: err.Error(), Err: err}
	}
	return s.Open(ctx, address, login)
}

func authorities(ca string) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without any
	}
	if ca == "" {
		return roots, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("external-ca: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("external-ca: %s holds no certificate in PEM", ca)
	}
	return roots, nil
}

// asUser reads external sources in a process of the logged-on user, which is this program as well.
func asUser(self, ca string) agent.UserSources {
	return func(session logon.Session) (map[string]source.Source, func(), error) {
		s, err := asuser.New(asuser.Options{Program: []string{self, "read", "--external-ca", ca}, Session: session})
		if err != nil {
			return nil, nil, err
		}
		return map[string]source.Source{resource.SMB: s, resource.HTTPS: s, resource.File: s}, func() { _ = s.Close() }, nil
	}
}

// runners is the table of whose rights programs run with. Those that give rights to an account keep them by rights.
func runners(rights *elevate.Keeper, tokenAccount string) (map[string]execute.Runner, error) {
	token, err := tokenrunner.New(tokenrunner.Options{Keeper: rights, Account: tokenAccount})
	if err != nil {
		return nil, err
	}
	installation, err := installationrunner.New(installationrunner.Options{Keeper: rights})
	if err != nil {
		return nil, err
	}
	return map[string]execute.Runner{
		identity.System.Runner():       systemrunner.New(),
		identity.User.Runner():         userrunner.New(userrunner.Options{}),
		identity.ClientToken.Runner():  token,
		identity.Installation.Runner(): installation,
	}, nil
}

// kinds is the table of how products are detected. Tools and scripts get env beside the agent's own.
func kinds(env []string, scripts string) map[string]detect.Kind {
	tool := detect.Exec(env)
	return map[string]detect.Kind{
		detect.KindFile:   detect.File{},
		detect.KindDpkg:   detect.Dpkg{Run: tool},
		detect.KindRpm:    detect.Rpm{Run: tool},
		detect.KindMSI:    detect.MSI{},
		detect.KindScript: detect.Script{Run: tool, Dir: scripts},
	}
}
