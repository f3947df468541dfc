package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// splitName takes a host name apart at its first dot.
func splitName(name string) (host, domain string) {
	name = strings.ToLower(strings.Trim(strings.TrimSpace(name), "."))
	host, domain, _ = strings.Cut(name, ".")
	return host, domain
}

// resolver is what net.Resolver has, which looks into the hosts file first.
type resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupAddr(ctx context.Context, address string) ([]string, error)
}

// qualify finds the domain of a host name: the name's own, or that of the first
// name that the host's addresses have and that begins with the host. A host that
// the resolver does not know has none, which is no error; a name server that does
// not answer is one.
func qualify(ctx context.Context, name string, names resolver) (string, error) {
	host, domain := splitName(name)
	if domain != "" || host == "" {
		return domain, nil
	}
	addresses, err := names.LookupHost(ctx, host)
	if err != nil {
		return "", unlessUnknown(err)
	}
	var errs []error
	for _, address := range addresses {
		known, err := names.LookupAddr(ctx, address)
		errs = append(errs, unlessUnknown(err))
		for _, name := range known {
			// "localhost" is no machine's name, and "vm.localdomain" no domain.
			if h, domain := splitName(name); h == host && domain != "" && domain != "localdomain" {
				return domain, nil
			}
		}
	}
	return "", errors.Join(errs...)
}

// unlessUnknown drops the error that says that there is no such name.
func unlessUnknown(err error) error {
	var lookup *net.DNSError
	if err == nil || errors.As(err, &lookup) && lookup.IsNotFound {
		return nil
	}
	return fmt.Errorf("look up this host's name: %w", err)
}
