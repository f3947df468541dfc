package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
)

// checkListen says at once why an address cannot be listened on, before anything is started for it.
func checkListen(what, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", what, explainListen(err, address))
	}
	return l.Close()
}

// checkListens does so for several at once, of which none may be in the way of another.
func checkListens(all []listener) error {
	for _, l := range all {
		held, err := net.Listen("tcp", l.Address)
		if err != nil {
			return fmt.Errorf("%s: %w", l.What, explainListen(err, l.Address))
		}
		defer held.Close()
	}
	return nil
}

// explainListen adds what to do.
func explainListen(err error, address string) error {
	host, _, splitErr := net.SplitHostPort(address)
	if splitErr != nil {
		return fmt.Errorf("address %q is not host:port", address)
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() && !slices.ContainsFunc(ownAddresses(), func(n *net.IPNet) bool { return n.IP.Equal(ip) || ip.IsLoopback() && n.Contains(ip) }) {
		return fmt.Errorf("%w: this machine has no address %s", err, host)
	}
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: if another program listens there, stop it or say another address", err)
}

// ownAddresses are those of this machine's interfaces; none where they cannot be read.
func ownAddresses() (all []*net.IPNet) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			all = append(all, n)
		}
	}
	return all
}

// unspecified says whether host:port listens on every address of this machine.
func unspecified(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "" || ip != nil && ip.IsUnspecified())
}

// reachableHost is how other machines probably reach this one: its first address that is not for itself
// alone, or its name.
func reachableHost() string {
	for _, n := range ownAddresses() {
		if n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return "ADDRESS-OF-THIS-MACHINE"
	}
	return name
}

// agentURL is where agents are told to find a broker: on other machines too, where it listens on every
// address.
func agentURL(url, listen string) string {
	if !unspecified(listen) {
		return url
	}
	scheme, rest, ok := strings.Cut(url, "://")
	if _, port, err := net.SplitHostPort(rest); ok && err == nil {
		return scheme + "://" + net.JoinHostPort(reachableHost(), port)
	}
	return url
}
