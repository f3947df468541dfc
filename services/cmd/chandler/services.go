package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"chandler/events/access"
	"chandler/events/bus"
	"chandler/services/content"
	"chandler/services/credentials"
	"chandler/services/execution"
	"chandler/services/scheduling"
)

// services are those that a whole fleet has.
func services() []string { return []string{"scheduling", "content", "credentials", "execution"} }

// makers is the table of services.
func (a *assembly) makers() map[string]func(*bus.Bus) (service, error) {
	return map[string]func(*bus.Bus) (service, error){
		"scheduling": func(b *bus.Bus) (service, error) {
			return scheduling.New(scheduling.Options{Bus: b, Registerer: a.registry, Log: a.Log, Now: a.Clock, Version: version, Fleet: a.Fleet, Provision: a.provision})
		},
		"content":     a.content,
		"credentials": a.credentials,
		"execution": func(b *bus.Bus) (service, error) {
			return execution.New(execution.Options{Bus: b, Registerer: a.registry, Log: a.Log, Now: a.Clock, Version: version})
		},
	}
}

// credentials is given what it takes to make agents' identities, where this fleet has any.
func (a *assembly) credentials(b *bus.Bus) (service, error) {
	o := credentials.Options{Bus: b, Dir: place{a.Data}.keys(), Registerer: a.registry, Log: a.Log, Now: a.Clock, Version: version, Provision: a.provision}
	if a.identities != nil {
		var err error
		if o.AgentSigner, err = a.identities.agentSigner(); err != nil {
			return nil, err
		}
		if o.EnrolmentJWT, err = a.identities.enrolmentJWT(); err != nil {
			return nil, err
		}
		o.AgentsAccount = a.identities.fleet.Accounts[access.Agents]
	}
	var err error
	if o.KeyEncryption, o.FormerKeyEncryption, err = a.KeyEncryption.parse(place{a.Data}); err != nil {
		return nil, err
	}
	s, err := credentials.New(o)
	if err == nil {
		a.warnKeys(o.KeyEncryption.Name())
	}
	return s, err
}

// content opens its listener here, so that an address in use is told at once.
func (a *assembly) content(b *bus.Bus) (service, error) {
	l, err := net.Listen("tcp", a.HTTP)
	if err != nil {
		return nil, fmt.Errorf("listen for content: %w", explainListen(err, a.HTTP))
	}
	public := a.Advertise
	if public == "" {
		if public, err = publicURL(scheme("http", a.TLS), l.Addr()); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	a.public = public
	a.listens("content", l.Addr().String())
	s, err := content.New(content.Options{Bus: b, Dir: filepath.Join(a.Data, "content"), Listener: l, TLS: a.TLS.Clone(), PublicURL: public, Registerer: a.registry, Log: a.Log, Now: a.Clock, Version: version, Provision: a.provision})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

// publicURL is how agents reach a listener: by its own address, or by this machine's name where it listens
// on every address.
func publicURL(scheme string, listening net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("find the name under which agents reach content: %w; say --advertise", err)
		}
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}

// scheme of addresses, with or without TLS.
func scheme(plain string, config *tls.Config) string {
	if config == nil {
		return plain
	}
	return plain + "s"
}
