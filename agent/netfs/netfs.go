// Package netfs lets one program read external sources as files while it runs: a read-only file system, mounted where only
// that program and what it starts can see it, that reads by accounts which the program never gets.
//
// Below the mount point lies what the resources of the signed order name:
//
//	HOST/SHARE/PATH         of an SMB share; a port other than the usual one is part of the host: files.example:1445
//	SCHEME://HOST/PATH      of every kind of source: an address (unescaped) behind the mount point and / is a path,
//	                        as $CHANDLER_NET/https://www.example/pub/setup.bin
//
// Folders above a resource list only what leads to one. Names of hosts fold letter case, and on shares all names do.
//
// Each first access to a resource asks for the account that may read it; the account is asked for again when its time
// is over. What is pinned is read whole when it is first opened, into a file without a name, checked, and served
// from there. Everything may be executed; nothing counts as set-user-id or as a device.
//
// # Under failure
//
// A program sees EACCES for what the order does not name, what the account may not read, and where there is no account;
// ENOENT for what is not there; EHOSTUNREACH for a host that does not answer in time; EIO for what is not what was
// pinned, has changed while it was read, or when the agent was not heard. Each is told, with who tried and what was
// answered: once for each resource and reason, but for denials, which are told of the first few files of a resource. A
// wrong secret is shown to a host once. Callers that [Options].Inside does not know get EACCES.
//
// A lease that is withdrawn ([FS.Withdraw]) is over at once: what is open by it, and what the kernel keeps of that, is read
// no more, and sessions are ended. The next use, also of an open file, asks for the account anew: it goes on if there is one
// and the file is the same, and fails as any other access if not.
//
// Closing, the mount goes at once, whoever still uses it: open files answer ENOTCONN, and secrets are overwritten. A killed
// process leaves no mount, since nobody else ever had it, and its programs the same answer.
//
// Never start a program that lies below the mount point from the process that serves it: the Go runtime stands still
// while it executes a program, and with it the file system that the program is to be read from.
package netfs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"chandler/agent/lending"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// DefaultPatience is how long one answer of a source may take.
const DefaultPatience = time.Minute

// Options of Mount.
type Options struct {
	Mount     string                   // the mount point, an absolute path to an empty folder
	Dir       string                   // absolute; where pinned files are kept, without names, while the mount is there
	Sources   map[string]source.Source // by the scheme of an address
	Resources []string                 // addresses or patterns that the signed order names
	Pins      map[string]string        // SHA-256 in hexadecimal digits, by the address of a file
	Identity  string                   // who reads, where a failure is told of which no loan says it
	// Login asks for the account that reads a resource, which it may call by several goroutines at once for several. The
	// error is a *source.Error, with a Loan that may say who was to read. The Loan is cleared here.
	Login  func(ctx context.Context, resource string) (lending.Loan, error)
	Inside func(pid int) bool  // whether a process may read here
	Told   func(events.Access) // hears of outcomes, one at a time
	// Patience is how long one answer may take; 0: DefaultPatience.
	Patience time.Duration
	Clock    func() time.Time // nil: time.Now
}

// ErrImpossible says that nothing can be mounted here; the error that wraps it says what is missing.
var ErrImpossible = errors.New("references cannot be mounted")

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (o *Options) validate() error {
	switch {
	case !filepath.IsAbs(o.Mount) || !filepath.IsAbs(o.Dir):
		return fmt.Errorf("netfs: mount point %q and directory %q must be absolute", o.Mount, o.Dir)
	case o.Login == nil || o.Inside == nil || o.Told == nil:
		return errors.New("netfs: nobody to ask for accounts, about callers, or to tell")
	}
	for _, pattern := range o.Resources {
		if _, err := resource.ParsePattern(pattern); err != nil {
			return fmt.Errorf("netfs: a resource %w", err)
		}
	}
	for address, digest := range o.Pins {
		if _, err := resource.Parse(address); err != nil || !hexDigest.MatchString(digest) {
			return fmt.Errorf("netfs: pin %q of %q", digest, address)
		}
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return nil
}
